//! Counts for each PodDisruptionBudget how many of its Pods may be evicted now.
//!
//! Guarantees: `disruptionsAllowed` never lets the healthy Pods fall below what the budget demands.
//! Relies on:  the eviction subresource, which takes from `disruptionsAllowed` and notes the Pod as disrupted.

use std::{collections::BTreeMap, sync::Arc};

use api::selector::Selector;
use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness, Note},
    informer::{Change, Informer},
};
use futures::{FutureExt, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use crate::{
    caches::Caches,
    ownership::{controller_of, labels_of},
    pod::{PodFacts, count},
};

/// An evicted Pod that is still there after this was not deleted after all, and counts again.
const DELETION_MAX: SignedDuration = SignedDuration::from_mins(2);

/// A budget and its Pods.
pub struct Observed {
    budget: Arc<PodDisruptionBudget>,
    pods: Vec<Arc<Pod>>,
    /// How many Pods their controllers want, in sum.
    wanted: i32,
}

pub(crate) struct Budgets {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
}

fn selector(budget: &PodDisruptionBudget) -> Selector {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    Selector::from_api(selector).unwrap_or(Selector::Nothing)
}

impl Budgets {
    fn observe(&self, key: &Key) -> Option<Observed> {
        let budget = self.budgets.get(&key.namespace, &key.name)?;
        let selector = selector(&budget);
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selector.matches(labels_of(&pod.metadata)));
        Some(Observed { wanted: self.wanted(&pods), budget, pods })
    }

    /// The scale of each controller once; Pods whose controller has none count as themselves.
    fn wanted(&self, pods: &[Arc<Pod>]) -> i32 {
        let mut by_controller: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let (uid, scale) = self.scale(pod);
            let wanted = by_controller.entry(uid).or_default();
            *wanted = scale.unwrap_or(*wanted + 1);
        }
        by_controller.values().sum()
    }

    fn scale(&self, pod: &Pod) -> (String, Option<i32>) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let Some(owner) = controller_of(&pod.metadata) else { return (String::new(), None) };
        let set = Some(owner).filter(|owner| owner.kind == "ReplicaSet");
        let Some(set) = set.and_then(|owner| self.sets.get(namespace, &owner.name)) else {
            return (owner.uid.clone(), None);
        };
        let above = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
        match above.and_then(|owner| self.deployments.get(namespace, &owner.name)) {
            Some(deployment) => {
                (deployment.uid().unwrap_or_default(), deployment.spec.as_ref().and_then(|spec| spec.replicas))
            }
            None => (owner.uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas)),
        }
    }

    fn of_pod(&self, change: &Change<Pod>) -> Vec<Key> {
        let namespace = change.object().metadata.namespace.clone().unwrap_or_default();
        let mut budgets = self.budgets.in_namespace(&namespace);
        budgets.retain(|budget| {
            let selector = selector(budget);
            change.both().any(|pod| selector.matches(labels_of(&pod.metadata)))
        });
        budgets.iter().map(|budget| Key::of(&**budget)).collect()
    }

    /// The size that percentages refer to may have changed.
    fn of_namespace(&self, namespace: Option<&String>) -> Vec<Key> {
        let budgets = namespace.map(|namespace| self.budgets.in_namespace(namespace));
        budgets.iter().flatten().map(|budget| Key::of(&**budget)).collect()
    }
}

impl Controller for Budgets {
    const NAME: &'static str = "disruption";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        Ok(self.observe(key))
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Decision {
        decide(observed, now)
    }
}

pub(crate) fn run(caches: &Caches, context: Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let controller = Budgets {
        budgets: caches.disruption_budgets(),
        pods: caches.pods(),
        sets: caches.replica_sets(),
        deployments: caches.deployments(),
    };
    let (budgets, pods) = (controller.budgets.clone(), controller.pods.clone());
    let deployments = controller.deployments.clone();
    Harness::new(controller)
        .watch(&budgets, |_, change| [Key::of(&**change.object())])
        .watch(&pods, Budgets::of_pod)
        .watch(&deployments, |this: &Budgets, change: &Change<Deployment>| {
            this.of_namespace(change.object().metadata.namespace.as_ref())
        })
        .run(context, stop)
        .boxed()
}

