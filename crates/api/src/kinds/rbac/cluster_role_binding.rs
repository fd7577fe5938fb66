//! ClusterRoleBinding: gives a ClusterRole to subjects everywhere.

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::Value;

use crate::{
    field::Errors,
    kind::{self, Column, Kind, NameRule},
};

impl Kind for ClusterRoleBinding {
    const NAME_RULE: NameRule = NameRule::PathSegment;
    const CREATE_ON_UPDATE: bool = true;

    fn set_defaults(&mut self) {
        super::default_binding(&mut self.role_ref, self.subjects.as_mut());
    }

    fn validate(&self, errors: &mut Errors) {
        super::validate_role_ref(&self.role_ref, &["ClusterRole"], errors);
        super::validate_subjects(self.subjects.as_ref(), false, errors);
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
    use crate::kinds::testing::check_new;

    #[test]
    fn accounts_need_a_namespace_and_roles_do_not_fit() {
        check_new::<ClusterRoleBinding>(
            json!({"roleRef": {"kind": "Role", "name": "a"}, "subjects": [{"kind": "ServiceAccount", "name": "a"}]}),
            expect![[r#"
                roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
                subjects[0].namespace: Required value"#]],
        );
    }
}
