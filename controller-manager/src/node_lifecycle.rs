//! Notices Nodes that went silent, taints Nodes for what is wrong with them, and removes Pods that a taint drives out.
//!
//! Guarantees: a Node is called silent only after neither its Lease nor its status changed for the grace period of
//! OUR clock; a Pod is driven out only after the shortest time that it tolerates; a healthy cluster causes no writes;
//! while no Node at all is ready nobody is driven out, since then the fault is likely ours.
//! Relies on:  kubelets, for the heartbeat and for the Pods' own ends.

mod eviction;
mod taints;

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness, Note},
    events::EventType,
    informer::{Change, Informer},
};
use clock::Clock;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, ObjectReference, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use kube::ResourceExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    caches::{BY_NODE, Caches},
    pod::PodFacts,
};

/// The conditions that the kubelet answers for; `NetworkUnavailable` is not its own.
const KUBELET_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Nodes with this label do not count when it is asked whether any Node is ready.
const EXCLUDED_LABEL: &str = "node.kubernetes.io/exclude-disruption";

/// When a Node is taken for silent.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long a Node may be silent.
    pub grace_period: Duration,
    /// How long a Node may take to say something at all.
    pub startup_grace_period: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { grace_period: Duration::from_secs(40), startup_grace_period: Duration::from_secs(60) }
    }
}

/// What the controller remembers of a Node.
#[derive(Clone, Debug, PartialEq)]
struct Pulse {
    uid: String,
    /// What changes with each heartbeat: times of the Node's clock, which are never compared with ours.
    beat: (Option<MicroTime>, Option<Time>),
    /// When it last changed, on our clock.
    felt_at: Timestamp,
    /// Since when its Pods have been marked as not ready; `None` while it is ready.
    unready: Option<Unready>,
}

/// Whether the Pods of a Node that is not ready have been told so.
#[derive(Clone, Debug, PartialEq)]
struct Unready {
    /// The Node's transition: another one is another reason to mark.
    since: Option<Time>,
    /// None of its Pods claimed to be ready any more when last looked.
    is_marked: bool,
}

/// What there is about one Node.
pub enum Observed {
    Present {
        node: Arc<Node>,
        /// When its last heartbeat was felt.
        felt_at: Timestamp,
        /// Never observed before.
        is_new: bool,
        /// Whether any Node is ready.
        any_ready: bool,
        /// Its Pods that claim to be ready although it is not.
        unmarked: Vec<Arc<Pod>>,
    },
    Gone {
        name: String,
        uid: String,
    },
}

pub(crate) struct NodeLifecycle {
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    clock: Clock,
    config: Config,
    pulses: Mutex<HashMap<String, Pulse>>,
}

fn condition<'a>(node: &'a Node, r#type: &str) -> Option<&'a NodeCondition> {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == r#type)
}

fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

impl NodeLifecycle {
    fn observe(&self, name: &str) -> Option<Observed> {
        let mut pulses = self.pulses.lock();
        let node = self.nodes.get("", name);
        let known = pulses.get(name).map(|pulse| pulse.uid.clone());
        if let Some(uid) = known.filter(|uid| node.as_ref().is_none_or(|node| node.metadata.uid.as_ref() != Some(uid)))
        {
            pulses.remove(name);
            return Some(Observed::Gone { name: name.to_owned(), uid });
        }
        let node = node?;
        let is_new = !pulses.contains_key(name);
        let pulse = self.feel(&node, pulses.get(name));
        let unmarked = self.unmarked(&node, &pulse);
        let felt_at = pulse.felt_at;
        let settled =
            pulse.unready.map(|unready| Unready { is_marked: unready.is_marked || unmarked.is_empty(), ..unready });
        pulses.insert(name.to_owned(), Pulse { unready: settled, ..pulse });
        let counts = |node: &Node| !node.labels().contains_key(EXCLUDED_LABEL) && is_ready(node);
        let any_ready = self.nodes.list().iter().any(|node| counts(node));
        Some(Observed::Present { node, felt_at, is_new, any_ready, unmarked })
    }

    /// What is known of a Node from now on.
    fn feel(&self, node: &Node, before: Option<&Pulse>) -> Pulse {
        let lease = self.leases.get(crate::caches::NODE_LEASES, &node.name_any());
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let ready = condition(node, "Ready");
        let beat = (renewed, ready.and_then(|ready| ready.last_heartbeat_time.clone()));
        let unready = ready.filter(|ready| ready.status != "True").map(|ready| {
            let since = ready.last_transition_time.clone();
            let same = before.and_then(|before| before.unready.clone()).filter(|unready| unready.since == since);
            same.unwrap_or(Unready { since, is_marked: false })
        });
        let felt_at = before.filter(|before| before.beat == beat).map(|before| before.felt_at);
        Pulse {
            uid: node.uid().unwrap_or_default(),
            beat,
            felt_at: felt_at.unwrap_or_else(|| self.clock.now()),
            unready,
        }
    }

