//! One pass over one Deployment: its ReplicaSets as they are and as they should become.

use std::sync::Arc;

use client::controller::{Action, Decision, Failure, Note};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec},
        core::v1::Pod,
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, Time},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt;

use super::{Observed, conditions, revision, template};
use crate::{ownership, pod::PodFacts};

/// "No limit", for history and deadline.
const UNLIMITED: i32 = i32::MAX;

/// A ReplicaSet: as the cache has it, and as this pass wants it.
#[derive(Clone)]
pub(super) struct Planned {
    /// `None`: to be created.
    before: Option<Arc<ReplicaSet>>,
    pub set: ReplicaSet,
    delete: bool,
}

impl Planned {
    fn existing(set: Arc<ReplicaSet>) -> Self {
        Self { set: ReplicaSet::clone(&set), before: Some(set), delete: false }
    }

    pub fn replicas(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    pub fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    /// Pods that exist, which may be more or fewer than wanted.
    pub fn actual(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |status| status.replicas)
    }

    pub fn is_active(&self) -> bool {
        self.replicas() > 0
    }

    pub fn age(&self) -> (Option<&Time>, Option<&String>) {
        (self.set.metadata.creation_timestamp.as_ref(), self.set.metadata.name.as_ref())
    }

    /// Nothing runs, nothing should, and its controller knows.
    fn is_empty(&self) -> bool {
        let observed = self.set.status.as_ref().and_then(|status| status.observed_generation);
        self.actual() == 0 && self.replicas() == 0 && observed >= self.set.metadata.generation
    }
}

pub(super) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    /// The one with the Deployment's template.
    pub new: Option<Planned>,
    /// All others, oldest first.
    pub old: Vec<Planned>,
    /// As it will be written; starts as it was.
    pub status: DeploymentStatus,
    namesake: Option<&'a Arc<ReplicaSet>>,
    pub failure: Option<&'a Failure>,
    pub now: Timestamp,
    collided: bool,
    pub why: Vec<Note>,
}

impl<'a> Rollout<'a> {
    pub fn new(observed: &'a Observed, owned: Vec<Arc<ReplicaSet>>, now: Timestamp) -> Self {
        let deployment = &*observed.deployment;
        let mut sets: Vec<Planned> = owned.into_iter().map(Planned::existing).collect();
        sets.sort_by(|a, b| a.age().cmp(&b.age()));
        let new = sets.iter().position(|planned| template::matches(deployment, &planned.set));
        Self {
            deployment,
            spec: deployment.spec.as_ref().unwrap_or(no_spec()),
            new: new.map(|position| sets.remove(position)),
            old: sets,
            status: deployment.status.clone().unwrap_or_default(),
            namesake: observed.namesake.as_ref(),
            failure: observed.failure.as_ref(),
            now,
            collided: false,
            why: Vec::new(),
        }
    }

