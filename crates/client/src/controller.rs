//! The harness of every controller: `observe -> decide -> act`, over a work queue of keys.
//!
//! A controller says what it sees of a key and what should be done about it; everything else is here, once:
//! queueing, back-off, bounded parallelism, the freshness gate, events, timers on deadlines.

mod act;
mod action;

use std::{collections::HashMap, fmt::Debug, future::Future, panic::AssertUnwindSafe, sync::Arc};

use clock::Clock;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::act::Executor;
pub use self::action::{Action, Deletion, Target, Verb};
use crate::{
    Key,
    events::{EventRecorder, EventType},
    freshness::Gate,
    informer::{Change, Informer},
    queue::WorkQueue,
};

/// Keys that one controller works on at once.
const WORKERS: usize = 8;

/// What a user is told about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub about: ObjectReference,
    pub r#type: EventType,
    pub reason: &'static str,
    pub message: String,
}

impl Note {
    pub fn normal<K: Resource<DynamicType = ()>>(about: &K, reason: &'static str, message: impl Into<String>) -> Self {
        Self { about: about.object_ref(&()), r#type: EventType::Normal, reason, message: message.into() }
    }

    pub fn warning<K: Resource<DynamicType = ()>>(about: &K, reason: &'static str, message: impl Into<String>) -> Self {
        Self { r#type: EventType::Warning, ..Self::normal(about, reason, message) }
    }
}

/// What should happen about a key. The default is: nothing.
#[derive(Debug, Default)]
pub struct Decision {
    /// Carried out in order, with growing parallelism; the first error ends it.
    pub actions: Vec<Action>,
    /// The status, written after the actions, also when one of them failed.
    pub status: Option<Action>,
    /// When to look at the key again although nothing changed.
    pub check_again_at: Option<Timestamp>,
    /// What to tell the user; become events once everything above is done.
    pub why: Vec<Note>,
}

impl Decision {
    /// Looks again at the earlier of this moment and those asked for before.
    pub fn check_again(&mut self, at: Option<Timestamp>) {
        self.check_again_at = self.check_again_at.into_iter().chain(at).min();
    }
}

/// Why the last pass over a key failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub message: String,
    pub verb: &'static str,
    pub at: Timestamp,
}

/// One controller. `decide` is pure; `observe` reads caches (only those that must ask the server await).
pub trait Controller: Send + Sync + 'static {
    const NAME: &'static str;
    type Observed: Send + Sync;

    /// What there is about a key; `None` when nothing needs to be done for it.
    fn observe(
        &self,
        key: &Key,
        failure: Option<Failure>,
    ) -> impl Future<Output = anyhow::Result<Option<Self::Observed>>> + Send;

    /// What should happen.
    fn decide(&self, observed: &Self::Observed, now: Timestamp) -> Decision;
}

/// What all controllers of a program share.
#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub clock: Clock,
    pub recorder: EventRecorder,
    /// The field manager of writes.
    pub manager: String,
}

/// A controller with its queue and the caches it reads.
pub struct Harness<C> {
    controller: Arc<C>,
    queue: WorkQueue<Key>,
    gate: Gate,
    synced: Vec<BoxFuture<'static, ()>>,
    feeds: Vec<BoxFuture<'static, ()>>,
}

impl<C: Controller> Harness<C> {
    pub fn new(controller: C) -> Self {
        Self {
            controller: Arc::new(controller),
            queue: WorkQueue::new(C::NAME),
            gate: Gate::default(),
            synced: Vec::new(),
            feeds: Vec::new(),
        }
    }

