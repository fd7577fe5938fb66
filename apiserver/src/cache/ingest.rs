//! The one loop that follows the store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use serde_json::Value;
use store::{Change, Error, List, Notice, Revision};
use tokio_util::sync::CancellationToken;

use super::{Cache, Entry, Event, Facts, Objects, Resource, Snapshot};
use crate::kinds;

/// How far back the cache reads at its start, so that watches survive a restart of the server.
const HISTORY_REVISIONS: Revision = 2_000;
/// The pause after the store was found unavailable.
const RETRY_AFTER: Duration = Duration::from_millis(250);

impl Cache {
    /// Follows the store until `stop`. Everything else in the cache waits for this.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let following = async {
            let mut position = None;
            loop {
                let Err(error) = self.follow_once(&mut position).await;
                match error {
                    Error::Compacted { .. } | Error::Lagged | Error::Future { .. } => {
                        tracing::warn!(%error, "the watch cache lost its place and starts over");
                        position = None;
                    }
                    error => {
                        tracing::error!(%error, "the watch cache cannot follow the store");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = following => {}
        }
    }

    /// From `position`, or from a fresh list, until something breaks.
    async fn follow_once(&self, position: &mut Option<Revision>) -> Result<std::convert::Infallible, Error> {
        let after = match *position {
            Some(revision) => revision,
            None => self.load().await?,
        };
        let mut watch = self.store.watch("", after).await?;
        *position = Some(after);
        while let Some(notice) = watch.notices.next().await {
            let revision = match notice? {
                Notice::Changes(changes) => self.apply(changes),
                Notice::Progress(revision) => revision,
            };
            *position = Some(revision.max(after));
            self.progress.send_if_modified(|progress| {
                let advanced = revision > *progress;
                *progress = revision.max(*progress);
                advanced
            });
        }
        Err(Error::Unavailable("the store ended the watch".into()))
    }

    /// Replaces everything by a list from a little while ago; the watch brings what has happened since.
    async fn load(&self) -> Result<Revision, Error> {
        let now = self.store.revision().await?;
        let at = (now > 0).then(|| now.saturating_sub(HISTORY_REVISIONS).max(1));
        let everything = |at| List { at, ..List::default() };
        let page = match self.store.list(everything(at)).await {
            Err(Error::Compacted { oldest, .. }) => self.store.list(everything(Some(oldest))).await?,
            answer => answer?,
        };
        let mut resources: BTreeMap<String, Objects> = BTreeMap::new();
        for entry in page.entries {
            if let Some((stored_as, _)) = entry.key.split_once('/') {
                let cached = self.entry(stored_as, &entry);
                resources.entry(stored_as.to_owned()).or_default().insert(entry.key, cached);
            }
        }
        for name in self.resources.read().keys() {
            resources.entry(name.clone()).or_default();
        }
        for kind in kinds::all() {
            resources.entry(kind.descriptor().stored_as.clone()).or_default();
        }
        for (name, objects) in resources {
            self.resource(&name).replace(Snapshot { objects, revision: page.revision });
        }
        self.progress.send_replace(page.revision);
        Ok(page.revision)
    }

    /// Applies one commit, resource by resource. Returns its revision.
    fn apply(&self, changes: Vec<Change>) -> Revision {
        let mut revision = 0;
        let mut batches: Vec<(String, Arc<Resource>, Vec<Event>)> = Vec::new();
        for change in changes {
            revision = revision.max(change.revision);
            let Some((stored_as, _)) = change.key.split_once('/') else { continue };
            if !batches.iter().any(|(name, ..)| name == stored_as) {
                batches.push((stored_as.to_owned(), self.resource(stored_as), Vec::new()));
            }
            let Some((name, resource, events)) = batches.iter_mut().find(|(name, ..)| name == stored_as) else {
                continue;
            };
            let new = change.value.as_ref().map(|value| {
                let facts = self.facts(name, value, &change.key);
                Arc::new(Entry::new(change.key.clone(), value, change.revision, facts))
            });
            events.push(Event::new(resource.get(&change.key), new, change.revision));
        }
        for (_, resource, events) in batches {
            resource.apply(events);
        }
        revision
    }

    pub(super) fn entry(&self, stored_as: &str, entry: &store::Entry) -> Arc<Entry> {
        let facts = self.facts(stored_as, &entry.value, &entry.key);
        Arc::new(Entry::new(entry.key.clone(), &entry.value, entry.revision, facts))
    }

    fn facts(&self, stored_as: &str, value: &bytes::Bytes, key: &str) -> Arc<Facts> {
        if let Some(facts) = self.announced_facts(key, value) {
            return facts;
        }
        match (kinds::stored_as(stored_as), serde_json::from_slice::<Value>(value)) {
            (Some(kind), Ok(object)) => Arc::new(Facts::of(kind, &object)),
            (None, _) => Arc::default(),
            (_, Err(error)) => {
                tracing::error!(%error, key, "the store holds something that is no object");
                Arc::default()
            }
        }
    }
}
