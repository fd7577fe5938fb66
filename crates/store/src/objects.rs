//! The objects of one moment: a persistent map, so that a snapshot of it costs nothing.

use std::{ops::Bound, time::Duration};

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use jiff::Timestamp;

use crate::{Change, Entry, Error, Key, Page, Revision, Write, journal::Commit, limits};

/// Keys that expire in one commit, at most.
const EXPIRE_KEYS_MAX: usize = 1_000;

#[derive(Clone, Debug)]
struct Item {
    value: Bytes,
    revision: Revision,
    /// When the item expires.
    deadline: Option<Timestamp>,
}

/// What is stored at one revision. Cloning is O(1).
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    revision: Revision,
    items: OrdMap<Key, Item>,
    /// The deadline of every item that has one, soonest first.
    deadlines: OrdSet<(Timestamp, Key)>,
}

/// A key's new value and deadline, or its end.
pub(crate) type Outcome = Option<(Bytes, Option<Timestamp>)>;

impl Objects {
    /// Nothing, at a revision.
    pub fn at(revision: Revision) -> Self {
        Self { revision, ..Self::default() }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        self.items.get_key_value(key).map(|(key, item)| item.entry(key))
    }

    /// When the key expires, if it does.
    pub fn deadline(&self, key: &str) -> Option<Timestamp> {
        self.items.get(key)?.deadline
    }

    /// When the next key expires.
    pub fn first_deadline(&self) -> Option<Timestamp> {
        self.deadlines.get_min().map(|(deadline, _)| *deadline)
    }

    /// Applies a commit, or changes nothing.
    pub fn stage(&mut self, writes: Vec<Write>, now: Timestamp) -> Result<Commit, Error> {
        limits::check(&writes)?;
        for (index, write) in writes.iter().enumerate() {
            let current = self.items.get(&**write.key());
            if !write.allowed_on(current.map(|item| item.revision)) {
                return Err(Error::Precondition { index, current: current.map(|item| item.entry(write.key())) });
            }
        }
        let outcomes = writes.into_iter().map(|write| match write {
            Write::Put { key, value, ttl, .. } => (key, Some((value, ttl.map(|ttl| deadline_after(now, ttl))))),
            Write::Delete { key, .. } => (key, None),
        });
        Ok(self.apply(self.revision + 1, outcomes))
    }

    /// Deletes keys that are due, in one commit; `None` when there are none.
    pub fn stage_expired(&mut self, now: Timestamp) -> Option<Commit> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).take(EXPIRE_KEYS_MAX);
        let due: Vec<_> = due.map(|(_, key)| (key.clone(), None)).collect();
        (!due.is_empty()).then(|| self.apply(self.revision + 1, due))
    }

    /// Does to the objects what the commit of `revision` did.
    pub fn apply(&mut self, revision: Revision, outcomes: impl IntoIterator<Item = (Key, Outcome)>) -> Commit {
        self.revision = revision;
        let changes = outcomes.into_iter().map(|(key, outcome)| {
            let previous = self.replace(&key, revision, outcome.clone()).map(|item| item.entry(&key));
            Change { key, value: outcome.map(|(value, _)| value), previous, revision }
        });
        Commit { revision, changes: changes.collect() }
    }

    /// Sets one item as it was written at `revision`; returns what it was before.
    pub fn restore(&mut self, key: &Key, revision: Revision, outcome: Outcome) {
        self.replace(key, revision, outcome);
    }

    fn replace(&mut self, key: &Key, revision: Revision, outcome: Outcome) -> Option<Item> {
        let previous = match outcome {
            Some((value, deadline)) => {
                if let Some(deadline) = deadline {
                    self.deadlines.insert((deadline, key.clone()));
                }
                self.items.insert(key.clone(), Item { value, revision, deadline })
            }
            None => self.items.remove(&**key),
        };
        let outdated = previous.as_ref().and_then(|item| item.deadline);
        if let Some(outdated) = outdated.filter(|outdated| self.deadline(key) != Some(*outdated)) {
            self.deadlines.remove(&(outdated, key.clone()));
        }
        previous
    }

    /// Takes a commit back, under `prefix`; its deadlines are not restored.
    pub fn undo(&mut self, commit: &Commit, prefix: &str) {
        for change in commit.under(prefix) {
            let before = change.previous.as_ref();
            let revision = before.map_or(0, |entry| entry.revision);
            self.replace(&change.key, revision, before.map(|entry| (entry.value.clone(), None)));
        }
    }

    /// A page of keys under `prefix`, greater than `after`.
    pub fn page(&self, prefix: &str, after: Option<&str>, limit: Option<usize>) -> (Vec<Entry>, u64) {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = (start, Bound::<&str>::Unbounded);
        let mut found = self.items.range::<_, str>(range).take_while(|(key, _)| key.starts_with(prefix));
        let entries = found.by_ref().take(limit.unwrap_or(usize::MAX)).map(|(key, item)| item.entry(key)).collect();
        (entries, found.count() as u64)
    }
}

impl Item {
    fn entry(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), value: self.value.clone(), revision: self.revision }
    }
}

impl Page {
    pub(crate) fn new((entries, remaining): (Vec<Entry>, u64), revision: Revision) -> Self {
        Self { entries, revision, more: remaining > 0, remaining: Some(remaining) }
    }
}

fn deadline_after(now: Timestamp, ttl: Duration) -> Timestamp {
    now.checked_add(ttl).unwrap_or(Timestamp::MAX)
}