fn decide(observed: &Observed, now: Timestamp) -> Decision {
    let budget = &*observed.budget;
    let mut decision = Decision::default();
    if budget.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let (expected, desired) = demand(observed);
    let old = budget.status.clone().unwrap_or_default();
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    disrupted.retain(|name, since| {
        let pod = observed.pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(name) && !pod.is_leaving());
        let Some(pod) = pod else { return false };
        let deadline = since.0 + DELETION_MAX;
        let is_awaited = now < deadline;
        if is_awaited {
            decision.check_again(Some(deadline));
        } else {
            let message = "Pod was expected by PDB to be deleted but it wasn't";
            decision.why.push(Note::warning(&**pod, "NotDeleted", message));
        }
        is_awaited
    });
    let is_healthy = |pod: &&Arc<Pod>| {
        let is_disrupted = pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name));
        !pod.is_leaving() && !is_disrupted && pod.is_ready()
    };
    let healthy = count(observed.pods.iter().filter(is_healthy).count());
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions(old.conditions.unwrap_or_default(), allowed > 0, budget.metadata.generation, now)),
    };
    let new = PodDisruptionBudget { status: Some(status), ..budget.clone() };
    decision.status = Action::status(budget, &new);
    decision
}

/// Pods that count, and how many of them must stay healthy.
fn demand(observed: &Observed) -> (i32, i32) {
    let spec = observed.budget.spec.as_ref();
    let min_available = spec.and_then(|spec| spec.min_available.as_ref());
    let max_unavailable = spec.and_then(|spec| spec.max_unavailable.as_ref());
    match (max_unavailable, min_available) {
        (Some(unavailable), _) => {
            let wanted = observed.wanted;
            (wanted, (wanted - scaled(unavailable, wanted)).max(0))
        }
        (None, Some(IntOrString::Int(number))) => (count(observed.pods.len()), *number),
        (None, Some(percent)) => (observed.wanted, scaled(percent, observed.wanted)),
        (None, None) => (count(observed.pods.len()), 0),
    }
}

/// A number, or a percentage rounded up.
fn scaled(value: &IntOrString, of: i32) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(percent) => {
            let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(0);
            i32::try_from((percent * i64::from(of) + 99).div_euclid(100)).unwrap_or(i32::MAX)
        }
    }
}

fn conditions(mut all: Vec<Condition>, is_allowed: bool, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let (status, reason) = if is_allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let old = all.iter().find(|condition| condition.type_ == "DisruptionAllowed" && condition.status == status);
    let since = old.map_or(Time(now), |condition| condition.last_transition_time.clone());
    all.retain(|condition| condition.type_ != "DisruptionAllowed");
    all.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: generation,
    });
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// `expected`, `desired`, `healthy` and `allowed`.
    fn check(spec: Value, ready: &[bool], disrupted: Value) -> [i32; 4] {
        let budget = json!({
            "metadata": {"name": "b", "namespace": "d"}, "spec": spec,
            "status": {"disruptedPods": disrupted, "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
        });
        let pods = ready.iter().enumerate().map(|(n, ready)| {
            let status = if *ready { "True" } else { "False" };
            let pod = json!({"metadata": {"name": format!("p{n}")}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
            Arc::new(serde_json::from_value(pod).unwrap())
        });
        let budget = Arc::new(serde_json::from_value(budget).unwrap());
        let observed = Observed { budget, pods: pods.collect(), wanted: count(ready.len()) };
        let action = decide(&observed, Timestamp::UNIX_EPOCH).status.unwrap();
        let client::controller::Verb::Replace { object, .. } = action.verb else { panic!("{action}") };
        let number = |field: &str| i32::try_from(object["status"][field].as_i64().unwrap()).unwrap();
        ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"].map(number)
    }

    #[test]
    fn evictions_are_allowed_down_to_what_the_budget_demands() {
        let none = Value::Null;
        assert_eq!(check(json!({"minAvailable": 2}), &[true, true, true], none.clone()), [3, 2, 3, 1]);
        assert_eq!(check(json!({"minAvailable": "50%"}), &[true, true, false], none.clone()), [3, 2, 2, 0]);
        assert_eq!(check(json!({"maxUnavailable": 1}), &[true, true, true], none.clone()), [3, 2, 3, 1]);
        assert_eq!(check(json!({"maxUnavailable": 1}), &[], none), [0, 0, 0, 0]);
        let leaving = json!({"p0": "1970-01-01T00:00:00Z"});
        assert_eq!(check(json!({"maxUnavailable": 1}), &[true, true, true], leaving), [3, 2, 2, 0]);
    }
}
