//! The watch cache: every stored object in memory, fed by one watch over the whole store.
//!
//! Reads never touch the disk and never decode. What a writer knows about its object it announces
//! before the commit, so that the object is not decoded again when it comes back through the watch.

mod entry;
mod ingest;
mod resource;

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{AnyKind, Object, Status};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use store::{Key, Revision, Store};
use tokio::sync::watch;

pub use entry::{Entry, Event, Facts, frame};
pub use resource::{Cursor, Objects, Resource, Snapshot, TooOld};

use crate::view::View;

/// How long a reader waits for the cache to reach a revision.
const FRESHNESS_WAIT_MAX: Duration = Duration::from_secs(10);
/// How soon a waiting reader asks the store how far its watch is.
const PROGRESS_ASK_AFTER: Duration = Duration::from_millis(20);

/// What a writer knows about a value it is about to commit.
struct Announced {
    value: Bytes,
    facts: Arc<Facts>,
}

/// Every stored object, and recent history.
pub struct Cache {
    store: Arc<dyn Store>,
    resources: RwLock<HashMap<String, Arc<Resource>>>,
    /// All changes up to this revision are applied.
    progress: watch::Sender<Revision>,
    announced: Mutex<HashMap<Key, Announced>>,
}

impl Cache {
    pub fn new(store: Arc<dyn Store>) -> Self {
        let progress = watch::Sender::new(0);
        Self { store, resources: RwLock::default(), progress, announced: Mutex::default() }
    }

    /// The resource stored under this name (`Descriptor::stored_as`).
    pub fn resource(&self, stored_as: &str) -> Arc<Resource> {
        if let Some(resource) = self.resources.read().get(stored_as) {
            return resource.clone();
        }
        self.resources.write().entry(stored_as.to_owned()).or_default().clone()
    }

    /// Stored resources with their number of objects, in no order.
    pub fn counts(&self) -> Vec<(String, usize)> {
        self.resources.read().iter().map(|(name, resource)| (name.clone(), resource.len())).collect()
    }

    pub fn progress(&self) -> Revision {
        *self.progress.borrow()
    }

    /// The current state of a resource, as far as the cache has come.
    pub fn snapshot(&self, resource: &Resource) -> Snapshot {
        resource.snapshot(|| self.progress())
    }

    /// Drops history up to `revision` everywhere.
    pub fn forget_until(&self, revision: Revision) {
        self.resources.read().values().for_each(|resource| resource.forget_until(revision));
    }

    /// Waits until the cache shows everything up to `revision`.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), Status> {
        if self.progress() >= revision {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let reached = async {
            while tokio::time::timeout(PROGRESS_ASK_AFTER, progress.wait_for(|at| *at >= revision)).await.is_err() {
                let _ = self.store.request_progress().await;
            }
        };
        let late = |_| Status::timeout(format!("the watch cache has not reached revision {revision}"));
        tokio::time::timeout(FRESHNESS_WAIT_MAX, reached).await.map_err(late)
    }

    /// Waits until the cache shows everything that was acknowledged before the call.
    pub async fn consistent(&self) -> Result<Revision, Status> {
        let revision = self.store.revision().await.map_err(unavailable)?;
        self.wait_for(revision).await?;
        Ok(revision)
    }

    /// Tells the cache what is known about a value that is about to be committed. Forgotten when the
    /// value arrives or when the guard is dropped.
    pub fn announce(&self, key: Key, value: Bytes, facts: Facts) -> Announcement<'_> {
        self.announced.lock().insert(key.clone(), Announced { value, facts: Arc::new(facts) });
        Announcement { cache: self, key }
    }

    fn announced_facts(&self, key: &str, value: &Bytes) -> Option<Arc<Facts>> {
        let announced = self.announced.lock();
        announced.get(key).filter(|announced| announced.value == *value).map(|announced| announced.facts.clone())
    }
}

/// See [`Cache::announce`].
pub struct Announcement<'a> {
    cache: &'a Cache,
    key: Key,
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.cache.announced.lock().remove(&self.key);
    }
}

/// A store error as clients see it.
pub fn unavailable(error: store::Error) -> Status {
    match error {
        store::Error::Unavailable(why) => Status::unavailable(format!("the store is unavailable: {why}")),
        other => Status::internal(other),
    }
}

/// The name a resource is stored under, from its group and plural.
pub fn stored_as(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// The key of an object; `namespace` is empty for cluster-scoped kinds.
pub fn key(kind: &dyn AnyKind, namespace: &str, name: &str) -> Key {
    key_under(&kind.descriptor().stored_as, namespace, name)
}

fn key_under(stored_as: &str, namespace: &str, name: &str) -> Key {
    match namespace {
        "" => format!("{stored_as}/{name}").into(),
        _ => format!("{stored_as}/{namespace}/{name}").into(),
    }
}

impl View for Cache {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let stored_as = stored_as(group, resource);
        let entry = self.resource(&stored_as).get(&key_under(&stored_as, namespace, name))?;
        Some(entry.object())
    }

    fn list(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let stored_as = stored_as(group, resource);
        let objects = self.snapshot(&self.resource(&stored_as)).objects;
        let prefix = namespace.map_or(format!("{stored_as}/"), |namespace| format!("{stored_as}/{namespace}/"));
        let from: Key = prefix.as_str().into();
        let inside = objects.range(from..).take_while(|(key, _)| key.starts_with(&prefix));
        inside.map(|(_, entry)| entry.object()).collect()
    }

    fn version(&self, group: &str, resource: &str) -> u64 {
        self.resource(&stored_as(group, resource)).version()
    }
}

impl Cache {
    /// A resource as it stood at `revision`, read from the store's history; `None` if that is forgotten.
    pub async fn snapshot_from_store(&self, stored_as: &str, revision: Revision) -> Result<Option<Snapshot>, Status> {
        let list = store::List { prefix: format!("{stored_as}/"), at: Some(revision), ..store::List::default() };
        match self.store.list(list).await {
            Ok(page) => {
                let entry = |entry: store::Entry| (entry.key.clone(), self.entry(stored_as, &entry));
                Ok(Some(Snapshot { objects: page.entries.into_iter().map(entry).collect(), revision }))
            }
            Err(store::Error::Compacted { .. }) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }
}
