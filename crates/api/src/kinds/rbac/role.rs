//! Role: what may be done in one namespace.

use k8s_openapi::api::rbac::v1::Role;

use crate::{
    field::Errors,
    kind::{Kind, NameRule},
};

impl Kind for Role {
    const NAME_RULE: NameRule = NameRule::PathSegment;
    const CREATE_ON_UPDATE: bool = true;

    fn validate(&self, errors: &mut Errors) {
        super::validate_rules(self.rules.as_ref(), true, errors);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_new, check_row};

    #[test]
    fn rules() {
        check_new::<Role>(
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
            expect![""],
        );
        check_new::<Role>(
            json!({"rules": [{"verbs": []}, {"verbs": ["get"], "resources": ["pods"], "nonResourceURLs": ["/healthz"]}]}),
            expect![[r#"
                rules[0].verbs: Required value: verbs must contain at least one value
                rules[0].apiGroups: Required value: resource rules must supply at least one api group
                rules[0].resources: Required value: resource rules must supply at least one resource
                rules[1].nonResourceURLs: Invalid value: ["/healthz"]: namespaced rules cannot apply to non-resource URLs
                rules[1].nonResourceURLs: Invalid value: ["/healthz"]: rules cannot apply to both regular resources and non-resource URLs"#]],
        );
        check_row::<Role>(
            json!({"metadata": {"name": "a:b", "creationTimestamp": "2026-01-01T00:00:00Z"}}),
            expect!["a:b | 2026-01-01T00:00:00Z"],
        );
    }
}
