//! Who owns whom, as far as the watches have shown: objects by uid, and the dependents of each owner.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use client::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::ApiResource;

/// The finalizer of an owner whose dependents go before it.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// Whether an object is being deleted, and what happens to its dependents.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leaving {
    No,
    /// Nothing to do here: its dependents are looked at once it is gone.
    Plainly,
    Foreground,
    Orphaning,
}

impl Leaving {
    pub fn of(meta: &ObjectMeta) -> Self {
        match () {
            () if meta.deletion_timestamp.is_none() => Self::No,
            () if has_finalizer(meta, ORPHAN) => Self::Orphaning,
            () if has_finalizer(meta, FOREGROUND) => Self::Foreground,
            () => Self::Plainly,
        }
    }

    /// Whether the object waits for a change of its dependents.
    fn waits(self) -> bool {
        matches!(self, Self::Foreground | Self::Orphaning)
    }
}

pub fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

/// One object: what is needed of its metadata.
#[derive(Clone, Debug)]
pub struct Item {
    pub resource: Arc<ApiResource>,
    pub key: Key,
    pub uid: String,
    pub revision: Option<String>,
    pub owners: Vec<OwnerReference>,
    pub leaving: Leaving,
}

impl Item {
    /// `None` for an object without a uid, which no server sends.
    pub fn of(resource: &Arc<ApiResource>, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            resource: Arc::clone(resource),
            key: Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone()?),
            uid: meta.uid.clone()?,
            revision: meta.resource_version.clone(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            leaving: Leaving::of(meta),
        })
    }

    /// Whether it names the object with this uid among its owners, and holds up its foreground deletion.
    pub fn blocks(&self, owner_uid: &str) -> bool {
        self.owners.iter().any(|owner| owner.uid == owner_uid && owner.block_owner_deletion == Some(true))
    }

    /// Whether this is the object that a reference in `namespace` names, and not only one with its uid.
    fn is_named_by(&self, reference: &OwnerReference, namespace: &str) -> bool {
        self.resource.kind == reference.kind
            && self.key.name == reference.name
            && group_of(&self.resource.api_version) == group_of(&reference.api_version)
            && (self.key.namespace.is_empty() || self.key.namespace == namespace)
    }
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// All objects seen. Its methods answer with the uids that must be looked at because of a change.
#[derive(Debug, Default)]
pub struct Graph {
    items: HashMap<String, Arc<Item>>,
    /// Owner -> dependents; owners need not have been seen.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<Arc<Item>> {
        self.items.get(uid).cloned()
    }

    /// The objects that name this uid among their owners, by uid.
    pub fn dependents(&self, uid: &str) -> Vec<Arc<Item>> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.items.get(uid).cloned()).collect()
    }

    /// Takes in an object, new or changed.
    pub fn apply(&mut self, item: Item) -> Vec<String> {
        let item = Arc::new(item);
        let old = self.items.insert(item.uid.clone(), Arc::clone(&item));
        let old_owners = old.as_ref().map(|old| old.owners.clone()).unwrap_or_default();
        if old.is_some_and(|old| old.owners == item.owners && old.leaving == item.leaving) {
            return Vec::new();
        }
        for owner in &old_owners {
            self.unlink(&owner.uid, &item.uid);
        }
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(item.uid.clone());
        }
        let mut concerned = self.waiting_among(old_owners.iter().chain(&item.owners));
        if self.is_suspect(&item) {
            concerned.push(item.uid.clone());
        }
        if item.leaving == Leaving::Foreground {
            concerned.extend(self.dependents(&item.uid).iter().map(|dependent| dependent.uid.clone()));
        }
        concerned
    }

    /// Forgets an object that is gone: its dependents may have lost their last owner, its owners what they wait for.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(item) = self.items.remove(uid) else { return Vec::new() };
        for owner in &item.owners {
            self.unlink(&owner.uid, uid);
        }
        let mut concerned = self.waiting_among(item.owners.iter());
        concerned.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        concerned
    }

    /// Forgets all objects of a resource that the server no longer has.
    pub fn forget(&mut self, resource: &ApiResource) {
        let of_it = self.items.values().filter(|item| *item.resource == *resource).cloned().collect::<Vec<_>>();
        for item in of_it {
            self.remove(&item.uid);
        }
    }

    /// Everything that cannot be told to be in order from here.
    pub fn suspects(&self) -> Vec<String> {
        self.items.values().filter(|item| self.is_suspect(item)).map(|item| item.uid.clone()).collect()
    }

    /// An object must be looked at while it waits for its dependents, and where an owner is not as it should be.
    fn is_suspect(&self, item: &Item) -> bool {
        match item.leaving {
            Leaving::Foreground | Leaving::Orphaning => true,
            Leaving::Plainly => false,
            Leaving::No => item.owners.iter().any(|reference| {
                self.items.get(&reference.uid).is_none_or(|owner| {
                    owner.leaving == Leaving::Foreground || !owner.is_named_by(reference, &item.key.namespace)
                })
            }),
        }
    }

    fn waiting_among<'a>(&self, owners: impl Iterator<Item = &'a OwnerReference>) -> Vec<String> {
        let waits = |uid: &String| self.items.get(uid).is_some_and(|owner| owner.leaving.waits());
        owners.map(|owner| owner.uid.clone()).filter(waits).collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// An item of kind `Thing`, whose name is its uid.
    fn item(uid: &str, owners: &[&str], leaving: Value) -> Item {
        let resource = Arc::new(ApiResource {
            group: "example.com".into(),
            version: "v1".into(),
            api_version: "example.com/v1".into(),
            kind: "Thing".into(),
            plural: "things".into(),
        });
        let reference = |uid: &&str| json!({"apiVersion": "example.com/v2", "kind": "Thing", "name": uid, "uid": uid});
        let mut meta = json!({"namespace": "n", "name": uid, "uid": uid,
            "ownerReferences": owners.iter().map(reference).collect::<Vec<_>>()});
        if let Value::String(finalizer) = leaving {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            meta["finalizers"] = json!([finalizer]);
        }
        Item::of(&resource, &serde_json::from_value(meta).unwrap()).unwrap()
    }

    #[test]
    fn changes_name_whom_they_concern() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(item("child", &["parent"], Value::Null)), ["child"], "its owner is unknown");
        assert!(graph.apply(item("parent", &[], Value::Null)).is_empty());
        assert!(graph.suspects().is_empty());
        assert!(graph.apply(item("child", &["parent"], Value::Null)).is_empty(), "nothing changed");
        assert_eq!(graph.apply(item("parent", &[], json!(FOREGROUND))), ["parent", "child"]);
        assert_eq!(graph.apply(item("late", &["parent"], Value::Null)), ["parent", "late"]);
        assert_eq!(graph.remove("child"), ["parent"], "it waits for its dependents");
        assert_eq!(graph.remove("parent"), ["late"], "its owner is gone");
        assert_eq!(graph.remove("parent"), Vec::<String>::new());
        graph.remove("late");
        assert!(graph.dependents.is_empty() && graph.items.is_empty());
    }

    #[test]
    fn an_orphaning_owner_is_looked_at_when_a_dependent_lets_go() {
        let mut graph = Graph::default();
        graph.apply(item("parent", &[], json!(ORPHAN)));
        assert_eq!(graph.apply(item("child", &["parent"], Value::Null)), ["parent"]);
        assert_eq!(graph.apply(item("child", &[], Value::Null)), ["parent"]);
        assert!(graph.dependents("parent").is_empty());
    }

    #[test]
    fn an_owner_must_be_named_as_it_is() {
        let mut graph = Graph::default();
        graph.apply(item("parent", &[], Value::Null));
        let mut stranger = item("child", &["parent"], Value::Null);
        stranger.key.namespace = "other".into();
        assert_eq!(graph.apply(stranger), ["child"], "the owner lives in another namespace");
        let mut misnamed = item("child", &["parent"], Value::Null);
        misnamed.owners[0].kind = "Other".into();
        assert_eq!(graph.apply(misnamed), ["child"]);
    }
}
