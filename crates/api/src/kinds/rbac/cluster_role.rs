//! ClusterRole: what may be done everywhere, or in any namespace that binds it.

use k8s_openapi::api::rbac::v1::ClusterRole;

use crate::{
    field::{Errors, Path},
    kind::{Kind, NameRule},
    validation::validate_label_selector,
};

impl Kind for ClusterRole {
    const NAME_RULE: NameRule = NameRule::PathSegment;
    const CREATE_ON_UPDATE: bool = true;

    fn validate(&self, errors: &mut Errors) {
        super::validate_rules(self.rules.as_ref(), false, errors);
        let Some(aggregation) = &self.aggregation_rule else { return };
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
        if selectors.is_empty() {
            errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (index, selector) in selectors.iter().enumerate() {
            validate_label_selector(Some(selector), &path.index(index), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::check_new;

    #[test]
    fn aggregation_needs_selectors() {
        check_new::<ClusterRole>(
            json!({"aggregationRule": {}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]}),
            expect![
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
            ],
        );
    }
}