    /// Queues the keys that a change of this cache concerns; the gate includes the cache.
    pub fn watch<K, I>(
        mut self,
        informer: &Informer<K>,
        keys: impl Fn(&C, &Change<K>) -> I + Send + Sync + 'static,
    ) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        I: IntoIterator<Item = Key>,
    {
        self.gate.watch(informer);
        let (cache, queue, controller) = (informer.clone(), self.queue.clone(), Arc::clone(&self.controller));
        let mut changes = informer.subscribe();
        self.synced.push(async move { cache.synced().await }.boxed());
        self.feeds.push(
            async move {
                while let Some(change) = changes.recv().await {
                    keys(&controller, &change).into_iter().for_each(|key| queue.add(key));
                }
            }
            .boxed(),
        );
        self
    }

    /// The queue, for sources of keys that are not informers.
    pub fn queue(&self) -> WorkQueue<Key> {
        self.queue.clone()
    }

    pub fn controller(&self) -> Arc<C> {
        Arc::clone(&self.controller)
    }

    /// Works until `stop`.
    pub async fn run(self, context: Context, stop: CancellationToken) {
        let Self { controller, queue, gate, synced, feeds } = self;
        tokio::select! { _ = futures::future::join_all(synced) => (), () = stop.cancelled() => return }
        let mut tasks = JoinSet::new();
        feeds.into_iter().for_each(|feed| drop(tasks.spawn(feed)));
        let worker = Arc::new(Worker {
            controller,
            queue: queue.clone(),
            gate,
            executor: Executor { client: context.client, manager: context.manager, recorder: context.recorder.clone() },
            recorder: context.recorder,
            clock: context.clock,
            failures: Mutex::default(),
        });
        for _ in 0..WORKERS {
            let worker = Arc::clone(&worker);
            tasks.spawn(async move { worker.run().await });
        }
        stop.cancelled().await;
        queue.shut_down();
        tasks.shutdown().await;
    }
}

struct Worker<C> {
    controller: Arc<C>,
    queue: WorkQueue<Key>,
    gate: Gate,
    executor: Executor,
    recorder: EventRecorder,
    clock: Clock,
    failures: Mutex<HashMap<Key, Failure>>,
}

impl<C: Controller> Worker<C> {
    async fn run(&self) {
        while let Some(key) = self.queue.get().await {
            // A panic is a bug in one pass over one key; the other keys must not suffer from it.
            match AssertUnwindSafe(self.pass(&key)).catch_unwind().await {
                Ok(Ok(())) => self.queue.forget(&key),
                Ok(Err(error)) => {
                    tracing::debug!(controller = C::NAME, %key, error = format!("{error:#}"), "will try again");
                    self.queue.add_rate_limited(key.clone());
                }
                Err(_) => {
                    tracing::error!(controller = C::NAME, %key, "panicked; will try again");
                    self.queue.add_rate_limited(key.clone());
                }
            }
            self.queue.done(&key);
        }
    }

    async fn pass(&self, key: &Key) -> anyhow::Result<()> {
        let failure = self.failures.lock().get(key).cloned();
        let had_failed = failure.is_some();
        let Some(observed) = self.controller.observe(key, failure).await? else {
            self.failures.lock().remove(key);
            return Ok(());
        };
        let decision = self.controller.decide(&observed, self.clock.now());
        drop(observed);
        if let Some(at) = decision.check_again_at {
            self.queue.add_after(key.clone(), self.clock.until(at));
        }
        let mut acted = self.executor.act(decision.actions).await;
        if let Some(status) = decision.status {
            acted.and(self.executor.act(vec![status]).await);
        }
        self.gate.pass(&acted.marks).await;
        match acted.error {
            None => {
                decision.why.into_iter().for_each(|note| tell(&self.recorder, note));
                if had_failed {
                    self.failures.lock().remove(key);
                    self.queue.add(key.clone());
                }
                Ok(())
            }
            Some(error) => {
                if let Some((verb, message)) = error.failure() {
                    let failure = Failure { message, verb, at: self.clock.now() };
                    self.failures.lock().insert(key.clone(), failure);
                }
                Err(error.into())
            }
        }
    }
}

fn tell(recorder: &EventRecorder, note: Note) {
    recorder.event(note.about, note.r#type, note.reason, note.message);
}
