//! The work queue: one key is never processed twice at once, and an add during processing is remembered.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::metrics;

/// First delay of [`WorkQueue::add_rate_limited`]; doubled with each failure of the same item.
pub const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest delay of [`WorkQueue::add_rate_limited`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(1000);

/// A queue of distinct items; clones share it.
pub struct WorkQueue<T>(Arc<Shared<T>>);

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<T> {
    name: String,
    items: Mutex<Items<T>>,
    changed: Notify,
}

struct Items<T> {
    /// Ready, in the order of their first add. Subset of `dirty`, disjoint from `processing`.
    ready: VecDeque<T>,
    /// What needs processing, with the time it began to need it.
    dirty: HashMap<T, Instant>,
    /// Handed out and not yet done, with the time of the hand-out.
    processing: HashMap<T, Instant>,
    /// To be added later, by time; the number keeps equal times apart.
    waiting: BTreeMap<(Instant, u64), T>,
    /// Where an item stands in `waiting`.
    due: HashMap<T, (Instant, u64)>,
    /// Failures in a row.
    failures: HashMap<T, u32>,
    sequence: u64,
    stopped: bool,
}

impl<T: Clone + Eq + Hash> Items<T> {
    fn add(&mut self, item: T) -> bool {
        if self.stopped || self.dirty.contains_key(&item) {
            return false;
        }
        self.dirty.insert(item.clone(), Instant::now());
        if !self.processing.contains_key(&item) {
            self.ready.push_back(item);
        }
        true
    }

    fn add_at(&mut self, item: T, at: Instant) {
        if let Some(&place) = self.due.get(&item) {
            if place.0 <= at {
                return;
            }
            self.waiting.remove(&place);
        }
        self.sequence += 1;
        let place = (at, self.sequence);
        self.due.insert(item.clone(), place);
        self.waiting.insert(place, item);
    }

    /// Moves what is due to the ready items; when the next one is due.
    fn promote(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some((&place, _)) = self.waiting.first_key_value() {
            if place.0 > now {
                return Some(place.0);
            }
            if let Some(item) = self.waiting.remove(&place) {
                self.due.remove(&item);
                self.add(item);
            }
        }
        None
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue; `name` labels its metrics.
    pub fn new(name: impl Into<String>) -> Self {
        let items = Items {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            processing: HashMap::new(),
            waiting: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            stopped: false,
        };
        Self(Arc::new(Shared { name: name.into(), items: Mutex::new(items), changed: Notify::new() }))
    }

    /// Asks for `item` to be processed.
    pub fn add(&self, item: T) {
        if self.0.items.lock().add(item) {
            metrics::ADDS.with_label_values(&[&self.0.name]).inc();
            self.0.changed.notify_waiters();
        }
    }

    /// Adds `item` once `delay` has passed; of several delays the shortest counts.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        self.0.items.lock().add_at(item, Instant::now() + delay);
        self.0.changed.notify_waiters();
    }

    /// Adds `item` after a delay that doubles with each call, until [`Self::forget`].
    pub fn add_rate_limited(&self, item: T) {
        let mut items = self.0.items.lock();
        let failures = items.failures.entry(item.clone()).or_insert(0);
        let delay = BACKOFF_MIN.saturating_mul(2u32.saturating_pow(*failures)).min(BACKOFF_MAX);
        *failures = failures.saturating_add(1);
        drop(items);
        metrics::RETRIES.with_label_values(&[&self.0.name]).inc();
        self.add_after(item, delay);
    }

    /// The item succeeded: its next failure waits the shortest time again.
    pub fn forget(&self, item: &T) {
        self.0.items.lock().failures.remove(item);
    }

    /// Failures of `item` in a row.
    pub fn failures(&self, item: &T) -> u32 {
        self.0.items.lock().failures.get(item).copied().unwrap_or(0)
    }

    /// The next item; `None` after [`Self::shut_down`], once what was ready is handed out.
    /// Each item must be given back by [`Self::done`].
    pub async fn get(&self) -> Option<T> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next_due = {
                let mut items = self.0.items.lock();
                let next_due = items.promote();
                if let Some(item) = self.take(&mut items) {
                    return Some(item);
                }
                if items.stopped {
                    return None;
                }
                next_due
            };
            match next_due {
                Some(at) => tokio::select! { () = changed => (), () = sleep_until(at) => () },
                None => changed.await,
            }
        }
    }

    fn take(&self, items: &mut Items<T>) -> Option<T> {
        let item = items.ready.pop_front()?;
        let now = Instant::now();
        if let Some(since) = items.dirty.remove(&item) {
            metrics::QUEUE_SECONDS.with_label_values(&[&self.0.name]).observe((now - since).as_secs_f64());
        }
        items.processing.insert(item.clone(), now);
        metrics::DEPTH.with_label_values(&[&self.0.name]).set(i64::try_from(items.ready.len()).unwrap_or(i64::MAX));
        Some(item)
    }

    /// Processing ended; an add in the meantime takes effect now.
    pub fn done(&self, item: &T) {
        let mut items = self.0.items.lock();
        if let Some(since) = items.processing.remove(item) {
            metrics::WORK_SECONDS.with_label_values(&[&self.0.name]).observe(since.elapsed().as_secs_f64());
        }
        if items.dirty.contains_key(item) {
            items.ready.push_back(item.clone());
        }
        drop(items);
        self.0.changed.notify_waiters();
    }

    /// How many items are ready.
    pub fn len(&self) -> usize {
        self.0.items.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items that are known in any state, for tests and for shutting down in order.
    pub fn known(&self) -> usize {
        let items = self.0.items.lock();
        let distinct: HashSet<&T> = items.dirty.keys().chain(items.processing.keys()).collect();
        distinct.len()
    }

    /// No further adds; workers get what is ready, then `None`.
    pub fn shut_down(&self) {
        self.0.items.lock().stopped = true;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_item_is_never_out_twice_and_no_add_is_lost() {
        let queue = WorkQueue::new("test");
        queue.add("a");
        queue.add("a");
        assert_eq!((queue.len(), queue.get().await), (1, Some("a")));
        queue.add("a");
        assert_eq!(queue.len(), 0, "still being processed");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        queue.shut_down();
        assert_eq!(queue.get().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_until_forgotten() {
        let queue = WorkQueue::new("test");
        let mut waited = Vec::new();
        for round in 0..4 {
            if round == 3 {
                queue.forget(&"a");
            }
            let since = Instant::now();
            queue.add_rate_limited("a");
            let item = queue.get().await.unwrap();
            queue.done(&item);
            waited.push(since.elapsed().as_millis());
        }
        assert_eq!(waited, [5, 10, 20, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_delays_counts() {
        let queue = WorkQueue::new("test");
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("a", Duration::from_secs(30));
        let since = Instant::now();
        assert_eq!(queue.get().await, Some("a"));
        assert_eq!(since.elapsed(), Duration::from_secs(1));
        assert!(queue.0.items.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_worker_wakes_for_a_later_add() {
        let queue = WorkQueue::new("test");
        let worker = tokio::spawn({
            let queue = queue.clone();
            async move { queue.get().await }
        });
        tokio::task::yield_now().await;
        queue.add(7);
        assert_eq!(worker.await.unwrap(), Some(7));
    }
}
