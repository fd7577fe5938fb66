//! Read access to current objects for authentication, authorization and admission.

use std::sync::Arc;

use api::Object;

/// The watch cache as the policy code sees it. Resources are named by group and plural.
pub trait View: Send + Sync + 'static {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects, or those of one namespace.
    fn list(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Arc<Object>>;
    /// Changes whenever an object of the resource changes: key for whatever is computed from them.
    fn version(&self, group: &str, resource: &str) -> u64;
}