    fn unmarked(&self, node: &Node, pulse: &Pulse) -> Vec<Arc<Pod>> {
        match &pulse.unready {
            Some(unready) if !unready.is_marked => {
                let pods = self.pods.indexed(BY_NODE, &node.name_any());
                pods.into_iter().filter(|pod| pod.is_ready()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A Node's readiness concerns all: whether anybody is driven out depends on there being a ready one.
    fn of_node(&self, change: &Change<Node>) -> Vec<Key> {
        let was_ready = change.old().is_some_and(|node| is_ready(node));
        let is_ready = matches!(change, Change::Applied { new, .. } if is_ready(new));
        let own = Key::of(&**change.object());
        match was_ready == is_ready {
            true => vec![own],
            false => self.nodes.list().iter().map(|node| Key::of(&**node)).chain([own]).collect(),
        }
    }
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node_lifecycle";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        Ok(self.observe(&key.name))
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Decision {
        decide(observed, self.config, now)
    }
}

pub(crate) fn run(
    caches: &Caches,
    context: Context,
    config: Config,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    let controller = NodeLifecycle {
        nodes: caches.nodes(),
        leases: caches.node_leases(),
        pods: caches.pods(),
        clock: context.clock.clone(),
        config,
        pulses: Mutex::default(),
    };
    let (nodes, leases, pods) = (controller.nodes.clone(), controller.leases.clone(), controller.pods.clone());
    let lifecycle = Harness::new(controller)
        .watch(&nodes, NodeLifecycle::of_node)
        .watch(&leases, |_, change| [Key::cluster(change.object().name_any())])
        // Only for the gate: which Pods there are matters when a Node changes.
        .watch(&pods, |_, _| None)
        .run(context.clone(), stop.clone());
    let eviction = eviction::run(caches, context, stop);
    async move {
        tokio::join!(lifecycle, eviction);
    }
    .boxed()
}

fn decide(observed: &Observed, config: Config, now: Timestamp) -> Decision {
    let (node, felt_at, is_new, any_ready, unmarked) = match observed {
        Observed::Present { node, felt_at, is_new, any_ready, unmarked } => {
            (node, *felt_at, is_new, any_ready, unmarked)
        }
        Observed::Gone { name, uid } => {
            let about = ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(name.clone()),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            };
            let message = format!("Node {name} event: Removing Node {name} from Controller");
            let note = Note { about, r#type: EventType::Normal, reason: "RemovingNode", message };
            // Another Node may have taken the name.
            return Decision { why: vec![note], check_again_at: Some(now), ..Decision::default() };
        }
    };
    let mut decision = Decision::default();
    let name = node.name_any();
    if *is_new {
        let message = format!("Node {name} event: Registered Node {name} in Controller");
        decision.why.push(Note::normal(&**node, "RegisteredNode", message));
    }
    let grace = match condition(node, "Ready") {
        Some(_) => config.grace_period,
        None => config.startup_grace_period,
    };
    if now < felt_at + grace {
        decision.check_again_at = Some(felt_at + grace);
    } else if let Some(silent) = silenced(node, now) {
        // Taints and Pods follow, when the cache shows this.
        let written = Action::replace_in("status", &silent);
        let message = format!("Node {name} status is now: NodeNotReady");
        let note = is_ready(node).then(|| Note::normal(&**node, "NodeNotReady", message));
        decision.actions.push(Action { success: note, ..written });
        return decision;
    }
    decision.actions.extend(taints::reconcile(node, *any_ready, now));
    decision.actions.extend(unmarked.iter().map(|pod| mark_unready(pod, now)));
    if !unmarked.is_empty() {
        // Whether all of them took it.
        decision.check_again(Some(now));
    }
    decision
}

/// The Node with all that its kubelet answers for unknown; `None` where that is so already.
fn silenced(node: &Node, now: Timestamp) -> Option<Node> {
    let mut silent = node.clone();
    let conditions = silent.status.get_or_insert_default().conditions.get_or_insert_default();
    for r#type in KUBELET_CONDITIONS {
        match conditions.iter_mut().find(|condition| condition.type_ == r#type) {
            Some(condition) if condition.status == "Unknown" => (),
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: r#type.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    (silent != *node).then_some(silent)
}

/// Takes a Pod out of its Services: nobody knows whether it still serves.
fn mark_unready(pod: &Pod, now: Timestamp) -> Action {
    let unready = |condition: &k8s_openapi::api::core::v1::PodCondition| {
        let mut condition = condition.clone();
        if condition.type_ == "Ready" {
            condition.status = "False".into();
            condition.last_transition_time = Some(Time(now));
        }
        json!(condition)
    };
    let conditions: Vec<Value> =
        pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).map(unready).collect();
    // A list is replaced as a whole: not over what the kubelet has written meanwhile.
    let patch = json!({
        "metadata": {"resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": conditions},
    });
    Action::patch_in("status", pod, patch).telling(Note::warning(pod, "NodeNotReady", "Node is not ready"))
}

#[cfg(test)]
mod tests;
