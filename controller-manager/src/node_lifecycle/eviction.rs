//! Deletes Pods that do not tolerate their Node's `NoExecute` taints, or no longer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness, Note},
    informer::{Change, Informer},
};
use clock::Clock;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::taints::NO_EXECUTE;
use crate::{
    caches::{BY_NODE, Caches},
    pod::PodFacts,
};

const REASON: &str = "TaintManagerEviction";

/// What there is about one Pod.
pub enum Observed {
    /// Its Node has such taints; it tolerates them until this moment.
    Threatened { pod: Arc<Pod>, until: Timestamp },
    /// The taints have gone, or it tolerates them for ever now, before its time was up.
    Saved(Arc<Pod>),
}

pub(crate) struct TaintEviction {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    clock: Clock,
    /// The uid of each Pod that a taint will drive out, and since when we know it.
    threatened: Mutex<HashMap<Key, (String, Timestamp)>>,
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
}

impl TaintEviction {
    fn observe(&self, key: &Key) -> Option<Observed> {
        let mut threatened = self.threatened.lock();
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|pod| !pod.is_leaving()) else {
            threatened.remove(key);
            return None;
        };
        let uid = pod.uid().unwrap_or_default();
        let known = threatened.remove(key).filter(|(known, _)| *known == uid);
        let taints = self.nodes.get("", pod.node_name()).map(|node| no_execute(&node)).unwrap_or_default();
        let Some(time) = tolerated(&pod, &taints) else {
            return known.map(|_| Observed::Saved(pod));
        };
        let since = known.map_or_else(|| self.clock.now(), |(_, since)| since);
        threatened.insert(key.clone(), (uid, since));
        Some(Observed::Threatened { pod, until: since + time })
    }

    fn of_pod(&self, change: &Change<Pod>) -> Option<Key> {
        let pod = change.object();
        let key = Key::of(&**pod);
        let is_concerned = self.threatened.lock().contains_key(&key)
            || self.nodes.get("", pod.node_name()).is_some_and(|node| !no_execute(&node).is_empty());
        is_concerned.then_some(key)
    }

    fn of_node(&self, change: &Change<Node>) -> Vec<Key> {
        let Change::Applied { old, new } = change else { return Vec::new() };
        let old = old.as_ref().map(|old| no_execute(old)).unwrap_or_default();
        if old == no_execute(new) {
            return Vec::new();
        }
        self.pods.indexed(BY_NODE, &new.name_any()).iter().map(|pod| Key::of(&**pod)).collect()
    }
}

impl Controller for TaintEviction {
    const NAME: &'static str = "taint_eviction";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        Ok(self.observe(key))
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Decision {
        decide(observed, now)
    }
}

pub(super) fn run(
    caches: &Caches,
    context: Context,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let controller = TaintEviction {
        pods: caches.pods(),
        nodes: caches.nodes(),
        clock: context.clock.clone(),
        threatened: Mutex::default(),
    };
    let (pods, nodes) = (controller.pods.clone(), controller.nodes.clone());
    let harness = Harness::new(controller).watch(&pods, TaintEviction::of_pod).watch(&nodes, TaintEviction::of_node);
    harness.run(context, stop)
}

/// How long a Pod may stay on a Node with these taints: the shortest time of the tolerations that cover one, zero
/// where one is not covered; `None` for ever.
fn tolerated(pod: &Pod, taints: &[Taint]) -> Option<Duration> {
    let tolerations: Vec<&Toleration> = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).collect();
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let Some(first) = tolerations.iter().find(|toleration| covers(toleration, taint)) else {
            return Some(Duration::ZERO);
        };
        shortest = shortest.into_iter().chain(first.toleration_seconds).min();
    }
    shortest.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let any_or = |field: &Option<String>, of: &str| field.as_deref().is_none_or(|text| text.is_empty() || text == of);
    let has_same_value =
        || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    any_or(&toleration.effect, &taint.effect)
        && any_or(&toleration.key, &taint.key)
        && match toleration.operator.as_deref().unwrap_or("Equal") {
            "" | "Equal" => has_same_value(),
            operator => operator == "Exists",
        }
}

fn decide(observed: &Observed, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    match observed {
        Observed::Saved(pod) => {
            let message = format!("Cancelling deletion of Pod {}", Key::of(&**pod));
            decision.why.push(Note::normal(&**pod, REASON, message));
        }
        Observed::Threatened { until, .. } if now < *until => decision.check_again_at = Some(*until),
        Observed::Threatened { pod, .. } => {
            let message = format!("Marking for deletion Pod {}", Key::of(&**pod));
            decision.actions.push(Action::patch_in("status", &**pod, disrupted(pod, now)));
            decision.actions.push(Action::delete(&**pod).telling(Note::normal(&**pod, REASON, message)));
        }
    }
    decision
}

/// The status of a Pod that is driven out.
fn disrupted(pod: &Pod, now: Timestamp) -> Value {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(now),
    });
    let others = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let others = others.filter(|condition| condition.type_ != "DisruptionTarget").map(|condition| json!(condition));
    let metadata = json!({"resourceVersion": pod.metadata.resource_version});
    json!({"metadata": metadata, "status": {"conditions": others.chain([condition]).collect::<Vec<_>>()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(tolerations: Value) -> Pod {
        let json = json!({"metadata": {"namespace": "n", "name": "p", "uid": "u"}, "spec": {"containers": [],
            "nodeName": "a", "tolerations": tolerations}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_shortest_time_counts_and_every_taint_must_be_covered() {
        let taint = |key: &str| Taint { key: key.into(), effect: NO_EXECUTE.into(), ..Taint::default() };
        let both = [taint("x"), taint("y")];
        let seconds = |tolerations: Value| tolerated(&pod(tolerations), &both).map(|time| time.as_secs());
        let x = json!({"key": "x", "operator": "Exists", "effect": NO_EXECUTE, "tolerationSeconds": 30});
        let y = json!({"key": "y", "operator": "Exists", "tolerationSeconds": 10});
        assert_eq!(seconds(json!([x, y])), Some(10));
        assert_eq!(seconds(json!([x])), Some(0), "y is not covered");
        assert_eq!(seconds(json!([{"operator": "Exists"}])), None);
        assert_eq!(seconds(json!([x, {"operator": "Exists"}])), Some(30), "one covers for ever, the other does not");
        assert_eq!(seconds(json!([{"key": "x", "value": "v"}, y])), Some(0), "another value");
        assert_eq!(seconds(json!([{"operator": "Exists", "tolerationSeconds": -1}])), Some(0));
        assert_eq!(tolerated(&pod(json!([])), &[]), None);
    }

    #[test]
    fn a_pod_goes_when_its_time_is_up() {
        let now = Timestamp::UNIX_EPOCH;
        let until = |seconds| {
            let until = now + Duration::from_secs(seconds);
            decide(&Observed::Threatened { pod: Arc::new(pod(json!([]))), until }, now)
        };
        let waits = until(5);
        assert!(waits.actions.is_empty() && waits.check_again_at == Some(now + Duration::from_secs(5)));
        let goes = until(0);
        let verbs: Vec<&str> = goes.actions.iter().map(|action| action.verb.name()).collect();
        assert_eq!(verbs, ["patch", "delete"]);
        let note = goes.actions[1].success.as_ref().unwrap();
        assert_eq!((note.reason, note.message.as_str()), (REASON, "Marking for deletion Pod n/p"));
        let saved = decide(&Observed::Saved(Arc::new(pod(json!([])))), now);
        assert_eq!(saved.why[0].message, "Cancelling deletion of Pod n/p");
    }
}
