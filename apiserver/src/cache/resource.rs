//! All objects of one stored resource, and its recent history.
//!
//! The current state is a persistent map; an older state is the current one with the events since then
//! undone, so that no snapshot is ever kept.

use std::{collections::VecDeque, sync::Arc};

use imbl::OrdMap;
use parking_lot::RwLock;
use store::{Key, Revision};
use tokio::sync::watch;

use super::entry::{Entry, Event};

/// Events kept for resuming watches and old lists, per resource.
const EVENTS_MAX: usize = 20_000;
/// What these events may weigh, in bytes, per resource.
const EVENT_BYTES_MAX: usize = 48 << 20;

pub type Objects = OrdMap<Key, Arc<Entry>>;

/// A consistent state of one resource.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub objects: Objects,
    pub revision: Revision,
}

/// Where a watcher stands: the sequence number of the next event it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u64);

/// The history that was asked for is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision from which a watch could start.
    pub oldest: Revision,
}

#[derive(Debug, Default)]
struct State {
    objects: Objects,
    /// Of the newest event (or of the list that the cache began with).
    last_change: Revision,
    /// The newest events, oldest first.
    window: VecDeque<Arc<Event>>,
    /// Sequence number of the window's first event.
    first: u64,
    /// Every event after this revision is in the window.
    complete_after: Revision,
    weight: usize,
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.window.len() as u64
    }

    fn forget_oldest(&mut self) {
        if let Some(event) = self.window.pop_front() {
            self.first += 1;
            self.weight -= event.weight();
            self.complete_after = event.revision;
        }
    }

    /// Index of the first event after `revision`.
    fn index_after(&self, revision: Revision) -> usize {
        self.window.partition_point(|event| event.revision <= revision)
    }
}

/// One stored resource.
#[derive(Debug)]
pub struct Resource {
    state: RwLock<State>,
    /// Holds the sequence number after the newest event.
    changed: watch::Sender<u64>,
}

impl Default for Resource {
    fn default() -> Self {
        Self { state: RwLock::default(), changed: watch::Sender::new(0) }
    }
}

impl Resource {
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(key).cloned()
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The current state. `progress` is asked while the state is held: all events up to it are applied.
    pub fn snapshot(&self, progress: impl FnOnce() -> Revision) -> Snapshot {
        let state = self.state.read();
        Snapshot { objects: state.objects.clone(), revision: progress().max(state.last_change) }
    }

    /// The state at `revision`, which must not be in the future.
    pub fn snapshot_at(&self, revision: Revision) -> Result<Snapshot, TooOld> {
        let state = self.state.read();
        if revision < state.complete_after {
            return Err(TooOld { oldest: state.complete_after });
        }
        let mut objects = state.objects.clone();
        for event in state.window.range(state.index_after(revision)..).rev() {
            match (&event.old, &event.new) {
                (Some(old), _) => objects.insert(old.key.clone(), old.clone()),
                (None, Some(new)) => objects.remove(&new.key),
                (None, None) => None,
            };
        }
        Ok(Snapshot { objects, revision })
    }

    /// The current state and the place in history right after it.
    pub fn snapshot_and_cursor(&self, progress: impl FnOnce() -> Revision) -> (Snapshot, Cursor) {
        let state = self.state.read();
        let revision = progress().max(state.last_change);
        (Snapshot { objects: state.objects.clone(), revision }, Cursor(state.next()))
    }

    /// The place in history right after `revision`.
    pub fn cursor_after(&self, revision: Revision) -> Result<Cursor, TooOld> {
        let state = self.state.read();
        match revision < state.complete_after {
            true => Err(TooOld { oldest: state.complete_after }),
            false => Ok(Cursor(state.first + state.index_after(revision) as u64)),
        }
    }

    /// At most `count_max` events from `cursor` on, which moves behind them, and the revision up to which
    /// the watcher knows everything once it has read them all.
    pub fn events(
        &self,
        cursor: &mut Cursor,
        count_max: usize,
        progress: impl FnOnce() -> Revision,
    ) -> Result<(Vec<Arc<Event>>, Revision), TooOld> {
        let state = self.state.read();
        if cursor.0 < state.first {
            return Err(TooOld { oldest: state.complete_after });
        }
        let from = (cursor.0 - state.first) as usize;
        let until = state.window.len().min(from.saturating_add(count_max));
        let events: Vec<_> = state.window.range(from.min(until)..until).cloned().collect();
        cursor.0 = state.first + until as u64;
        let known = match until == state.window.len() {
            true => progress().max(state.last_change),
            false => events.last().map_or(0, |event| event.revision),
        };
        Ok((events, known))
    }

