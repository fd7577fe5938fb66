//! Label selectors in a spec, as `ValidateLabelSelector` judges them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::meta::{validate_label_name, validate_labels};
use crate::{
    field::{Errors, Path},
    names,
};

/// A selector with labels and expressions; `None` is valid and selects what the kind says it selects.
pub fn validate_label_selector(selector: Option<&LabelSelector>, path: &Path, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    validate_labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errors);
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        validate_requirement(requirement, &path.child("matchExpressions").index(index), errors);
    }
}

/// One `{key, operator, values}`.
pub fn validate_requirement(requirement: &LabelSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    if !validate_values(&requirement.operator, values, path, errors) {
        errors.invalid(&path.child("operator"), &requirement.operator, "not a valid selector operator");
    }
    validate_label_name(&requirement.key, &path.child("key"), errors);
    for (index, value) in values.iter().enumerate() {
        super::check(names::is_valid_label_value(value), value, &path.child("values").index(index), errors);
    }
}

/// Whether there are values where the operator wants them. Returns whether the operator is known.
pub fn validate_values(operator: &str, values: &[String], path: &Path, errors: &mut Errors) -> bool {
    match (operator, values) {
        ("In" | "NotIn", []) => {
            errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        ("Exists" | "DoesNotExist", [_, ..]) => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&path.child("values"), why);
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
        _ => return false,
    }
    true
}

/// Whether a selector would match every object.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(|expressions| expressions.is_empty())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(selector: Value, expected: Expect) {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        let mut errors = Errors::default();
        validate_label_selector(Some(&selector), &Path::new("spec").child("selector"), &mut errors);
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn selectors() {
        check(json!({"matchLabels": {"app": "web"}}), expect![""]);
        check(
            json!({"matchExpressions": [
                {"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["x"]},
                {"key": "a", "operator": "Gt", "values": ["3"]},
            ]}),
            expect![[r#"
                spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
                spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'
                spec.selector.matchExpressions[2].operator: Invalid value: "Gt": not a valid selector operator"#]],
        );
    }
}
