//! Everything in memory and nothing kept: for tests, simulation, and caches of a moment.

use std::{
    future::ready,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use clock::Clock;
use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use crate::{Entry, Error, List, Page, Retention, Revision, Store, Watch, Write, mvcc::Mvcc, objects::Objects};

/// The store in memory. Keys expire in tokio's time, paused or not.
pub struct Memory {
    mvcc: Arc<Mvcc>,
    /// Deletes keys that are due; runs from the first commit with a `ttl` on.
    expiry: OnceLock<AbortOnDropHandle<()>>,
}

impl Memory {
    /// An empty store with the usual history.
    pub fn new() -> Self {
        Self::with_retention(Retention::default())
    }

    /// An empty store that keeps so much history.
    pub fn with_retention(retention: Retention) -> Self {
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        Self { mvcc: Arc::new(Mvcc::new(Objects::default(), retention, clock)), expiry: OnceLock::new() }
    }

    fn start_expiry(&self) {
        self.expiry.get_or_init(|| {
            let mvcc = self.mvcc.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                mvcc.expire_forever(|| {
                    mvcc.expire();
                    ready(Ok(()))
                })
                .await;
            }))
        });
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.mvcc.close(&Error::Unavailable("the store was closed".into()));
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        Ok(self.mvcc.get(key))
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        self.mvcc.list(&list)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, Error> {
        if writes.iter().any(|write| matches!(write, Write::Put { ttl: Some(_), .. })) {
            self.start_expiry();
        }
        self.mvcc.commit(writes)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.mvcc.watch(prefix, after)
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.mvcc.revision())
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.mvcc.progress();
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.mvcc.compact(revision)
    }
}