    /// Wakes when there are new events. Its value only ever grows.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A number that changes with every event.
    pub fn version(&self) -> u64 {
        self.state.read().next()
    }

    /// Applies all changes of one commit at once.
    pub fn apply(&self, events: Vec<Event>) {
        let mut state = self.state.write();
        for event in events {
            match (&event.old, &event.new) {
                (_, Some(new)) => state.objects.insert(new.key.clone(), new.clone()),
                (Some(old), None) => state.objects.remove(&old.key),
                (None, None) => continue,
            };
            state.last_change = event.revision;
            state.weight += event.weight();
            state.window.push_back(Arc::new(event));
        }
        while state.window.len() > EVENTS_MAX || state.weight > EVENT_BYTES_MAX {
            state.forget_oldest();
        }
        let next = state.next();
        drop(state);
        self.changed.send_replace(next);
    }

    /// Starts over from a fresh list: running watches end with 410.
    pub fn replace(&self, snapshot: Snapshot) {
        let mut state = self.state.write();
        let first = state.next() + 1;
        let Snapshot { objects, revision } = snapshot;
        *state = State { objects, first, last_change: revision, complete_after: revision, ..State::default() };
        drop(state);
        self.changed.send_replace(first);
    }

    /// Drops history up to `revision`.
    pub fn forget_until(&self, revision: Revision) {
        let mut state = self.state.write();
        while state.window.front().is_some_and(|event| event.revision <= revision) {
            state.forget_oldest();
        }
        if state.window.len() * 4 < state.window.capacity() {
            state.window.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, revision: Revision) -> Arc<Entry> {
        let stored = api::encoding::encode(&serde_json::json!({"kind": "ConfigMap", "metadata": {"name": name}}));
        Arc::new(Entry::new(format!("configmaps/{name}").into(), &stored, revision, Arc::default()))
    }

    fn names(snapshot: &Snapshot) -> Vec<String> {
        snapshot.objects.values().map(|entry| format!("{}@{}", entry.key, entry.revision)).collect()
    }

    /// a created at 1, changed at 3, deleted at 5; b created at 2.
    fn history() -> Resource {
        let resource = Resource::default();
        let (a1, b2, a3) = (entry("a", 1), entry("b", 2), entry("a", 3));
        resource.apply(vec![Event::new(None, Some(a1.clone()), 1)]);
        resource.apply(vec![Event::new(None, Some(b2), 2)]);
        resource.apply(vec![Event::new(Some(a1), Some(a3.clone()), 3)]);
        resource.apply(vec![Event::new(Some(a3), None, 5)]);
        resource
    }

    #[test]
    fn older_states_are_the_present_with_events_undone() {
        let resource = history();
        assert_eq!(names(&resource.snapshot(|| 9)), ["configmaps/b@2"]);
        assert_eq!(names(&resource.snapshot_at(4).unwrap()), ["configmaps/a@3", "configmaps/b@2"]);
        assert_eq!(names(&resource.snapshot_at(2).unwrap()), ["configmaps/a@1", "configmaps/b@2"]);
        assert_eq!(names(&resource.snapshot_at(0).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn forgotten_history_is_an_error_not_a_gap() {
        let resource = history();
        let mut cursor = resource.cursor_after(1).unwrap();
        resource.forget_until(3);
        assert_eq!(resource.cursor_after(2), Err(TooOld { oldest: 3 }));
        assert_eq!(resource.events(&mut cursor, 10, || 5).unwrap_err(), TooOld { oldest: 3 });
        assert_eq!(resource.events(&mut resource.cursor_after(3).unwrap(), 10, || 5).unwrap().0.len(), 1);
    }

    #[test]
    fn a_watcher_reads_every_event_once() {
        let resource = history();
        let mut cursor = resource.cursor_after(1).unwrap();
        let (events, known) = resource.events(&mut cursor, 2, || 8).unwrap();
        assert_eq!((events.len(), known), (2, 3));
        let (events, known) = resource.events(&mut cursor, 2, || 8).unwrap();
        assert_eq!((events.len(), known), (1, 8));
        assert!(resource.events(&mut cursor, 2, || 8).unwrap().0.is_empty());
    }

    #[test]
    fn a_fresh_list_expires_running_watches() {
        let resource = history();
        let mut cursor = resource.cursor_after(5).unwrap();
        resource.replace(Snapshot { objects: Objects::new(), revision: 20 });
        assert_eq!(resource.events(&mut cursor, 2, || 20).unwrap_err(), TooOld { oldest: 20 });
    }
}
