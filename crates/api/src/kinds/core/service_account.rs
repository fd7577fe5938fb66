//! ServiceAccount: an identity for Pods.

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use crate::kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, Subresource};

const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

const TOKEN: Subresource = Subresource {
    name: "token",
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenRequest",
    verbs: &["create"],
};

impl Kind for ServiceAccount {
    const SHORT_NAMES: &'static [&'static str] = &["sa"];
    const SUBRESOURCES: &'static [Subresource] = &[TOKEN];

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        if has_annotation(self) && !old.is_some_and(has_annotation) {
            let why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
            return vec![format!("metadata.annotations[{ENFORCE_MOUNTABLE}]: {why}")];
        }
        Vec::new()
    }

    fn columns() -> Vec<Column> {
        vec![NAME_COLUMN, AGE_COLUMN]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        vec![self.metadata.name.clone().into(), kind::age(&self.metadata, now).into()]
    }
}

fn has_annotation(account: &ServiceAccount) -> bool {
    account.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ENFORCE_MOUNTABLE))
}
