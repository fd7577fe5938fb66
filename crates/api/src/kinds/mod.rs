//! The table of contents of the API: one line a kind.

use std::sync::LazyLock;

use crate::kind::{AnyKind, builtin};

pub mod apps;
pub mod core;

/// Every built-in kind.
pub static ALL: LazyLock<Vec<Box<dyn AnyKind>>> = LazyLock::new(|| {
    vec![
        builtin::<k8s_openapi::api::core::v1::ConfigMap>(),
    ]
});

/// The kind that serves this group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static dyn AnyKind> {
    ALL.iter().map(AsRef::as_ref).find(|kind| {
        let descriptor = kind.descriptor();
        descriptor.group == group && descriptor.version == version && descriptor.plural == plural
    })
}
