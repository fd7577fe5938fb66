//! Binds Pods to Nodes.
//!
//! **Knows:** Pods, Nodes, Namespaces; the plugins that rule nodes out and order them; GPUs by UUID.
//! **Does not know:** how Pods run; who made them.
//! **Invariants:** a decision is a pure function of a Pod and a snapshot; a Pod counts on one node from
//! the moment it is assumed there; no device is given twice; only bindings, Pod conditions and events are
//! written; one write per binding, off the decision's path.
//! **Start reading at:** `cycle::schedule`, then [`run`].

pub mod cycle;
pub mod devices;
pub mod node;
pub mod observe;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resources;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod tests;
pub mod writes;

use std::sync::Arc;

use client::{
    events::EventRecorder,
    informer::{Change, Informer, Selection},
};
use clock::{Chance, Clock};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    cycle::schedule,
    observe::Observer,
    pod::PodInfo,
    queue::{Key, Waiting},
    writes::{Outcome, Writer},
};

/// The name that Pods give in `spec.schedulerName` to be scheduled here.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// What the scheduler is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    pub scheduler_name: String,
    /// Bindings that may be on their way at once.
    pub bindings_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: DEFAULT_SCHEDULER_NAME.into(), bindings_max: 64 }
    }
}

/// Runs until `stop`.
pub async fn run(
    client: kube::Client,
    clock: Clock,
    chance: Chance,
    config: Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let nodes = Informer::start(Api::<Node>::all(client.clone()), Selection::default(), stop.clone());
    let namespaces = Informer::start(Api::<Namespace>::all(client.clone()), Selection::default(), stop.clone());
    let unfinished = Selection { labels: None, fields: Some("status.phase!=Succeeded,status.phase!=Failed".into()) };
    let pods = Informer::start(Api::<Pod>::all(client.clone()), unfinished, stop.clone());
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = async { nodes.synced().await; namespaces.synced().await; pods.synced().await } => {}
    }
    let (outcomes, from_writers) = mpsc::unbounded_channel();
    let events = EventRecorder::new(client.clone(), clock.clone(), &config.scheduler_name, "");
    let writer = Arc::new(Writer { client, clock: clock.clone(), events, outcomes });
    let scheduler = Scheduler {
        observer: Observer::new(config.scheduler_name),
        clock,
        chance,
        writer,
        slots: Arc::new(Semaphore::new(config.bindings_max)),
        start: 0,
    };
    let changes = Changes { pods: pods.subscribe(), nodes: nodes.subscribe(), namespaces: namespaces.subscribe() };
    scheduler.follow(changes, from_writers, stop).await;
    Ok(())
}

struct Changes {
    pods: mpsc::UnboundedReceiver<Change<Pod>>,
    nodes: mpsc::UnboundedReceiver<Change<Node>>,
    namespaces: mpsc::UnboundedReceiver<Change<Namespace>>,
}

struct Scheduler {
    observer: Observer,
    clock: Clock,
    chance: Chance,
    writer: Arc<Writer>,
    slots: Arc<Semaphore>,
    /// Where the next decision begins among the nodes.
    start: usize,
}

impl Scheduler {
    /// Takes in everything that is known, then decides on one Pod; over and over.
    async fn follow(
        mut self,
        mut changes: Changes,
        mut outcomes: mpsc::UnboundedReceiver<Outcome>,
        stop: CancellationToken,
    ) {
        loop {
            let now = self.clock.now();
            let can_decide = self.slots.available_permits() > 0;
            let wake = self.observer.queue.next_wake().map(|at| self.clock.until(at));
            let timer = async {
                match wake {
                    Some(after) => tokio::time::sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            let ready = async {
                match can_decide && self.observer.queue.counts().0 > 0 {
                    true => {}
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(change) = changes.nodes.recv() => self.observer.node(change, now),
                Some(change) = changes.namespaces.recv() => self.observer.namespace(change),
                Some(change) = changes.pods.recv() => self.observer.pod(change, now),
                Some(outcome) = outcomes.recv() => self.settle(outcome),
                () = ready => self.decide(),
                () = timer => self.decide(),
            }
        }
    }

    fn decide(&mut self) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return };
        let Some(waiting) = self.observer.queue.pop(self.clock.now()) else { return };
        let Some(pod) = self.observer.waiting_pod(&waiting.key) else {
            return self.observer.queue.remove(&waiting.key);
        };
        let snapshot = self.observer.cache.snapshot();
        match schedule(&pod, &snapshot, self.start, &self.chance) {
            Ok(placement) => {
                self.start = self.start.wrapping_add(1);
                debug!(pod = pod.name(), node = placement.node, "placed");
                self.observer.cache.assume(with_devices(&pod, &placement.devices), &placement.node);
                let writer = self.writer.clone();
                tokio::spawn(async move {
                    writer.bind(&pod, placement).await;
                    drop(slot);
                });
            }
            Err(error) => self.refuse(&waiting, pod, &error),
        }
    }

    fn refuse(&mut self, waiting: &Waiting, pod: Arc<PodInfo>, error: &cycle::FitError) {
        let helped_by = plugins::FILTERS
            .iter()
            .filter(|plugin| error.plugins.contains(&plugin.name))
            .fold(queue::Events::NODE_ADDED, |events, plugin| events.or(plugin.events));
        self.observer.queue.failed(&waiting.key, helped_by, self.clock.now());
        let (writer, message) = (self.writer.clone(), error.to_string());
        tokio::spawn(async move { writer.refuse(&pod, "Unschedulable", message).await });
    }

    /// A binding was answered.
    fn settle(&mut self, outcome: Outcome) {
        let Outcome { key, uid, is_bound } = outcome;
        match is_bound {
            true => self.observer.queue.remove(&key),
            false => {
                self.observer.cache.forget(&uid);
                let now = self.clock.now();
                self.observer.queue.failed(&key, queue::Events::default(), now);
                self.observer.queue.happened(queue::Events::POD_GONE, now);
            }
        }
    }
}

/// The Pod as it will be when its binding is observed: with the devices it was given.
fn with_devices(pod: &Arc<PodInfo>, devices: &devices::Assignment) -> Arc<PodInfo> {
    if devices.is_empty() {
        return pod.clone();
    }
    let mut info = (**pod).clone();
    let mut object = (*info.pod).clone();
    let text = serde_json::to_string(devices).unwrap_or_default();
    object.metadata.annotations.get_or_insert_default().insert(devices::ASSIGNMENT_ANNOTATION.into(), text);
    info.pod = Arc::new(object);
    Arc::new(info)
}

/// The key of a Pod in the queue.
pub(crate) fn key_of(pod: &Pod) -> Key {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}
