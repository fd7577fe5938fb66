//! The part that the memory and the embedded backend share: objects and journal behind one lock.

use clock::Clock;
use jiff::Timestamp;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::{
    Entry, Error, List, Page, Revision, Watch, Write,
    journal::{Commit, Journal, Retention},
    objects::Objects,
};

/// Everything that is published: visible to readers and handed to watchers.
struct State {
    objects: Objects,
    journal: Journal,
}

pub(crate) struct Mvcc {
    pub clock: Clock,
    state: RwLock<State>,
    /// Rung when another key is the next to expire.
    pub deadline_moved: Notify,
}

impl Mvcc {
    /// Starts with `objects` and no history.
    pub fn new(objects: Objects, retention: Retention, clock: Clock) -> Self {
        let journal = Journal::new(objects.revision(), retention);
        Self { clock, state: RwLock::new(State { objects, journal }), deadline_moved: Notify::new() }
    }

    /// A snapshot of the present, to stage commits on.
    pub fn objects(&self) -> Objects {
        self.state.read().objects.clone()
    }

    pub fn get(&self, key: &str) -> (Option<Entry>, Revision) {
        let state = self.state.read();
        (state.objects.get(key), state.journal.revision())
    }

    pub fn list(&self, list: &List) -> Result<Page, Error> {
        let (objects, revision) = match list.at {
            Some(at) => (self.objects_at(at, &list.prefix)?, at),
            None => {
                let objects = self.objects();
                let revision = objects.revision();
                (objects, revision)
            }
        };
        Ok(Page::new(objects.page(&list.prefix, list.after.as_deref(), list.limit), revision))
    }

    /// The objects under `prefix` as they were at a revision: the present with the commits since taken back.
    fn objects_at(&self, at: Revision, prefix: &str) -> Result<Objects, Error> {
        let (mut objects, since) = {
            let state = self.state.read();
            state.journal.check(at)?;
            let since: Vec<_> = state.journal.after(at).filter(|commit| commit.touches(prefix)).cloned().collect();
            (state.objects.clone(), since)
        };
        since.iter().rev().for_each(|commit| objects.undo(commit, prefix));
        Ok(objects)
    }

    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let mut state = self.state.write();
        state.journal.check(after)?;
        state.journal.watch(prefix, after)
    }

    pub fn revision(&self) -> Revision {
        self.state.read().journal.revision()
    }

    /// The oldest revision that can be listed and watched from.
    pub fn oldest(&self) -> Revision {
        self.state.read().journal.oldest()
    }

    pub fn progress(&self) {
        self.state.write().journal.progress();
    }

    /// Fails with [`Error::Future`] for a revision that has not happened.
    pub fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut state = self.state.write();
        match state.journal.check(revision) {
            Err(Error::Compacted { .. }) => Ok(()),
            Err(future) => Err(future),
            Ok(()) => {
                state.journal.compact(revision);
                Ok(())
            }
        }
    }

    /// Checks and publishes in one go.
    pub fn commit(&self, writes: Vec<Write>) -> Result<Revision, Error> {
        let now = self.clock.now();
        let mut state = self.state.write();
        let soonest = state.objects.first_deadline();
        let commit = state.objects.stage(writes, now)?;
        Ok(self.announce(&mut state, soonest, vec![commit], now))
    }

    /// Deletes what is due.
    pub fn expire(&self) {
        let now = self.clock.now();
        let mut state = self.state.write();
        let soonest = state.objects.first_deadline();
        let commit = state.objects.stage_expired(now);
        self.announce(&mut state, soonest, commit.into_iter().collect(), now);
    }

    /// Makes what was staged on a snapshot the present. Nobody else may have published since.
    pub fn publish(&self, objects: Objects, commits: Vec<Commit>, now: Timestamp) {
        let mut state = self.state.write();
        let soonest = state.objects.first_deadline();
        let replaced = std::mem::replace(&mut state.objects, objects);
        self.announce(&mut state, soonest, commits, now);
        drop(state);
        drop(replaced);
    }

    fn announce(
        &self,
        state: &mut State,
        soonest: Option<Timestamp>,
        commits: Vec<Commit>,
        now: Timestamp,
    ) -> Revision {
        for commit in commits {
            state.journal.publish(commit, now);
        }
        if state.objects.first_deadline() != soonest {
            self.deadline_moved.notify_one();
        }
        state.journal.revision()
    }

    /// Deletes keys as they come due, for as long as it is polled and `expire` succeeds. It sleeps until the next
    /// deadline.
    pub async fn expire_forever<F: Future<Output = Result<(), Error>>>(&self, expire: impl Fn() -> F) {
        loop {
            let Some(deadline) = self.state.read().objects.first_deadline() else {
                self.deadline_moved.notified().await;
                continue;
            };
            if deadline > self.clock.now() {
                tokio::select! {
                    () = tokio::time::sleep(self.clock.until(deadline)) => {}
                    () = self.deadline_moved.notified() => {}
                }
            } else if let Err(error) = expire().await {
                return tracing::warn!(%error, "keys do not expire any more");
            }
        }
    }

    /// Ends every watch.
    pub fn close(&self, error: &Error) {
        self.state.write().journal.end(error);
    }
}
