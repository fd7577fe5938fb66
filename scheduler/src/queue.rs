//! Which Pod is next: active, backing off, or waiting for something to change. Pure; time is passed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

/// Things that happen in the cluster, as a set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Events(u8);

impl Events {
    pub const NODE_ADDED: Self = Self(1);
    /// Allocatable, images or devices.
    pub const NODE_CAPACITY: Self = Self(1 | 2);
    pub const NODE_LABELS: Self = Self(1 | 4);
    /// Taints, cordon.
    pub const NODE_SPEC: Self = Self(1 | 8);
    /// A Pod left a node, or finished.
    pub const POD_GONE: Self = Self(16);
    /// A Pod was placed on a node, or its labels changed there.
    pub const POD_PLACED: Self = Self(32);
    pub const ALL: Self = Self(u8::MAX);

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A waiting Pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    pub key: Key,
    pub priority: i32,
    /// When it entered the queue first.
    pub since: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// What could make it fit.
    pub helped_by: Events,
}

/// Namespace and name.
pub type Key = (String, String);

/// Order of the active queue: higher priority first, then who has waited longer.
type Rank = (std::cmp::Reverse<i32>, Timestamp, Key);

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A Pod that nothing helped is tried again after this time all the same.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    Active,
    /// Until then.
    BackingOff(Timestamp),
    /// Until something in its `helped_by` happens, or then.
    Unschedulable(Timestamp),
    /// Being decided; whether something that helps happened meanwhile.
    InFlight {
        helped: Events,
    },
}

/// The three queues and the Pods in flight. Every waiting Pod is in exactly one place.
#[derive(Default)]
pub struct Queue {
    pods: BTreeMap<Key, (Waiting, Place)>,
    active: BTreeSet<Rank>,
    timers: BTreeSet<(Timestamp, Key)>,
}

fn rank(waiting: &Waiting) -> Rank {
    (std::cmp::Reverse(waiting.priority), waiting.since, waiting.key.clone())
}

impl Queue {
    /// A Pod appeared, or changed in a way that may make it fit: it is tried at once.
    pub fn add(&mut self, key: Key, priority: i32, now: Timestamp) {
        match self.pods.get_mut(&key) {
            Some((waiting, Place::InFlight { helped })) => {
                *helped = Events::ALL;
                waiting.priority = priority;
            }
            Some(_) => {
                let (mut waiting, _) = self.take(&key).expect("the key was found above");
                waiting.priority = priority;
                self.put(waiting, Place::Active);
            }
            None => self.put(Waiting { key, priority, since: now, attempts: 0, helped_by: Events::ALL }, Place::Active),
        }
    }

    /// The Pod is gone, or has a node.
    pub fn remove(&mut self, key: &Key) {
        self.take(key);
    }

    /// The next Pod to decide on; it is in flight until `failed`, or `remove`.
    pub fn pop(&mut self, now: Timestamp) -> Option<Waiting> {
        self.wake(now);
        let key = self.active.first()?.2.clone();
        let (mut waiting, _) = self.take(&key)?;
        waiting.attempts += 1;
        let popped = waiting.clone();
        self.put(waiting, Place::InFlight { helped: Events::default() });
        Some(popped)
    }

    /// The Pod in flight found no place. It waits for what may help; when that happened already, or when
    /// `helped_by` is empty (an error rather than a verdict), it only backs off.
    pub fn failed(&mut self, key: &Key, helped_by: Events, now: Timestamp) {
        let Some((mut waiting, Place::InFlight { helped })) = self.take(key) else { return };
        waiting.helped_by = helped_by;
        let place = if helped.meets(helped_by) || helped_by == Events::default() {
            Place::BackingOff(now + backoff(waiting.attempts))
        } else {
            Place::Unschedulable(now + UNSCHEDULABLE_MAX)
        };
        self.put(waiting, place);
    }

