//! A revisioned, watchable map from keys to bytes.
//!
//! **Knows:** keys, values, one revision counter, history, expiry.
//! **Does not know:** Kubernetes, JSON, HTTP.
//! **Invariants:** one revision per commit, growing by at least one; a list is one consistent
//! snapshot; a watch from revision `r` delivers every change with a revision greater than `r`, in
//! order and without gaps, or fails with [`Error::Compacted`]; what `commit` acknowledged survives
//! `kill -9` and power loss (memory backend excepted).
//! **Start reading at:** [`Store`]; `tests/contract` (the suite that every backend passes) says the rest.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
mod journal;
mod limits;
mod memory;
mod mvcc;
mod objects;
mod watchers;

pub use embedded::{Embedded, Options};
#[cfg(feature = "etcd")]
pub use etcd::{Etcd, EtcdOptions};
pub use journal::Retention;
pub use limits::{COMMIT_BYTES_MAX, COMMIT_WRITES_MAX};
pub use memory::Memory;
pub use watchers::WATCH_QUEUE_COMMITS_MAX;

/// The store's only clock: grows with every commit. Zero is before the first commit.
pub type Revision = u64;

/// A key, such as `pods/default/web`. Prefixes end in `/`.
pub type Key = Arc<str>;

/// One stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub value: Bytes,
    /// The commit that wrote this value.
    pub revision: Revision,
}

/// What must hold of a key for a write to it to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing need hold.
    None,
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Revision(Revision),
}

/// One write of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a value; with `ttl` the key expires (and is deleted, with an event) after that time
    /// unless it is written again.
    Put { key: Key, value: Bytes, precondition: Precondition, ttl: Option<Duration> },
    /// Removes a key. Removing an absent key is a failed precondition, whatever it asked for.
    Delete { key: Key, precondition: Precondition },
}

/// A consistent page of keys under a prefix, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The revision that the whole page shows.
    pub revision: Revision,
    /// Whether keys follow the last entry.
    pub more: bool,
    /// How many keys follow the last entry, where the backend can say.
    pub remaining: Option<u64>,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub prefix: String,
    /// Only keys greater than this one.
    pub after: Option<Key>,
    /// At most this many entries; `None` for all.
    pub limit: Option<usize>,
    /// As the store stood then; `None` for now.
    pub at: Option<Revision>,
}

/// One change, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    /// The new value; `None` when the key was deleted or expired.
    pub value: Option<Bytes>,
    /// The value before; `None` when the key was created.
    pub previous: Option<Entry>,
    /// The commit that made this change.
    pub revision: Revision,
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// All changes of one commit under the watched prefix (never empty).
    Changes(Vec<Change>),
    /// Nothing up to and including this revision is still to come.
    Progress(Revision),
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    pub notices: futures::stream::BoxStream<'static, Result<Notice, Error>>,
}

/// Why the store did not do what was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Write number `index` of the commit met another state; nothing was written.
    /// `current` is what the key holds now (absent: `None`).
    #[error("precondition of write {index} failed")]
    Precondition { index: usize, current: Option<Entry> },
    /// The revision is older than the history that is kept.
    #[error("revision {requested} has been compacted; the oldest kept is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    /// The revision has not happened yet.
    #[error("revision {requested} is in the future; the store is at {current}")]
    Future { requested: Revision, current: Revision },
    /// The watcher did not keep up and lost its place.
    #[error("watcher fell behind")]
    Lagged,
    /// The store cannot be reached or used now; a retry may succeed. Whether a commit that failed
    /// so took effect is unknown.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The store refuses for good: corrupt file, value over the limit, closed.
    #[error("store failed: {0}")]
    Failed(String),
}

/// The one door to persistent state. Every backend passes the same contract suite.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry of a key (linearizable) and the revision at which it was read.
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error>;

    /// A consistent page.
    async fn list(&self, list: List) -> Result<Page, Error>;

    /// All writes or none, at one new revision. Empty commits are refused.
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, Error>;

    /// Changes under `prefix` with a revision greater than `after`.
    /// `Progress` arrives when asked for by [`Store::request_progress`] and now and then by itself.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error>;

    /// The newest committed revision (linearizable).
    async fn revision(&self) -> Result<Revision, Error>;

    /// Asks that running watches report how far they are.
    async fn request_progress(&self) -> Result<(), Error>;

    /// Forgets history before `revision`: older lists and watches fail with [`Error::Compacted`].
    async fn compact(&self, revision: Revision) -> Result<(), Error>;
}
