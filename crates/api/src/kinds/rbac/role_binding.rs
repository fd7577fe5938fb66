//! RoleBinding: gives a role to subjects in one namespace.

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::Value;

use crate::{
    field::Errors,
    kind::{self, Column, Kind, NameRule},
};

impl Kind for RoleBinding {
    const NAME_RULE: NameRule = NameRule::PathSegment;
    const CREATE_ON_UPDATE: bool = true;

    fn set_defaults(&mut self) {
        super::default_binding(&mut self.role_ref, self.subjects.as_mut());
    }

    fn validate(&self, errors: &mut Errors) {
        super::validate_role_ref(&self.role_ref, &["Role", "ClusterRole"], errors);
        super::validate_subjects(self.subjects.as_ref(), true, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        super::validate_same_role(&self.role_ref, &old.role_ref, errors);
    }

    fn columns() -> Vec<Column> {
        super::binding_columns()
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let [users, groups, accounts] = super::subject_cells(self.subjects.as_ref());
        let (name, age) = (self.metadata.name.clone(), kind::age(&self.metadata, now));
        vec![name.into(), super::role_cell(&self.role_ref), age.into(), users, groups, accounts]
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_change, check_new, check_row};

    #[test]
    fn subjects() {
        check_new::<RoleBinding>(
            json!({"roleRef": {"kind": "Pod", "name": ""}, "subjects": [
                {"kind": "ServiceAccount", "name": "A", "apiGroup": "x"}, {"kind": "User", "name": "u"}, {"kind": "Robot", "name": "r"}]}),
            expect![[r#"
                roleRef.kind: Unsupported value: "Pod": supported values: "Role", "ClusterRole"
                roleRef.name: Required value
                subjects[0].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                subjects[0].apiGroup: Unsupported value: "x": supported values: ""
                subjects[2].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#]],
        );
    }

    #[test]
    fn the_role_stays() {
        check_change::<RoleBinding>(
            json!({"roleRef": {"kind": "Role", "name": "a"}}),
            json!({"roleRef": {"kind": "Role", "name": "b"}}),
            expect![[
                r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"b"}: cannot change roleRef"#
            ]],
        );
        check_row::<RoleBinding>(
            json!({"metadata": {"name": "x"}, "roleRef": {"kind": "Role", "name": "a"}, "subjects": [
                {"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
            expect!["x | Role/a | <unknown> | u, v |  | n/s"],
        );
    }
}