    /// Something happened: Pods that it may help move on, after their back-off.
    pub fn happened(&mut self, events: Events, now: Timestamp) {
        let mut moved = Vec::new();
        for (key, (waiting, place)) in &mut self.pods {
            match place {
                Place::InFlight { helped } => *helped = helped.or(events),
                Place::Unschedulable(_) if waiting.helped_by.meets(events) => moved.push(key.clone()),
                _ => {}
            }
        }
        for key in moved {
            let (waiting, _) = self.take(&key).expect("collected above");
            let since_failure = waiting.since + backoff(waiting.attempts);
            let until = if since_failure > now { since_failure } else { now };
            self.put(waiting, Place::BackingOff(until));
        }
        self.wake(now);
    }

    /// When a waiting Pod becomes active by itself.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Pods that are (active, backing off, unschedulable).
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Place) -> bool| self.pods.values().filter(|(_, place)| wanted(place)).count();
        (
            self.active.len(),
            count(|place| matches!(place, Place::BackingOff(_))),
            count(|place| matches!(place, Place::Unschedulable(_))),
        )
    }

    fn wake(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            match self.take(&key) {
                Some((waiting, _)) => self.put(waiting, Place::Active),
                None => drop(self.timers.pop_first()),
            }
        }
    }

    fn take(&mut self, key: &Key) -> Option<(Waiting, Place)> {
        let (waiting, place) = self.pods.remove(key)?;
        match &place {
            Place::Active => drop(self.active.remove(&rank(&waiting))),
            Place::BackingOff(at) | Place::Unschedulable(at) => drop(self.timers.remove(&(*at, key.clone()))),
            Place::InFlight { .. } => {}
        }
        Some((waiting, place))
    }

    fn put(&mut self, waiting: Waiting, place: Place) {
        match &place {
            Place::Active => drop(self.active.insert(rank(&waiting))),
            Place::BackingOff(at) | Place::Unschedulable(at) => drop(self.timers.insert((*at, waiting.key.clone()))),
            Place::InFlight { .. } => {}
        }
        self.pods.insert(waiting.key.clone(), (waiting, place));
    }
}

fn backoff(attempts: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn key(name: &str) -> Key {
        ("d".into(), name.into())
    }

    fn popped(queue: &mut Queue, now: i64) -> Option<String> {
        queue.pop(at(now)).map(|waiting| waiting.key.1)
    }

    #[test]
    fn priority_then_age() {
        let mut queue = Queue::default();
        queue.add(key("old"), 0, at(0));
        queue.add(key("new"), 0, at(1));
        queue.add(key("vip"), 10, at(2));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, 3)).collect();
        assert_eq!(order, ["vip", "old", "new"]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_what_helps() {
        let mut queue = Queue::default();
        queue.add(key("p"), 0, at(0));
        popped(&mut queue, 0);
        queue.failed(&key("p"), Events::POD_GONE, at(0));
        queue.happened(Events::NODE_LABELS, at(5));
        assert_eq!(popped(&mut queue, 5), None);
        queue.happened(Events::POD_GONE, at(5));
        assert_eq!(popped(&mut queue, 5), Some("p".into()));
    }

    #[test]
    fn what_happens_in_flight_is_not_lost() {
        let mut queue = Queue::default();
        queue.add(key("p"), 0, at(0));
        popped(&mut queue, 0);
        queue.happened(Events::POD_GONE, at(0));
        queue.failed(&key("p"), Events::POD_GONE, at(0));
        assert_eq!(popped(&mut queue, 0), None);
        assert_eq!(queue.next_wake(), Some(at(1)));
        assert_eq!(popped(&mut queue, 1), Some("p".into()));
    }

    #[test]
    fn nobody_waits_for_ever_and_the_removed_never_come_back() {
        let mut queue = Queue::default();
        queue.add(key("p"), 0, at(0));
        popped(&mut queue, 0);
        queue.failed(&key("p"), Events::NODE_SPEC, at(0));
        assert_eq!(popped(&mut queue, 301), Some("p".into()));
        queue.remove(&key("p"));
        queue.failed(&key("p"), Events::NODE_SPEC, at(302));
        assert_eq!((queue.counts(), popped(&mut queue, 9999)), ((0, 0, 0), None));
    }
}
