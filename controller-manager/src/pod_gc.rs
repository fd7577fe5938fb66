//! Removes Pods that nobody else can: bound to Nodes that are gone, ended ones in excess, deleted before they ran.
//!
//! Guarantees: a Pod is only removed with the uid that was observed; one on a Node that is gone only after a while.
//! Relies on:  kubelets for all Pods whose Node exists.

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness},
    informer::{Change, Informer},
};
use clock::Clock;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    caches::{BY_NODE, Caches},
    pod::PodFacts,
};

/// How long a Node must be gone before its Pods are removed: it may come back.
const QUARANTINE: Duration = Duration::from_secs(40);
/// The key that stands for all ended Pods.
const ENDED: &str = "ended pods";

/// What there is about one Pod, or about all ended ones.
pub enum Observed {
    /// Its Node is gone, since this moment.
    Homeless(Arc<Pod>, Timestamp),
    /// Deleted before it was given a Node.
    Unscheduled(Arc<Pod>),
    /// All that have ended.
    Ended(Vec<Arc<Pod>>),
}

pub(crate) struct PodGarbage {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    clock: Clock,
    /// Ended Pods that may stay.
    ended_max: usize,
    /// When each missing Node was first missed.
    missing: Mutex<HashMap<String, Timestamp>>,
}

impl PodGarbage {
    fn observe(&self, key: &Key) -> Option<Observed> {
        if key.name == ENDED {
            return Some(Observed::Ended(self.pods.list().into_iter().filter(|pod| pod.is_terminal()).collect()));
        }
        let pod = self.pods.get(&key.namespace, &key.name)?;
        if pod.node_name().is_empty() {
            return pod.is_leaving().then_some(Observed::Unscheduled(pod));
        }
        let mut missing = self.missing.lock();
        if self.nodes.get("", pod.node_name()).is_some() {
            missing.remove(pod.node_name());
            return None;
        }
        let since = *missing.entry(pod.node_name().to_owned()).or_insert_with(|| self.clock.now());
        Some(Observed::Homeless(pod, since))
    }

    fn of_pod(&self, change: &Change<Pod>) -> Vec<Key> {
        let Change::Applied { old, new } = change else { return Vec::new() };
        let has_ended = new.is_terminal() && !old.as_ref().is_some_and(|old| old.is_terminal());
        let ended = has_ended.then(|| Key::cluster(ENDED));
        let is_suspect = new.is_leaving() || self.nodes.get("", new.node_name()).is_none();
        is_suspect.then(|| Key::of(&**new)).into_iter().chain(ended).collect()
    }

    fn of_node(&self, change: &Change<Node>) -> Vec<Key> {
        match change {
            Change::Applied { .. } => Vec::new(),
            Change::Deleted(node) => {
                self.pods.indexed(BY_NODE, &node.name_any()).iter().map(|pod| Key::of(&**pod)).collect()
            }
        }
    }
}

impl Controller for PodGarbage {
    const NAME: &'static str = "pod_garbage_collector";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        Ok(self.observe(key))
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Decision {
        decide(observed, self.ended_max, now)
    }
}

pub(crate) fn run(
    caches: &Caches,
    context: Context,
    ended_max: usize,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    let controller = PodGarbage {
        pods: caches.pods(),
        nodes: caches.nodes(),
        clock: context.clock.clone(),
        ended_max,
        missing: Mutex::default(),
    };
    let (pods, nodes) = (controller.pods.clone(), controller.nodes.clone());
    Harness::new(controller)
        .watch(&pods, PodGarbage::of_pod)
        .watch(&nodes, PodGarbage::of_node)
        .run(context, stop)
        .boxed()
}

fn decide(observed: &Observed, ended_max: usize, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    match observed {
        Observed::Homeless(_, since) if now < *since + QUARANTINE => decision.check_again(Some(*since + QUARANTINE)),
        Observed::Homeless(pod, _) => {
            if !pod.is_terminal() {
                decision.actions.push(Action::patch_in("status", &**pod, failed(pod, now)));
            }
            decision.actions.push(Action::delete_at_once(&**pod));
        }
        Observed::Unscheduled(pod) => decision.actions.push(Action::delete_at_once(&**pod)),
        Observed::Ended(pods) => {
            let mut pods = pods.clone();
            pods.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
            let surplus = pods.len().saturating_sub(ended_max);
            decision.actions.extend(pods.iter().take(surplus).map(|pod| Action::delete_at_once(&**pod)));
        }
    }
    decision
}

/// The status of a Pod whose Node took it along.
fn failed(pod: &Pod, now: Timestamp) -> Value {
    let disrupted = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "lastTransitionTime": Time(now),
    });
    let others = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let others = others.filter(|condition| condition.type_ != "DisruptionTarget").map(|condition| json!(condition));
    json!({"status": {"phase": "Failed", "conditions": others.chain([disrupted]).collect::<Vec<_>>()}})
}
