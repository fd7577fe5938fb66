//! Who owns what: controller references, adoption of orphans that a selector matches, release of what it no longer does.

use std::{collections::BTreeMap, sync::Arc};

use api::selector::Selector;
use client::controller::Action;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use serde_json::json;

/// The index of objects that no controller owns, by namespace.
pub const ORPHANS: &str = "orphans";

/// For [`ORPHANS`].
pub fn orphan<K: Resource>(object: &K) -> Vec<String> {
    match controller_of(object.meta()) {
        None => object.meta().namespace.iter().cloned().collect(),
        Some(_) => Vec::new(),
    }
}

/// The one reference that says `controller: true`.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object with this uid controls it.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// A controller reference to `owner`, which blocks its foreground deletion.
pub fn reference_to<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The labels of an object; empty where there are none.
pub fn labels_of(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

/// What an owner has among the candidates, and what must be done first to make this true.
#[derive(Debug)]
pub struct Claim<C> {
    pub owned: Vec<Arc<C>>,
    /// Adoptions and releases. While there are any, nothing else should be decided.
    pub actions: Vec<Action>,
}

/// Sorts out candidates: those that `owner` controls, and orphans of its namespace.
pub fn claim<O, C>(owner: &O, selector: &Selector, candidates: &[Arc<C>]) -> Claim<C>
where
    O: Resource<DynamicType = ()>,
    C: Resource<DynamicType = ()>,
{
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let owner_leaves = owner.meta().deletion_timestamp.is_some();
    let mut claim = Claim { owned: Vec::new(), actions: Vec::new() };
    for candidate in candidates {
        let meta = candidate.meta();
        let matches = selector.matches(labels_of(meta));
        match controller_of(meta) {
            Some(controller) if controller.uid != uid => (),
            Some(_) if matches => claim.owned.push(Arc::clone(candidate)),
            None if matches && !owner_leaves && meta.deletion_timestamp.is_none() => {
                let owners = meta.owner_references.iter().flatten().cloned();
                claim.actions.push(with_owners(&**candidate, owners.chain([reference_to(owner)]).collect()));
            }
            Some(_) if !owner_leaves => {
                let owners = meta.owner_references.iter().flatten().filter(|other| other.uid != uid).cloned();
                claim.actions.push(with_owners(&**candidate, owners.collect()));
            }
            Some(_) | None => (),
        }
    }
    claim
}

fn with_owners<C: Resource<DynamicType = ()>>(object: &C, owners: Vec<OwnerReference>) -> Action {
    let metadata = json!({"ownerReferences": owners, "resourceVersion": object.meta().resource_version});
    Action::patch(object, json!({"metadata": metadata}))
}
