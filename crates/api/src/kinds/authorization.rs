//! Kinds of authorization.k8s.io: questions about what is allowed, answered and not stored. The API
//! server answers.

use k8s_openapi::{
    api::authorization::v1::{
        LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview,
        SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    field::{Errors, Path},
    kind::Kind,
    names,
    validation::{check, meta::validate_label_name, selector::validate_values},
};

const CREATE_ONLY: &[&str] = &["create"];

impl Kind for SubjectAccessReview {
    const VERBS: &'static [&'static str] = CREATE_ONLY;

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&self.spec, errors);
        validate_empty(&self.metadata, ObjectMeta::default(), "must be empty", errors);
    }
}

impl Kind for SelfSubjectAccessReview {
    const VERBS: &'static [&'static str] = CREATE_ONLY;

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        validate_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), errors);
        validate_selectors(spec.resource_attributes.as_ref(), errors);
        validate_empty(&self.metadata, ObjectMeta::default(), "must be empty", errors);
    }
}

impl Kind for LocalSubjectAccessReview {
    const VERBS: &'static [&'static str] = CREATE_ONLY;

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&self.spec, errors);
        let expected = ObjectMeta { namespace: self.metadata.namespace.clone(), ..ObjectMeta::default() };
        validate_empty(&self.metadata, expected, "must be empty except for namespace", errors);
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(resource) = &self.spec.resource_attributes {
            let asked = resource.namespace.as_deref().unwrap_or_default();
            if asked != namespace {
                errors.invalid(&Path::new("spec.resourceAttributes.namespace"), asked, "must match metadata.namespace");
            }
        }
        if let Some(attributes) = &self.spec.non_resource_attributes {
            let path = Path::new("spec.nonResourceAttributes");
            errors.invalid(&path, attributes, "disallowed on this kind of request");
        }
    }
}

impl Kind for SelfSubjectRulesReview {
    const VERBS: &'static [&'static str] = CREATE_ONLY;
}

fn validate_spec(spec: &SubjectAccessReviewSpec, errors: &mut Errors) {
    validate_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), errors);
    let user = spec.user.as_deref().unwrap_or_default();
    if user.is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        let path = Path::new("spec").child("user");
        errors.invalid(&path, user, "at least one of user or group must be specified");
    }
    validate_selectors(spec.resource_attributes.as_ref(), errors);
}

/// Exactly one of the two.
fn validate_attributes(
    resource: Option<&ResourceAttributes>,
    other: Option<&NonResourceAttributes>,
    errors: &mut Errors,
) {
    let path = Path::new("spec");
    match (resource, other) {
        (Some(_), Some(_)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.invalid(&path.child("nonResourceAttributes"), other, why);
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.invalid(&path.child("resourceAttributes"), other, why);
        }
        _ => {}
    }
}

/// Operators that this server does not know are let through: a newer client may know them.
fn validate_selectors(resource: Option<&ResourceAttributes>, errors: &mut Errors) {
    let Some(resource) = resource else { return };
    let path = Path::new("spec.resourceAttributes");
    if let Some(selector) = &resource.field_selector {
        let path = path.child("fieldSelector");
        let requirements = selector.requirements.as_deref().unwrap_or_default();
        validate_one_form(selector.raw_selector.as_deref(), requirements.len(), &path, errors);
        for (index, requirement) in requirements.iter().enumerate() {
            let path = path.child("requirements").index(index);
            if requirement.key.is_empty() {
                errors.required(&path.child("key"), "must be specified");
            }
            validate_values(&requirement.operator, requirement.values.as_deref().unwrap_or_default(), &path, errors);
        }
    }
    if let Some(selector) = &resource.label_selector {
        let path = path.child("labelSelector");
        let requirements = selector.requirements.as_deref().unwrap_or_default();
        validate_one_form(selector.raw_selector.as_deref(), requirements.len(), &path, errors);
        for (index, requirement) in requirements.iter().enumerate() {
            let path = path.child("requirements").index(index);
            let values = requirement.values.as_deref().unwrap_or_default();
            validate_values(&requirement.operator, values, &path, errors);
            validate_label_name(&requirement.key, &path.child("key"), errors);
            for (at, value) in values.iter().enumerate() {
                check(names::is_valid_label_value(value), value, &path.child("values").index(at), errors);
            }
        }
    }
}

fn validate_one_form(raw: Option<&str>, requirements: usize, path: &Path, errors: &mut Errors) {
    match (raw.unwrap_or_default(), requirements) {
        ("", 0) => {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.required(&path.child("requirements"), &why);
        }
        ("", _) | (_, 0) => {}
        (raw, _) => {
            errors.invalid(&path.child("rawSelector"), raw, "may not specified at the same time as requirements");
        }
    }
}

fn validate_empty(meta: &ObjectMeta, mut expected: ObjectMeta, why: &str, errors: &mut Errors) {
    expected.managed_fields = meta.managed_fields.clone();
    if *meta != expected {
        errors.invalid(&Path::new("metadata"), meta, why);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::check_new;

    #[test]
    fn questions_make_sense() {
        check_new::<SelfSubjectAccessReview>(
            json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}),
            expect![""],
        );
        check_new::<SubjectAccessReview>(
            json!({"metadata": {"name": "a"}, "spec": {"resourceAttributes": {"labelSelector": {}}, "nonResourceAttributes": {}}}),
            expect![[r#"
                spec.nonResourceAttributes: Invalid value: {}: cannot be specified in combination with resourceAttributes
                spec.user: Invalid value: "": at least one of user or group must be specified
                spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required
                metadata: Invalid value: {"name":"a"}: must be empty"#]],
        );
        check_new::<LocalSubjectAccessReview>(
            json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}}),
            expect![[r#"spec.resourceAttributes.namespace: Invalid value: "b": must match metadata.namespace"#]],
        );
    }
}
