//! How long to wait before the next attempt: 10 s, doubled each time, at most 5 min; forgotten after 10 quiet minutes.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    wait: Duration,
    updated: Timestamp,
}

/// Waiting times by key (container and its hash, or image). Pure: the time is given.
#[derive(Clone, Debug, Default)]
pub struct Backoff(BTreeMap<String, Entry>);

impl Backoff {
    /// When the next attempt may be made, if something happened at `since`; `None` when it may be made now.
    pub fn until(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let entry = self.0.get(key)?;
        let ready = since + entry.wait;
        (!Self::has_expired(entry, now) && now < ready).then_some((ready, entry.wait))
    }

    /// The same, counted from the last failure itself.
    pub fn until_since_update(&self, key: &str, now: Timestamp) -> Option<(Timestamp, Duration)> {
        self.until(key, self.0.get(key)?.updated, now)
    }

    /// Counts one more attempt.
    pub fn next(&mut self, key: &str, now: Timestamp) {
        let wait = match self.0.get(key) {
            Some(entry) if !Self::has_expired(entry, now) => (entry.wait * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0.insert(key.into(), Entry { wait, updated: now });
        self.0.retain(|_, entry| !Self::has_expired(entry, now));
    }

    pub fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    fn has_expired(entry: &Entry, now: Timestamp) -> bool {
        now > entry.updated + LONGEST * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_five_minutes_and_forgets() {
        let mut backoff = Backoff::default();
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(backoff.until("a", now, now), None);
        let mut waits = Vec::new();
        for _ in 0..7 {
            backoff.next("a", now);
            let (ready, wait) = backoff.until("a", now, now).unwrap();
            assert_eq!(ready, now + wait);
            waits.push(wait.as_secs());
            now = ready;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        now += Duration::from_secs(601);
        assert_eq!(backoff.until("a", now, now), None);
        backoff.next("a", now);
        assert_eq!(backoff.until_since_update("a", now).unwrap().1, FIRST);
    }
}
