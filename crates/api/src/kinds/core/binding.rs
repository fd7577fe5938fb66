//! Binding at a path of its own: posted to put a Pod on a node, and not stored. The API server answers.

use k8s_openapi::api::core::v1::Binding;

use crate::kind::Kind;

impl Kind for Binding {
    const VERBS: &'static [&'static str] = &["create"];
}
