//! Namespace: a scope for names; it goes when nothing is left in it.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, NameRule, Subresource, column, status_of},
    names,
};

/// The finalizer that the namespace controller takes away when the namespace is empty.
pub const KUBERNETES_FINALIZER: &str = "kubernetes";
/// The label that carries the namespace's own name, so that selectors can name it.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

const STANDARD_FINALIZERS: &[&str] = &[KUBERNETES_FINALIZER, "orphan", "foregroundDeletion"];

const FINALIZE: Subresource =
    Subresource { name: "finalize", group: "", version: "", kind: "Namespace", verbs: &["update"] };

impl Kind for Namespace {
    const SHORT_NAMES: &'static [&'static str] = &["ns"];
    const SUBRESOURCES: &'static [Subresource] = &[FINALIZE, status_of("Namespace")];
    const VERBS: &'static [&'static str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
    const NAME_RULE: NameRule = NameRule::DnsLabel;

    fn set_defaults(&mut self) {
        if let Some(name) = self.metadata.name.clone().filter(|name| !name.is_empty()) {
            self.metadata.labels.get_or_insert_default().insert(NAME_LABEL.into(), name);
        }
        self.spec.get_or_insert_default();
        let phase = &mut self.status.get_or_insert_default().phase;
        if phase.as_deref().unwrap_or_default().is_empty() {
            *phase = Some("Active".into());
        }
    }

    fn prepare_for_create(&mut self) {
        self.status = None;
        self.set_defaults();
        let finalizers = self.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|name| name == KUBERNETES_FINALIZER) {
            finalizers.push(KUBERNETES_FINALIZER.into());
        }
    }

    fn prepare_for_update(&mut self, old: &Self) {
        self.spec = old.spec.clone();
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::new("spec").child("finalizers");
        for finalizer in self.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()) {
            validate_finalizer(finalizer, &path, errors);
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let path = Path::new("status").child("Phase");
        match self.metadata.deletion_timestamp {
            None if phase != "Active" => {
                errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty");
            }
            Some(_) if phase != "Terminating" => {
                errors.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
            }
            _ => {}
        }
    }

    fn columns() -> Vec<Column> {
        vec![NAME_COLUMN, column("Status", "The status of the namespace"), AGE_COLUMN]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let phase = self.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        vec![self.metadata.name.clone().into(), phase.into(), kind::age(&self.metadata, now).into()]
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        let phase = self.status.as_ref().and_then(|status| status.phase.clone());
        vec![("status.phase", phase.unwrap_or_default())]
    }
}

/// A finalizer of `spec.finalizers`: qualified by a domain, or one that Kubernetes knows.
pub fn validate_finalizer(finalizer: &str, path: &Path, errors: &mut Errors) {
    for message in names::is_qualified_name(finalizer) {
        errors.invalid(path, finalizer, message);
    }
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        errors.invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_created, check_new, check_row};

    #[test]
    fn a_new_namespace_is_active_and_has_its_finalizer() {
        check_created::<Namespace>(
            json!({"metadata": {"name": "a"}}),
            expect![[r#"
                {
                  "apiVersion": "v1",
                  "kind": "Namespace",
                  "metadata": {
                    "labels": {
                      "kubernetes.io/metadata.name": "a"
                    },
                    "name": "a"
                  },
                  "spec": {
                    "finalizers": [
                      "kubernetes"
                    ]
                  },
                  "status": {
                    "phase": "Active"
                  }
                }"#]],
        );
        check_row::<Namespace>(json!({"metadata": {"name": "a"}}), expect!["a | Active | <unknown>"]);
    }

    #[test]
    fn finalizers_are_known_or_qualified() {
        check_new::<Namespace>(
            json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["mine", "x.io/mine"]}}),
            expect![[
                r#"spec.finalizers: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified"#
            ]],
        );
    }
}
