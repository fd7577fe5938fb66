//! What happened lately, and who follows it: a bounded run of commits and the watchers fed from it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{Change, Error, Revision, Watch, watchers::Watchers};

/// How much of the past is kept. Commits are forgotten, oldest first, while they are both more than
/// `commits` and older than `age`; and, whatever their age, while they hold more than `bytes_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// This many commits are kept however old they are.
    pub commits: usize,
    /// Commits are kept for so long.
    pub age: Duration,
    /// Keys and values in history, in bytes.
    pub bytes_max: usize,
}

impl Default for Retention {
    /// 1,000 commits or five minutes (upstream compacts etcd after as long), in 64 MiB.
    fn default() -> Self {
        Self { commits: 1_000, age: Duration::from_secs(300), bytes_max: 64 << 20 }
    }
}

/// One commit, shared by history and every watcher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub revision: Revision,
    pub changes: Vec<Change>,
}

impl Commit {
    /// The changes of keys under `prefix`.
    pub fn under(&self, prefix: &str) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.key.starts_with(prefix))
    }

    pub fn touches(&self, prefix: &str) -> bool {
        self.under(prefix).next().is_some()
    }

    fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, |value| value.len())).sum()
    }
}

struct Kept {
    commit: Arc<Commit>,
    at: Timestamp,
}

/// The newest revision, the commits that led to it as far as they are kept, and the watchers.
pub(crate) struct Journal {
    retention: Retention,
    revision: Revision,
    /// Every commit with a revision greater than this is in `kept`.
    oldest: Revision,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    watchers: Watchers,
}

impl Journal {
    /// A journal that knows nothing of what happened up to and including `revision`.
    pub fn new(revision: Revision, retention: Retention) -> Self {
        Self {
            retention,
            revision,
            oldest: revision,
            kept: VecDeque::new(),
            kept_bytes: 0,
            watchers: Watchers::default(),
        }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can be listed and watched from.
    pub fn oldest(&self) -> Revision {
        self.oldest
    }

    /// Appends a commit and hands it to the watchers.
    pub fn publish(&mut self, commit: Commit, now: Timestamp) {
        debug_assert!(commit.revision > self.revision, "revisions only grow");
        let commit = Arc::new(commit);
        self.revision = commit.revision;
        self.kept_bytes += commit.bytes();
        self.kept.push_back(Kept { commit: commit.clone(), at: now });
        self.forget_surplus(now);
        self.watchers.publish(&commit);
    }

    /// Notes that nothing worth telling happened up to and including `revision`.
    #[cfg(feature = "etcd")]
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Commits after `revision`, oldest first. The caller has checked that `revision` is not below [`Self::oldest`].
    pub fn after(&self, revision: Revision) -> impl DoubleEndedIterator<Item = &Arc<Commit>> {
        let start = self.kept.partition_point(|kept| kept.commit.revision <= revision);
        self.kept.range(start..).map(|kept| &kept.commit)
    }

    /// Follows `prefix` after `revision`, which may lie ahead of the journal but not before [`Self::oldest`].
    pub fn watch(&mut self, prefix: &str, revision: Revision) -> Result<Watch, Error> {
        if revision < self.oldest {
            return Err(Error::Compacted { requested: revision, oldest: self.oldest });
        }
        let backlog = self.after(revision).filter(|commit| commit.touches(prefix)).cloned().collect();
        Ok(self.watchers.add(prefix, revision, backlog))
    }

    /// Whether `revision` can be listed and watched from.
    pub fn check(&self, revision: Revision) -> Result<(), Error> {
        if revision < self.oldest {
            Err(Error::Compacted { requested: revision, oldest: self.oldest })
        } else if revision > self.revision {
            Err(Error::Future { requested: revision, current: self.revision })
        } else {
            Ok(())
        }
    }

    /// Tells every watcher how far it is.
    pub fn progress(&mut self) {
        self.watchers.progress(self.revision);
    }

    /// Forgets what happened before `revision`.
    pub fn compact(&mut self, revision: Revision) {
        while self.kept.front().is_some_and(|kept| kept.commit.revision <= revision) {
            self.forget_first();
        }
        self.oldest = self.oldest.max(revision);
    }

    /// Ends every watch with `error`.
    pub fn end(&mut self, error: &Error) {
        self.watchers.end(error);
    }

    /// Starts over at `revision`, for when the commits in between cannot be had: every watch ends with `error`.
    #[cfg(feature = "etcd")]
    pub fn restart(&mut self, revision: Revision, error: &Error) {
        self.end(error);
        *self = Self::new(revision, self.retention.clone());
    }

    fn forget_surplus(&mut self, now: Timestamp) {
        while let Some(first) = self.kept.front() {
            let aged = || Duration::try_from(now.duration_since(first.at)).is_ok_and(|age| age >= self.retention.age);
            let surplus = self.kept.len() > self.retention.commits && aged();
            if !surplus && self.kept_bytes <= self.retention.bytes_max {
                return;
            }
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(Kept { commit, .. }) = self.kept.pop_front() {
            self.kept_bytes -= commit.bytes();
            self.oldest = self.oldest.max(commit.revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(revision: Revision) -> Commit {
        let change = Change { key: "k".into(), value: Some("0123456789".into()), previous: None, revision };
        Commit { revision, changes: vec![change] }
    }

    /// The oldest revision kept after ten commits, one a second.
    fn oldest_of_ten(retention: Retention) -> Revision {
        let mut journal = Journal::new(0, retention);
        for revision in 1..=10 {
            journal.publish(commit(revision), Timestamp::from_second(revision as i64).unwrap());
        }
        assert_eq!(journal.after(journal.oldest()).count() as u64, 10 - journal.oldest());
        journal.oldest()
    }

    #[test]
    fn forgets_what_is_surplus_and_old_or_too_large() {
        let (secs, large) = (Duration::from_secs, usize::MAX);
        assert_eq!(oldest_of_ten(Retention { commits: 3, age: secs(0), bytes_max: large }), 7);
        assert_eq!(oldest_of_ten(Retention { commits: 3, age: secs(5), bytes_max: large }), 5);
        assert_eq!(oldest_of_ten(Retention { commits: 100, age: secs(0), bytes_max: large }), 0);
        assert_eq!(oldest_of_ten(Retention { commits: 100, age: secs(100), bytes_max: 25 }), 8);
    }
}
