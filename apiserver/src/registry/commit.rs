//! From an object to the store, and back to bytes when the cache shows it.

use api::{Object, Status};
use bytes::Bytes;
use store::{Key, Precondition, Revision, Write};

use crate::{
    Server,
    cache::{Facts, unavailable},
    call::Call,
    kinds,
};

/// What a write left behind.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object in stored form, with its resourceVersion.
    pub bytes: Bytes,
    pub created: bool,
}

/// Why a commit did not happen.
pub(super) enum Refused {
    /// The object is not in the state that the decision was based on. `None`: it is gone.
    Moved(Option<store::Entry>),
    /// Something else that the commit needed has been taken in the meantime.
    ClaimLost,
    Failed(Box<Status>),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Failed(Box::new(status))
    }
}

/// A write of one object with what must be committed with it.
pub(super) struct Put<'a> {
    pub call: &'a Call,
    pub key: Key,
    /// In the form of the call's kind.
    pub object: Object,
    pub precondition: Precondition,
    pub claims: Vec<Write>,
}

impl Server {
    /// Commits, waits until readers see it, and returns the bytes they see. A dry run stops before the store.
    pub(super) async fn put(&self, put: Put<'_>, dry_run: bool) -> Result<Bytes, Refused> {
        let Put { call, key, object, precondition, claims } = put;
        let stored_as = call.descriptor().stored_as.as_str();
        let stored = call.kind.to_stored(object);
        let value = api::encoding::encode(&stored);
        if dry_run {
            return Ok(match precondition {
                Precondition::Revision(revision) => api::encoding::stamp(&value, revision),
                _ => value,
            });
        }
        let kind = kinds::stored_as(stored_as).unwrap_or(call.kind);
        let announcement = self.cache.announce(key.clone(), value.clone(), Facts::of(kind, &stored));
        let ttl = (stored_as == "events").then_some(self.config.event_ttl);
        let mut writes = vec![Write::Put { key, value: value.clone(), precondition, ttl }];
        writes.extend(claims);
        let revision = self.commit(writes).await?;
        drop(announcement);
        Ok(api::encoding::stamp(&value, revision))
    }

    /// Removes an object. Returns the revision of its end.
    pub(super) async fn remove(&self, key: Key, revision: Revision, claims: Vec<Write>) -> Result<Revision, Refused> {
        let mut writes = vec![Write::Delete { key, precondition: Precondition::Revision(revision) }];
        writes.extend(claims);
        self.commit(writes).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, Refused> {
        let revision = match self.store.commit(writes).await {
            Ok(revision) => revision,
            Err(store::Error::Precondition { index: 0, current }) => return Err(Refused::Moved(current)),
            Err(store::Error::Precondition { .. }) => {
                // The next decision must see who has taken it.
                self.cache.consistent().await?;
                return Err(Refused::ClaimLost);
            }
            Err(error) => return Err(unavailable(error).into()),
        };
        // It is committed; if the cache is late, the answer is right all the same.
        if let Err(error) = self.cache.wait_for(revision).await {
            tracing::warn!(revision, %error, "a write was acknowledged before the cache showed it");
        }
        Ok(revision)
    }
}
