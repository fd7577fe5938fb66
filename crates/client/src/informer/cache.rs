//! The objects of one kind, by name and by index, and those who want to hear of their changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kube::Resource;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Change, Index, revision_of};
use crate::Key;

/// The index that every cache has: the uid of the controller reference.
pub(super) const BY_OWNER: &str = "controller";

pub(super) struct Cache<K> {
    /// Namespace, then name.
    objects: BTreeMap<String, BTreeMap<String, Arc<K>>>,
    indexes: Vec<Filed<K>>,
    subscribers: Vec<UnboundedSender<Change<K>>>,
}

/// One index and what it files.
struct Filed<K> {
    index: Index<K>,
    objects: HashMap<String, BTreeMap<Key, Arc<K>>>,
}

fn controller_uid<K: Resource>(object: &K) -> Vec<String> {
    let owners = object.meta().owner_references.iter().flatten();
    owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).collect()
}

impl<K: Resource> Cache<K> {
    pub fn new(indexes: &[Index<K>]) -> Self {
        let by_owner: Index<K> = (BY_OWNER, controller_uid::<K>);
        let all = std::iter::once(&by_owner).chain(indexes);
        let indexes = all.map(|index| Filed { index: *index, objects: HashMap::new() }).collect();
        Self { objects: BTreeMap::new(), indexes, subscribers: Vec::new() }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.objects.get(namespace)?.get(name).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects.values().flat_map(|names| names.values().cloned()).collect()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.objects.get(namespace).into_iter().flat_map(|names| names.values().cloned()).collect()
    }

    pub fn indexed(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let filed = self.indexes.iter().find(|filed| filed.index.0 == index);
        let objects = filed.and_then(|filed| filed.objects.get(value));
        objects.into_iter().flat_map(|objects| objects.values().cloned()).collect()
    }

    pub fn len(&self) -> usize {
        self.objects.values().map(BTreeMap::len).sum()
    }

    /// Takes in an object; nothing happens where this or a newer state is known already.
    pub fn apply(&mut self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let key = Key::of(&object);
        let old = self.get(&key.namespace, &key.name);
        if let Some(old) = &old {
            let same_object = old.meta().uid == object.meta().uid;
            let (known, new) = (revision_of(&**old), revision_of(&object));
            if old.meta().resource_version == object.meta().resource_version || (same_object && new < known) {
                return;
            }
            self.unfile(&key, old);
        }
        let new = Arc::new(object);
        self.file(&key, &new);
        self.objects.entry(key.namespace).or_default().insert(key.name, Arc::clone(&new));
        self.tell(Change::Applied { old, new });
    }

    pub fn remove(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.objects.get_mut(namespace) else { return };
        let Some(old) = names.remove(name) else { return };
        if names.is_empty() {
            self.objects.remove(namespace);
        }
        self.unfile(&Key::new(namespace, name), &old);
        self.tell(Change::Deleted(old));
    }

    /// Exactly these objects exist.
    pub fn replace(&mut self, objects: Vec<K>) {
        let kept: std::collections::HashSet<Key> = objects.iter().map(|object| Key::of(object)).collect();
        let lost: Vec<Key> =
            self.list().iter().map(|object| Key::of(&**object)).filter(|key| !kept.contains(key)).collect();
        for key in lost {
            self.remove(&key.namespace, &key.name);
        }
        for object in objects {
            self.apply(object);
        }
    }

    pub fn subscribe(&mut self) -> UnboundedReceiver<Change<K>> {
        let (sender, receiver) = unbounded_channel();
        for new in self.list() {
            // The receiver is at hand.
            let _ = sender.send(Change::Applied { old: None, new });
        }
        self.subscribers.push(sender);
        receiver
    }

    fn tell(&mut self, change: Change<K>) {
        self.subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }

    fn file(&mut self, key: &Key, object: &Arc<K>) {
        for filed in &mut self.indexes {
            for value in (filed.index.1)(object) {
                filed.objects.entry(value).or_default().insert(key.clone(), Arc::clone(object));
            }
        }
    }

    fn unfile(&mut self, key: &Key, object: &Arc<K>) {
        for filed in &mut self.indexes {
            for value in (filed.index.1)(object) {
                if let Some(objects) = filed.objects.get_mut(&value) {
                    objects.remove(key);
                    if objects.is_empty() {
                        filed.objects.remove(&value);
                    }
                }
            }
        }
    }
}
