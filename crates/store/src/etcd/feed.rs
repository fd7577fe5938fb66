//! One watch over everything under the root, which mends itself.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use futures::{StreamExt, stream};

use super::{Root, Shared, call, closed};
use crate::{Change, Error, Notice, Revision, Watch, journal::Commit};

/// Between two attempts to reach etcd.
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub(super) enum Update {
    /// May be empty, when a revision changed nothing of ours.
    Commit(Commit),
    Progress(Revision),
}

/// Every commit after a revision, in order and without gaps.
pub(super) struct Feed {
    shared: Arc<Shared>,
    /// Everything up to and including this revision has been returned.
    position: Revision,
    stream: Option<WatchStream>,
}

impl Feed {
    pub fn new(shared: Arc<Shared>, after: Revision) -> Self {
        Self { shared, position: after, stream: None }
    }

    /// What came next; waits and reconnects as long as it takes. An error is final: the place is lost.
    pub async fn next(&mut self) -> Result<Vec<Update>, Error> {
        loop {
            let Some(stream) = &mut self.stream else {
                match self.open().await {
                    Ok(stream) => self.stream = Some(stream),
                    Err(Error::Unavailable(why)) => self.wait(&why).await,
                    Err(error) => return Err(error),
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(response)) if response.canceled() => {
                    if response.compact_revision() > 0 {
                        let oldest = response.compact_revision() as u64;
                        return Err(Error::Compacted { requested: self.position, oldest });
                    }
                    let why = response.cancel_reason().to_owned();
                    self.wait(&why).await;
                }
                Ok(Some(response)) => {
                    let updates = self.updates(&response)?;
                    if !updates.is_empty() {
                        return Ok(updates);
                    }
                }
                Ok(None) => self.wait("etcd ended the watch").await,
                Err(error) => self.wait(&error.to_string()).await,
            }
        }
    }

    async fn open(&self) -> Result<WatchStream, Error> {
        let root = &self.shared.root;
        // Not fragmented: the client cannot tell a fragment from a whole, and etcd never splits a revision otherwise.
        let options = WatchOptions::new()
            .with_range(root.end(""))
            .with_start_revision(self.position as i64 + 1)
            .with_prev_key()
            .with_progress_notify();
        call(self.shared.watch.clone().watch(root.marker.as_str(), Some(options))).await
    }

    async fn wait(&mut self, why: &str) {
        tracing::warn!(revision = self.position, why, "etcd's watch broke off; trying again");
        self.stream = None;
        tokio::time::sleep(RETRY_AFTER).await;
    }

    fn updates(&mut self, response: &WatchResponse) -> Result<Vec<Update>, Error> {
        let events = response.events();
        if events.is_empty() {
            let revision = response.header().map_or(0, |header| header.revision() as u64);
            // The header of a "created" answer shows the store's revision, not how far the watch is.
            if response.created() || revision <= self.position {
                return Ok(Vec::new());
            }
            self.position = revision;
            return Ok(vec![Update::Progress(revision)]);
        }
        let mut updates = Vec::new();
        for events in events.chunk_by(|a, b| revision(a) == revision(b)) {
            let commit = commit(&self.shared.root, events)?;
            self.position = commit.revision;
            updates.push(Update::Commit(commit));
        }
        Ok(updates)
    }

    /// The feed as a watch of one prefix. Commits elsewhere show as progress.
    pub fn watch(self, prefix: &str) -> Watch {
        let (prefix, shared) = (prefix.to_owned(), self.shared.clone());
        let (held, closing) = (shared.own_feeds.clone(), shared.closed.clone().cancelled_owned());
        let updates = stream::unfold(Some(self), |feed| async {
            let mut feed = feed?;
            match feed.next().await {
                Ok(updates) => Some((updates.into_iter().map(Ok).collect::<Vec<_>>(), Some(feed))),
                Err(error) => Some((vec![Err(error)], None)),
            }
        });
        let notices = updates.flat_map(stream::iter).map(move |update| {
            let _counted = &held;
            Ok(match update? {
                Update::Commit(commit) if commit.touches(&prefix) => {
                    Notice::Changes(commit.under(&prefix).cloned().collect())
                }
                Update::Commit(Commit { revision, .. }) | Update::Progress(revision) => Notice::Progress(revision),
            })
        });
        let end = stream::once(async { Err(closed()) });
        Watch { notices: notices.take_until(closing).chain(end).boxed() }
    }
}

fn revision(event: &Event) -> i64 {
    event.kv().map_or(0, |kv| kv.mod_revision())
}

/// The events of one revision as a commit.
fn commit(root: &Root, events: &[Event]) -> Result<Commit, Error> {
    let revision = events.first().map_or(0, revision) as u64;
    let mut changes = Vec::with_capacity(events.len());
    for event in events {
        let Some((kv, key)) = event.kv().and_then(|kv| Some((kv, root.inner(kv.key())?))) else {
            continue;
        };
        let deleted = event.event_type() == EventType::Delete;
        let previous = event.prev_kv().and_then(|kv| root.entry(kv));
        // etcd leaves the previous value out when it was compacted away while this watch was behind.
        if previous.is_none() && (deleted || kv.version() > 1) {
            return Err(Error::Compacted { requested: revision - 1, oldest: revision });
        }
        let value = (!deleted).then(|| Bytes::copy_from_slice(kv.value()));
        changes.push(Change { key, value, previous, revision });
    }
    Ok(Commit { revision, changes })
}

/// Keeps the journal up with etcd, for ever.
pub(super) async fn fill_journal(shared: Arc<Shared>, after: Revision) {
    let mut feed = Feed::new(shared.clone(), after);
    loop {
        match feed.next().await {
            Ok(updates) => {
                let mut journal = shared.journal.lock();
                for update in updates {
                    match update {
                        Update::Commit(commit) if !commit.changes.is_empty() => {
                            journal.publish(commit, shared.clock.now());
                        }
                        Update::Commit(Commit { revision, .. }) | Update::Progress(revision) => {
                            journal.advance(revision)
                        }
                    }
                }
                shared.position.send_replace(journal.revision());
            }
            Err(error) => {
                let revision = restart(&shared, &error).await;
                feed = Feed::new(shared.clone(), revision);
            }
        }
    }
}

/// The commits in between cannot be had any more: all watchers must list anew.
async fn restart(shared: &Shared, error: &Error) -> Revision {
    tracing::warn!(%error, "etcd's watch lost its place; starting over");
    loop {
        match shared.revision().await {
            Ok(revision) => {
                shared.journal.lock().restart(revision, error);
                shared.position.send_replace(revision);
                return revision;
            }
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}
