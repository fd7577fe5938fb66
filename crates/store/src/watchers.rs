//! Fan-out: every watcher has a bounded queue of shared commits, and loses its place when that is full.

use std::sync::{Arc, OnceLock};

use futures::{StreamExt, stream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::ReceiverStream;

use crate::{Error, Notice, Revision, Watch, journal::Commit};

/// Commits that may wait for one watcher; with one more it has [`Error::Lagged`].
pub const WATCH_QUEUE_COMMITS_MAX: usize = 10_000;

/// A watcher of a quiet prefix hears this often, in revisions, how far it is: so it can resume after a break
/// although the history is bounded.
const PROGRESS_REVISIONS: Revision = 500;

enum Delivery {
    Commit(Arc<Commit>),
    Progress(Revision),
}

struct Watcher {
    prefix: String,
    /// The newest revision that the watcher knows, or will know from its queue.
    told: Revision,
    queue: mpsc::Sender<Delivery>,
    /// Why the queue ended; set before it is closed.
    ended: Arc<OnceLock<Error>>,
}

impl Watcher {
    /// Whether the watcher goes on.
    fn send(&mut self, delivery: Delivery) -> bool {
        self.told = match &delivery {
            Delivery::Commit(commit) => commit.revision,
            Delivery::Progress(revision) => *revision,
        };
        match self.queue.try_send(delivery) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.ended.get_or_init(|| Error::Lagged);
                false
            }
        }
    }

    fn publish(&mut self, commit: &Arc<Commit>) -> bool {
        if commit.revision <= self.told {
            !self.queue.is_closed()
        } else if commit.touches(&self.prefix) {
            self.send(Delivery::Commit(commit.clone()))
        } else if commit.revision - self.told >= PROGRESS_REVISIONS {
            self.send(Delivery::Progress(commit.revision))
        } else {
            !self.queue.is_closed()
        }
    }
}

#[derive(Default)]
pub(crate) struct Watchers(Vec<Watcher>);

impl Watchers {
    /// A watch that delivers `backlog`, then what is published with a revision greater than `after`.
    pub fn add(&mut self, prefix: &str, after: Revision, backlog: Vec<Arc<Commit>>) -> Watch {
        let (queue, deliveries) = mpsc::channel(WATCH_QUEUE_COMMITS_MAX);
        let ended = Arc::new(OnceLock::new());
        let told = backlog.last().map_or(after, |commit| commit.revision);
        self.0.push(Watcher { prefix: prefix.to_owned(), told, queue, ended: ended.clone() });

        let prefix = prefix.to_owned();
        let notices = stream::iter(backlog.into_iter().map(Delivery::Commit))
            .chain(ReceiverStream::new(deliveries))
            .map(move |delivery| match delivery {
                Delivery::Commit(commit) => Ok(Notice::Changes(commit.under(&prefix).cloned().collect())),
                Delivery::Progress(revision) => Ok(Notice::Progress(revision)),
            });
        let closed = || Error::Unavailable("the store was closed".into());
        let end = stream::once(async move { Err(ended.get().cloned().unwrap_or_else(closed)) });
        Watch { notices: notices.chain(end).boxed() }
    }

    pub fn publish(&mut self, commit: &Arc<Commit>) {
        self.0.retain_mut(|watcher| watcher.publish(commit));
    }

    /// Says to all that nothing up to and including `revision` is still to come.
    pub fn progress(&mut self, revision: Revision) {
        self.0.retain_mut(|watcher| watcher.told > revision || watcher.send(Delivery::Progress(revision)));
    }

    pub fn end(&mut self, error: &Error) {
        for watcher in self.0.drain(..) {
            watcher.ended.get_or_init(|| error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Change;

    fn commit(key: &str, revision: Revision) -> Arc<Commit> {
        let change = Change { key: key.into(), value: None, previous: None, revision };
        Arc::new(Commit { revision, changes: vec![change] })
    }

    #[tokio::test]
    async fn a_watcher_that_falls_behind_gets_what_was_queued_and_then_an_error() {
        let mut watchers = Watchers::default();
        let watch = watchers.add("a/", 0, Vec::new());
        for revision in 1..=WATCH_QUEUE_COMMITS_MAX as u64 + 1 {
            watchers.publish(&commit("a/x", revision));
        }
        assert!(watchers.0.is_empty());
        let notices: Vec<_> = watch.notices.collect().await;
        assert_eq!(notices.len(), WATCH_QUEUE_COMMITS_MAX + 1);
        assert_eq!(notices.last(), Some(&Err(Error::Lagged)));
    }

    #[tokio::test]
    async fn a_quiet_watcher_hears_now_and_then_how_far_it_is() {
        let mut watchers = Watchers::default();
        let mut watch = watchers.add("quiet/", 0, Vec::new());
        for revision in 1..=PROGRESS_REVISIONS + 1 {
            watchers.publish(&commit("busy/x", revision));
        }
        assert_eq!(watch.notices.next().await, Some(Ok(Notice::Progress(PROGRESS_REVISIONS))));
    }

    #[test]
    fn a_dropped_watcher_is_forgotten_with_the_next_commit() {
        let mut watchers = Watchers::default();
        drop(watchers.add("a/", 0, Vec::new()));
        watchers.publish(&commit("b/x", 1));
        assert!(watchers.0.is_empty());
    }
}