    pub fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// Pods above and below `replicas` that a rolling update may use; never both zero.
    fn margins(&self) -> (i32, i32) {
        if super::is_recreate(self.deployment) {
            return (0, 0);
        }
        let rolling = self.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()), self.wanted(), true);
        let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), self.wanted(), false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    pub fn surge_max(&self) -> i32 {
        self.margins().0
    }

    pub fn unavailable_max(&self) -> i32 {
        self.margins().1.min(self.wanted())
    }

    pub fn all(&self) -> impl Iterator<Item = &Planned> {
        self.old.iter().chain(&self.new)
    }

    pub fn total(&self) -> i32 {
        self.all().map(Planned::replicas).sum()
    }

    pub fn progress_deadline_seconds(&self) -> Option<i32> {
        self.spec.progress_deadline_seconds.filter(|seconds| *seconds != UNLIMITED)
    }

    /// Brings annotations of the new ReplicaSet up to date, where there is one.
    pub fn find_new(&mut self) {
        let revision = self.next_revision();
        let Some(new) = &mut self.new else { return };
        revision::annotate(self.deployment, &mut new.set, revision);
        if let Some(spec) = &mut new.set.spec {
            spec.min_ready_seconds = self.spec.min_ready_seconds;
        }
        let name = new.set.name_any();
        if self.progress_deadline_seconds().is_some() && !self.has_condition("Progressing") {
            let message = format!("Found new replica set \"{name}\"");
            self.progress("True", conditions::FOUND_NEW, message);
        }
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|planned| revision::of(&planned.set)).max().unwrap_or(0) + 1
    }

    /// The new ReplicaSet, made where it is missing. `None` after a collision of hashes: then the next pass
    /// tries with another one.
    pub fn require_new(&mut self) -> Option<()> {
        if self.new.is_some() {
            self.find_new();
            return Some(());
        }
        if self.namesake.is_some() {
            self.status.collision_count = Some(self.status.collision_count.unwrap_or(0) + 1);
            self.collided = true;
            return None;
        }
        let mut set = self.new_set();
        revision::annotate(self.deployment, &mut set, self.next_revision());
        revision::plan(&mut set, self.wanted(), self.wanted() + self.surge_max());
        let name = set.name_any();
        self.new = Some(Planned { before: None, set, delete: false });
        if self.progress_deadline_seconds().is_some() {
            match self.failure.filter(|failure| failure.verb == "create") {
                None => self.progress("True", conditions::CREATED_NEW, format!("Created new replica set \"{name}\"")),
                Some(failure) => {
                    let message = format!("Failed to create new replica set \"{name}\": {}", failure.message);
                    self.progress("False", conditions::CREATE_ERROR, message);
                }
            }
        }
        Some(())
    }

    fn new_set(&self) -> ReplicaSet {
        let hash = template::hash(self.deployment);
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(template::HASH_LABEL.into(), hash.clone());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(template::HASH_LABEL.into(), hash);
        let metadata = ObjectMeta {
            name: Some(template::replica_set_name(self.deployment)),
            namespace: self.deployment.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![ownership::reference_to(self.deployment)]),
            ..ObjectMeta::default()
        };
        let spec = ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: self.spec.min_ready_seconds,
            selector,
            template: Some(template),
        };
        ReplicaSet { metadata, spec: Some(spec), status: None }
    }

    /// Plans a size. Annotations are only touched with the size, unless `always`.
    pub fn scale(&self, planned: &mut Planned, to: i32, always: bool) {
        if planned.replicas() == to && !always {
            return;
        }
        if let Some(spec) = &mut planned.set.spec {
            spec.replicas = Some(to);
        }
        revision::plan(&mut planned.set, self.wanted(), self.wanted() + self.surge_max());
    }

    /// Applies `sizes` to the old ReplicaSets, by position.
    pub fn scale_old(&mut self, sizes: impl IntoIterator<Item = (usize, i32)>) {
        for (position, size) in sizes {
            let mut planned = self.old[position].clone();
            self.scale(&mut planned, size, false);
            self.old[position] = planned;
        }
    }

    pub fn scale_new(&mut self, size: i32) {
        if let Some(mut planned) = self.new.take() {
            self.scale(&mut planned, size, false);
            self.new = Some(planned);
        }
    }

    /// All Pods of the old ReplicaSets leave, and only then the new one gets any.
    pub fn recreate(&mut self, pods: &[Arc<Pod>]) {
        self.find_new();
        if self.old.iter().any(Planned::is_active) {
            return self.scale_old((0..self.old.len()).map(|position| (position, 0)).collect::<Vec<_>>());
        }
        let new_uid = self.new.as_ref().and_then(|new| new.set.metadata.uid.as_deref()).unwrap_or_default();
        let is_old = |pod: &Pod| !pod.is_terminal() && !ownership::is_controlled_by(&pod.metadata, new_uid);
        if self.old.iter().any(|planned| planned.actual() > 0) || pods.iter().any(|pod| is_old(pod)) {
            return;
        }
        if self.require_new().is_none() {
            return;
        }
        self.scale_new(self.wanted());
        if self.is_complete(&self.status) {
            self.clean_up();
        }
    }

    /// Deletes the oldest of the empty ReplicaSets beyond the history limit.
    pub fn clean_up(&mut self) {
        let limit = self.spec.revision_history_limit.filter(|limit| *limit != UNLIMITED);
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return };
        let mut kept: Vec<&mut Planned> =
            self.old.iter_mut().filter(|planned| planned.set.metadata.deletion_timestamp.is_none()).collect();
        kept.sort_by_key(|planned| revision::of(&planned.set));
        let surplus = kept.len().saturating_sub(limit);
        kept.into_iter().take(surplus).filter(|planned| planned.is_empty()).for_each(|planned| planned.delete = true);
    }

    fn has_condition(&self, r#type: &str) -> bool {
        self.condition(r#type).is_some()
    }

    pub fn condition(&self, r#type: &str) -> Option<&DeploymentCondition> {
        self.status.conditions.iter().flatten().find(|condition| condition.type_ == r#type)
    }

    pub fn progress(&mut self, status: &str, reason: &str, message: String) {
        let condition = conditions::new("Progressing", status, reason, message, self.now);
        conditions::set(self.status.conditions.get_or_insert_default(), condition);
    }

    /// Writes what this pass planned.
    pub(super) fn decision(mut self) -> Decision {
        let mut decision = Decision::default();
        let created = self.new.as_ref().is_some_and(|new| new.before.is_none());
        let sets = self.new.iter().chain(&self.old);
        decision.actions.extend(sets.filter_map(|planned| action(self.deployment, planned)));
        decision.why = std::mem::take(&mut self.why);
        let revision = self
            .new
            .as_ref()
            .filter(|new| new.before.is_some())
            .and_then(|new| new.set.metadata.annotations.as_ref()?.get(revision::REVISION));
        let known =
            self.deployment.metadata.annotations.as_ref().and_then(|annotations| annotations.get(revision::REVISION));
        if let Some(revision) = revision.filter(|revision| !created && known != Some(*revision)) {
            // The Deployment changes with this, so its status has to wait for the next pass.
            let mut deployment = self.deployment.clone();
            deployment.metadata.annotations.get_or_insert_default().insert(revision::REVISION.into(), revision.clone());
            decision.actions.push(Action::replace(&deployment));
            return decision;
        }
        let status = Some(self.status).filter(|status| *status != DeploymentStatus::default());
        decision.status = Action::status(self.deployment, &Deployment { status, ..self.deployment.clone() });
        decision
    }

    pub(super) fn has_collided(&self) -> bool {
        self.collided
    }
}

fn no_spec() -> &'static DeploymentSpec {
    static NONE: std::sync::LazyLock<DeploymentSpec> = std::sync::LazyLock::new(DeploymentSpec::default);
    &NONE
}

/// A number, or a percentage of `of`, rounded up or down.
fn scaled(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(percent)) => {
            let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent * i64::from(of);
            let rounded = if up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

fn action(deployment: &Deployment, planned: &Planned) -> Option<Action> {
    let name = planned.set.name_any();
    let before = planned.before.as_deref();
    if planned.delete {
        return Some(Action::delete_at_revision(&planned.set));
    }
    let (from, to) = (before.and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0), planned.replicas());
    let action = match before {
        None => Action::create(&planned.set).failing(Note::warning(
            deployment,
            conditions::CREATE_ERROR,
            format!("Failed to create new replica set \"{name}\": "),
        )),
        Some(before) if *before == planned.set => return None,
        Some(_) => Action::replace(&planned.set),
    };
    let direction = if from < to { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
    Some(if from == to { action } else { action.telling(Note::normal(deployment, "ScalingReplicaSet", message)) })
}
