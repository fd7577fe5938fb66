//! Moves each Deployment's Pods to its template by scaling ReplicaSets: one per template, the newest wins.
//!
//! Guarantees: available Pods do not fall below `replicas - maxUnavailable` nor all Pods rise above
//! `replicas + maxSurge` by its own decisions; old ReplicaSets beyond the history limit are deleted only when empty.
//! Relies on:  the ReplicaSet controller for counts; nobody else scales ReplicaSets that a Deployment controls.

mod conditions;
mod revision;
mod rolling;
mod rollout;
mod scaling;
mod status;
mod template;

use std::sync::Arc;

use api::selector::Selector;
use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness, Note},
    informer::{Change, Informer},
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};
use tokio_util::sync::CancellationToken;

use self::rollout::Rollout;
use crate::{
    caches::Caches,
    ownership::{self, ORPHANS, controller_of, labels_of},
};

/// What there is about one Deployment.
pub struct Observed {
    deployment: Arc<Deployment>,
    /// ReplicaSets that it controls, and orphans of its namespace.
    candidates: Vec<Arc<ReplicaSet>>,
    /// Whatever has the name that a new ReplicaSet would get.
    namesake: Option<Arc<ReplicaSet>>,
    /// Pods of its ReplicaSets; only needed to recreate.
    pods: Vec<Arc<Pod>>,
    failure: Option<Failure>,
}

pub(crate) struct Deployments {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

impl Deployments {
    fn observe(&self, key: &Key, failure: Option<Failure>) -> Option<Observed> {
        let deployment = self.deployments.get(&key.namespace, &key.name)?;
        let mut candidates = self.sets.owned_by(deployment.metadata.uid.as_deref()?);
        let pods = match is_recreate(&deployment) {
            true => candidates
                .iter()
                .filter_map(|set| set.metadata.uid.clone())
                .flat_map(|uid| self.pods.owned_by(&uid))
                .collect(),
            false => Vec::new(),
        };
        candidates.extend(self.sets.indexed(ORPHANS, &key.namespace));
        let namesake = self.sets.get(&key.namespace, &template::replica_set_name(&deployment));
        Some(Observed { deployment, candidates, namesake, pods, failure })
    }

    fn of_replica_set(&self, change: &Change<ReplicaSet>) -> Vec<Key> {
        change.both().flat_map(|set| self.of_one_replica_set(set)).collect()
    }

    fn of_one_replica_set(&self, set: &ReplicaSet) -> Vec<Key> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        match controller_of(&set.metadata) {
            Some(owner) if owner.kind == "Deployment" => vec![Key::new(namespace, &owner.name)],
            Some(_) => Vec::new(),
            None => {
                let deployments = self.deployments.in_namespace(namespace);
                let matches = |deployment: &Deployment| selector(deployment).matches(labels_of(&set.metadata));
                deployments
                    .iter()
                    .filter(|deployment| matches(deployment))
                    .map(|deployment| Key::of(&**deployment))
                    .collect()
            }
        }
    }

    /// Recreation goes on when the last old Pod has ended.
    fn of_pod(&self, change: &Change<Pod>) -> Option<Key> {
        let pod = change.object();
        let has_ended = matches!(change, Change::Deleted(_)) || crate::pod::PodFacts::is_terminal(&**pod);
        let owner = controller_of(&pod.metadata).filter(|owner| has_ended && owner.kind == "ReplicaSet")?;
        let set = self.sets.get(pod.metadata.namespace.as_deref()?, &owner.name)?;
        let key = self.of_one_replica_set(&set).pop()?;
        let deployment = self.deployments.get(&key.namespace, &key.name)?;
        is_recreate(&deployment).then_some(key)
    }
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment";
    type Observed = Observed;

    async fn observe(&self, key: &Key, failure: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        Ok(self.observe(key, failure))
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Decision {
        decide(observed, now)
    }
}

pub(crate) fn run(caches: &Caches, context: Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let controller =
        Deployments { deployments: caches.deployments(), sets: caches.replica_sets(), pods: caches.pods() };
    let (deployments, sets, pods) = (controller.deployments.clone(), controller.sets.clone(), controller.pods.clone());
    let harness = Harness::new(controller);
    let harness = harness.watch(&deployments, |_, change| [Key::of(&**change.object())]);
    harness.watch(&sets, Deployments::of_replica_set).watch(&pods, Deployments::of_pod).run(context, stop).boxed()
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false)
}

fn selector(deployment: &Deployment) -> Selector {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    Selector::from_api(selector).unwrap_or(Selector::Nothing)
}

/// Adoption first; a Deployment that is paused or was scaled is only resized; otherwise the rollout goes on.
fn decide(observed: &Observed, now: Timestamp) -> Decision {
    let deployment = &*observed.deployment;
    let selector = selector(deployment);
    if selector.is_everything() {
        return select_all(deployment);
    }
    let claim = ownership::claim(deployment, &selector, &observed.candidates);
    if !claim.actions.is_empty() {
        return Decision { actions: claim.actions, ..Decision::default() };
    }
    let mut rollout = Rollout::new(observed, claim.owned, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        return rollout.finish_resize();
    }
    rollout.note_pause();
    if is_paused(deployment) || rollout.was_scaled() {
        rollout.find_new();
        rollout.resize();
        if is_paused(deployment) {
            rollout.clean_up();
        }
        return rollout.finish_resize();
    }
    if is_recreate(deployment) {
        rollout.recreate(&observed.pods);
    } else {
        rollout.roll();
    }
    rollout.finish()
}

fn select_all(deployment: &Deployment) -> Decision {
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation >= deployment.metadata.generation {
        return Decision::default();
    }
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    let status = DeploymentStatus { observed_generation: deployment.metadata.generation, ..status };
    Decision {
        status: Action::status(deployment, &Deployment { status: Some(status), ..deployment.clone() }),
        why: vec![Note::warning(deployment, "SelectingAll", message)],
        ..Decision::default()
    }
}

#[cfg(test)]
mod tests;
