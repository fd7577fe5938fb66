//! Keeps exactly `spec.replicas` Pods for each ReplicaSet.
//!
//! Guarantees: deletes only Pods that it owns, with their uid as precondition; in the end the count is right.
//! Relies on:  nobody else creates Pods with its controller reference; ended Pods are removed by others.

mod ranking;

use std::sync::Arc;

use api::selector::Selector;
use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness, Note},
    informer::{Change, Informer},
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use crate::{
    caches::Caches,
    ownership::{self, ORPHANS, controller_of, labels_of},
    pod::{PodFacts, count, nonzero},
};

/// Pods created or deleted in one pass over one ReplicaSet.
const BURST_PODS_MAX: usize = 500;
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What there is about one ReplicaSet.
pub struct Observed {
    set: Arc<ReplicaSet>,
    /// Pods that it controls, and orphans of its namespace.
    candidates: Vec<Arc<Pod>>,
    /// Active Pods of all ReplicaSets with the same owner: they should not crowd one node.
    related: Vec<Arc<Pod>>,
    failure: Option<Failure>,
}

pub(crate) struct ReplicaSets {
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

fn replicas(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

fn selector(set: &ReplicaSet) -> Selector {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    Selector::from_api(selector).unwrap_or(Selector::Nothing)
}

impl ReplicaSets {
    fn observe(&self, key: &Key, failure: Option<Failure>) -> Option<Observed> {
        let set = self.sets.get(&key.namespace, &key.name)?;
        let mut candidates = self.pods.owned_by(set.metadata.uid.as_deref()?);
        candidates.extend(self.pods.indexed(ORPHANS, &key.namespace));
        Some(Observed { related: self.related(&set, &candidates), set, candidates, failure })
    }

    fn related(&self, set: &ReplicaSet, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(&set.metadata) else { return own.to_vec() };
        let siblings = self.sets.owned_by(&owner.uid);
        let uids = siblings.iter().filter_map(|sibling| sibling.metadata.uid.clone());
        uids.flat_map(|uid| self.pods.owned_by(&uid)).collect()
    }

    /// The ReplicaSets that a change of a Pod concerns.
    fn of_pod(&self, change: &Change<Pod>) -> Vec<Key> {
        change.both().flat_map(|pod| self.of_one_pod(pod)).collect()
    }

    fn of_one_pod(&self, pod: &Pod) -> Vec<Key> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        match controller_of(&pod.metadata) {
            Some(owner) if owner.kind == "ReplicaSet" => vec![Key::new(namespace, &owner.name)],
            Some(_) => Vec::new(),
            None => {
                let sets = self.sets.in_namespace(namespace);
                let matching = sets.iter().filter(|set| selector(set).matches(labels_of(&pod.metadata)));
                matching.map(|set| Key::of(&**set)).collect()
            }
        }
    }
}

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset";
    type Observed = Observed;

    async fn observe(&self, key: &Key, failure: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        Ok(self.observe(key, failure))
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Decision {
        decide(observed, now)
    }
}

pub(crate) fn run(caches: &Caches, context: Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let controller = ReplicaSets { sets: caches.replica_sets(), pods: caches.pods() };
    let (sets, pods) = (controller.sets.clone(), controller.pods.clone());
    let harness = Harness::new(controller);
    let harness = harness.watch(&sets, |_, change| [Key::of(&**change.object())]);
    harness.watch(&pods, ReplicaSets::of_pod).run(context, stop).boxed()
}

/// Adoption and release first; then the count; the status always.
fn decide(observed: &Observed, now: Timestamp) -> Decision {
    let set = &*observed.set;
    let selector = selector(set);
    let alive: Vec<Arc<Pod>> = observed.candidates.iter().filter(|pod| !pod.is_terminal()).cloned().collect();
    let active: Vec<Arc<Pod>> = alive.iter().filter(|pod| pod.is_active()).cloned().collect();
    let claim = ownership::claim(set, &selector, &active);
    if !claim.actions.is_empty() {
        return Decision { actions: claim.actions, ..Decision::default() };
    }
    let owned = claim.owned;
    let terminating = alive.iter().filter(|pod| pod.is_leaving() && is_ours(set, &selector, pod)).count();
    let mut decision = Decision::default();
    if set.metadata.deletion_timestamp.is_none() {
        decision.actions = scale(set, &owned, &observed.related, now);
    }
    let status = status(set, &owned, terminating, observed.failure.as_ref(), now);
    let min_ready_seconds = min_ready_seconds(set);
    let becoming = owned.iter().filter_map(|pod| pod.available_at(min_ready_seconds)).filter(|at| *at > now).min();
    decision.check_again(becoming);
    decision.status = Action::status(set, &ReplicaSet { status: Some(status), ..set.clone() });
    decision
}

fn is_ours(set: &ReplicaSet, selector: &Selector, pod: &Pod) -> bool {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    ownership::is_controlled_by(&pod.metadata, uid) && selector.matches(labels_of(&pod.metadata))
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

fn scale(set: &ReplicaSet, owned: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Vec<Action> {
    let (wanted, have) = (replicas(set), owned.len());
    if have < wanted {
        let create = || {
            Action::create(&new_pod(set))
                .telling(Note::normal(set, "SuccessfulCreate", "Created pod: "))
                .failing(Note::warning(set, "FailedCreate", "Error creating: "))
        };
        return std::iter::repeat_with(create).take((wanted - have).min(BURST_PODS_MAX)).collect();
    }
    let surplus = ranking::surplus(owned, related, (have - wanted).min(BURST_PODS_MAX), now);
    let delete = |pod: Arc<Pod>| {
        Action::delete(&*pod)
            .telling(Note::normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any())))
            .failing(Note::warning(set, "FailedDelete", format!("Error deleting pod {}: ", pod.name_any())))
    };
    surplus.into_iter().map(delete).collect()
}

fn template(set: &ReplicaSet) -> PodTemplateSpec {
    set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
}

fn new_pod(set: &ReplicaSet) -> Pod {
    let template = template(set);
    let given = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", set.name_any())),
        namespace: set.namespace(),
        labels: given.labels,
        annotations: given.annotations,
        finalizers: given.finalizers,
        owner_references: Some(vec![ownership::reference_to(set)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec, status: None }
}

fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let template_labels = template(set).metadata.and_then(|meta| meta.labels).unwrap_or_default();
    let by_template = Selector::from_labels(&template_labels);
    let min_ready_seconds = min_ready_seconds(set);
    let number = |holds: &dyn Fn(&Pod) -> bool| nonzero(count(owned.iter().filter(|pod| holds(pod)).count()));
    ReplicaSetStatus {
        replicas: count(owned.len()),
        fully_labeled_replicas: number(&|pod| by_template.matches(labels_of(&pod.metadata))),
        ready_replicas: number(&|pod| pod.is_ready()),
        available_replicas: number(&|pod| pod.available_at(min_ready_seconds).is_some_and(|at| at <= now)),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions.unwrap_or_default(), failure),
    }
}

fn conditions(mut conditions: Vec<ReplicaSetCondition>, failure: Option<&Failure>) -> Option<Vec<ReplicaSetCondition>> {
    let is_known = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        Some(failure) if !is_known => {
            let reason = if failure.verb == "delete" { "FailedDelete" } else { "FailedCreate" };
            conditions.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(reason.into()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(Time(failure.at)),
            });
        }
        Some(_) => (),
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests;
