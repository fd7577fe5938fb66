//! PodDisruptionBudget: how many Pods of a set an eviction must leave.

use k8s_openapi::{
    api::policy::v1::PodDisruptionBudget,
    apimachinery::pkg::{apis::meta::v1::Condition, util::intstr::IntOrString},
};
use serde_json::{Value, json};

use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, NameRule, Subresource, column, integer, status_of},
    validation::{self, validate_label_selector, validate_non_negative},
};

impl Kind for PodDisruptionBudget {
    const SHORT_NAMES: &'static [&'static str] = &["pdb"];
    const SUBRESOURCES: &'static [Subresource] = &[status_of("PodDisruptionBudget")];
    const NAME_RULE: NameRule = NameRule::PathSegment;
    const HAS_GENERATION: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default();
        let status = self.status.get_or_insert_default();
        status.current_healthy.get_or_insert_default();
        status.desired_healthy.get_or_insert_default();
        status.disruptions_allowed.get_or_insert_default();
        status.expected_pods.get_or_insert_default();
    }

    fn prepare_for_create(&mut self) {
        self.set_defaults();
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let path = Path::new("spec");
        if let (Some(minimum), Some(maximum)) = (&spec.min_available, &spec.max_unavailable) {
            let value = json!({"MinAvailable": minimum, "MaxUnavailable": maximum});
            errors.invalid(&path, value, "minAvailable and maxUnavailable cannot be both set");
        }
        for (field, limit) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
            if let Some(limit) = limit {
                validation::validate_count_or_percent(limit, &path.child(field), errors);
                validation::validate_not_above_100_percent(limit, &path.child(field), errors);
            }
        }
        validate_label_selector(spec.selector.as_ref(), &path.child("selector"), errors);
        const POLICIES: &[&str] = &["AlwaysAllow", "IfHealthyBudget"];
        if let Some(policy) = spec.unhealthy_pod_eviction_policy.as_deref().filter(|name| !POLICIES.contains(name)) {
            errors.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, POLICIES);
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        let path = Path::new("status");
        let conditions: &[Condition] = status.conditions.as_deref().unwrap_or_default();
        validation::conditions::validate_conditions(conditions, &path.child("conditions"), errors);
        let counts = [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ];
        for (field, count) in counts {
            validate_non_negative(i64::from(count.unwrap_or(0)), &path.child(field), errors);
        }
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            column("Min Available", "The minimum number of pods that must be available."),
            column("Max Unavailable", "The maximum number of pods that may be unavailable."),
            integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
            AGE_COLUMN,
        ]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let limit = |limit: Option<IntOrString>| match limit {
            None => "N/A".to_owned(),
            Some(IntOrString::Int(count)) => count.to_string(),
            Some(IntOrString::String(percent)) => percent,
        };
        let allowed = self.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
        vec![
            self.metadata.name.clone().into(),
            limit(spec.min_available).into(),
            limit(spec.max_unavailable).into(),
            allowed.into(),
            kind::age(&self.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::kinds::testing::{check_new, check_row};

    #[test]
    fn limits() {
        check_new::<PodDisruptionBudget>(json!({"spec": {"minAvailable": 1, "selector": {}}}), expect![""]);
        check_new::<PodDisruptionBudget>(
            json!({"spec": {"minAvailable": -1, "maxUnavailable": "101%", "unhealthyPodEvictionPolicy": "Never"}}),
            expect![[r#"
                spec: Invalid value: {"MaxUnavailable":"101%","MinAvailable":-1}: minAvailable and maxUnavailable cannot be both set
                spec.minAvailable: Invalid value: -1: must be greater than or equal to 0
                spec.maxUnavailable: Invalid value: "101%": must not be greater than 100%
                spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget""#]],
        );
        check_row::<PodDisruptionBudget>(
            json!({"metadata": {"name": "a"}, "spec": {"minAvailable": "50%"}}),
            expect!["a | 50% | N/A | 0 | <unknown>"],
        );
    }
}
