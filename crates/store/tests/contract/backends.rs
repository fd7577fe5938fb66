//! A fresh store of each kind, and the few words the tests are written in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use store::{Change, Entry, Error, Key, List, Notice, Precondition, Revision, Store, Watch, Write};

/// A store under test; what it stands on goes with it.
pub struct Subject {
    pub store: Arc<dyn Store>,
    ground: Ground,
}

enum Ground {
    Memory,
    File(tempfile::TempDir),
    #[cfg(feature = "etcd")]
    Etcd(crate::etcd::Server),
}

impl Subject {
    pub async fn memory() -> Self {
        Self { store: Arc::new(store::Memory::new()), ground: Ground::Memory }
    }

    pub async fn embedded_file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: open(&directory).await, ground: Ground::File(directory) }
    }

    #[cfg(feature = "etcd")]
    pub async fn etcd_server() -> Self {
        let server = crate::etcd::Server::start();
        Self { store: Arc::new(server.connect().await), ground: Ground::Etcd(server) }
    }

    /// Closes the store, and opens it again where it outlives its process.
    pub async fn restart(self) -> Self {
        let Self { store, ground } = self;
        let store = match &ground {
            Ground::Memory => store,
            Ground::File(directory) => {
                drop(store);
                open(directory).await
            }
            #[cfg(feature = "etcd")]
            Ground::Etcd(server) => {
                drop(store);
                Arc::new(server.connect().await)
            }
        };
        Self { store, ground }
    }
}

async fn open(directory: &tempfile::TempDir) -> Arc<dyn Store> {
    let path = directory.path().join("store");
    Arc::new(store::Embedded::open(path, store::Options::default()).await.unwrap())
}

pub fn put_if(key: &str, value: &str, precondition: Precondition) -> Write {
    Write::Put { key: key.into(), value: value.to_owned().into(), precondition, ttl: None }
}

pub fn put(key: &str, value: &str) -> Write {
    put_if(key, value, Precondition::None)
}

pub fn put_for(key: &str, value: &str, ttl: Duration) -> Write {
    Write::Put { key: key.into(), value: value.to_owned().into(), precondition: Precondition::None, ttl: Some(ttl) }
}

pub fn delete_if(key: &str, precondition: Precondition) -> Write {
    Write::Delete { key: key.into(), precondition }
}

pub fn delete(key: &str) -> Write {
    delete_if(key, Precondition::None)
}

pub fn under(prefix: &str) -> List {
    List { prefix: prefix.into(), ..List::default() }
}

pub fn entry(key: &str, value: &str, revision: Revision) -> Entry {
    Entry { key: key.into(), value: value.to_owned().into(), revision }
}

pub fn change(key: &str, value: Option<&str>, previous: Option<Entry>, revision: Revision) -> Change {
    Change { key: key.into(), value: value.map(|value| value.to_owned().into()), previous, revision }
}

/// The next notice; a test that waits for one that does not come fails.
pub async fn next(watch: &mut Watch) -> Result<Notice, Error> {
    let notice = tokio::time::timeout(Duration::from_secs(60), watch.notices.next()).await;
    notice.expect("no notice came").expect("the watch ended without an error")
}

/// The next changes, whatever progress comes before them.
pub async fn changes(watch: &mut Watch) -> Vec<Change> {
    loop {
        if let Notice::Changes(changes) = next(watch).await.unwrap() {
            assert!(!changes.is_empty());
            return changes;
        }
    }
}

/// What a watch may fail with at once or as its first notice.
pub async fn refusal(watch: Result<Watch, Error>) -> Error {
    match watch {
        Err(error) => error,
        Ok(mut watch) => next(&mut watch).await.unwrap_err(),
    }
}

/// Objects as a watcher builds them up, which checks on the way that each change fits what was there.
#[derive(Default)]
pub struct Mirror {
    pub objects: BTreeMap<Key, Entry>,
    pub revision: Revision,
}

impl Mirror {
    pub fn at(objects: impl IntoIterator<Item = Entry>, revision: Revision) -> Self {
        Self { objects: objects.into_iter().map(|entry| (entry.key.clone(), entry)).collect(), revision }
    }

    pub fn see(&mut self, notice: Notice) {
        let changes = match notice {
            Notice::Progress(revision) => {
                assert!(revision >= self.revision, "progress to {revision} after {}", self.revision);
                self.revision = revision;
                return;
            }
            Notice::Changes(changes) => changes,
        };
        let revision = changes[0].revision;
        assert!(revision > self.revision, "a change at {revision} after {}", self.revision);
        self.revision = revision;
        for Change { key, value, previous, revision } in changes {
            assert_eq!(revision, self.revision, "a notice is one commit");
            let before = match value {
                Some(value) => self.objects.insert(key.clone(), Entry { key, value, revision }),
                None => self.objects.remove(&key),
            };
            assert_eq!(before, previous);
        }
    }

    /// Follows until `revision` has been seen.
    pub async fn follow(&mut self, watch: &mut Watch, revision: Revision) {
        while self.revision < revision {
            self.see(next(watch).await.unwrap());
        }
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.objects.values().cloned().collect()
    }
}
