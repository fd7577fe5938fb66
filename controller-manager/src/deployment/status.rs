//! The status of a Deployment: counts, availability, progress and its deadline.

use client::controller::Decision;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSetCondition};
use kube::ResourceExt;

use super::{
    conditions,
    rollout::{Planned, Rollout},
};
use crate::pod::nonzero;

impl Rollout<'_> {
    /// Pausing and resuming stop the progress clock.
    pub fn note_pause(&mut self) {
        let reason = self.condition("Progressing").and_then(|condition| condition.reason.as_deref());
        if self.progress_deadline_seconds().is_none() || reason == Some(conditions::TIMED_OUT) {
            return;
        }
        match (super::is_paused(self.deployment), reason == Some(conditions::PAUSED)) {
            (true, false) => self.progress("Unknown", conditions::PAUSED, "Deployment is paused".into()),
            (false, true) => self.progress("Unknown", conditions::RESUMED, "Deployment is resumed".into()),
            _ => (),
        }
    }

    /// Every wanted Pod is of the new template and available, and no other exists.
    pub fn is_complete(&self, status: &DeploymentStatus) -> bool {
        let all = |count: Option<i32>| count.unwrap_or(0) == self.wanted();
        all(status.updated_replicas)
            && all(status.replicas)
            && all(status.available_replicas)
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// Ends a pass that took no step of a rollout.
    pub fn finish_resize(mut self) -> Decision {
        self.count();
        self.decision()
    }

    /// Ends a pass of a rollout.
    pub fn finish(mut self) -> Decision {
        if self.has_collided() {
            return self.decision();
        }
        let old = self.deployment.status.clone().unwrap_or_default();
        let reason = self.condition("Progressing").and_then(|condition| condition.reason.clone());
        self.count();
        let is_settled =
            self.status.replicas == self.status.updated_replicas && reason.as_deref() == Some(conditions::COMPLETE);
        match self.progress_deadline_seconds() {
            None => conditions::remove(self.status.conditions.get_or_insert_default(), "Progressing"),
            Some(seconds) if !is_settled => self.judge_progress(&old, seconds),
            Some(_) => (),
        }
        self.copy_replica_failure();
        let deadline = self.deadline();
        let mut decision = self.decision();
        decision.check_again(deadline);
        decision
    }

    fn count(&mut self) {
        let sum = |of: fn(&Planned) -> i32| nonzero(self.all().map(of).sum());
        let available = sum(Planned::available);
        let unavailable = (self.total() - available.unwrap_or(0)).max(0);
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: sum(Planned::actual),
            updated_replicas: nonzero(self.new.as_ref().map_or(0, Planned::actual)),
            ready_replicas: sum(|planned| {
                planned.set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
            }),
            available_replicas: available,
            unavailable_replicas: nonzero(unavailable),
            terminating_replicas: self.terminating(),
            collision_count: self.status.collision_count,
            conditions: self.status.conditions.take(),
        };
        let (is, reason, message) = if available.unwrap_or(0) >= self.wanted() - self.unavailable_max() {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        let condition = conditions::new("Available", is, reason, message.into(), self.now);
        conditions::set(status.conditions.get_or_insert_default(), condition);
        self.status = status;
    }

    /// Unknown as long as one ReplicaSet's controller has not counted.
    fn terminating(&self) -> Option<i32> {
        let mut sum = 0;
        for planned in self.all() {
            let status = planned.set.status.as_ref();
            let is_counted = status.and_then(|status| status.observed_generation).unwrap_or(0) != 0;
            match status.and_then(|status| status.terminating_replicas) {
                Some(count) => sum += count,
                None if is_counted => return None,
                None => (),
            }
        }
        Some(sum)
    }

    fn judge_progress(&mut self, old: &DeploymentStatus, deadline_seconds: i32) {
        let subject = match &self.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.set.name_any()),
            None => format!("Deployment \"{}\"", self.deployment.name_any()),
        };
        if self.is_complete(&self.status) {
            self.progress("True", conditions::COMPLETE, format!("{subject} has successfully progressed."));
        } else if has_progressed(old, &self.status) {
            self.renew_progress(format!("{subject} is progressing."));
        } else if self.has_timed_out(deadline_seconds) {
            self.progress("False", conditions::TIMED_OUT, format!("{subject} has timed out progressing."));
        }
    }

    /// Every sign of progress restarts the clock, also when the reason stays the same.
    fn renew_progress(&mut self, message: String) {
        let mut condition = conditions::new("Progressing", "True", conditions::UPDATED, message, self.now);
        let known = self.condition("Progressing").filter(|known| known.status == "True");
        if let Some(since) = known.and_then(|known| known.last_transition_time.clone()) {
            condition.last_transition_time = Some(since);
        }
        let all = self.status.conditions.get_or_insert_default();
        conditions::remove(all, "Progressing");
        all.push(condition);
    }

    fn has_timed_out(&self, deadline_seconds: i32) -> bool {
        let Some(condition) = self.condition("Progressing") else { return false };
        match condition.reason.as_deref() {
            Some(conditions::COMPLETE) => false,
            Some(conditions::TIMED_OUT) => true,
            _ => after(condition, deadline_seconds).is_some_and(|deadline| deadline < self.now),
        }
    }

    /// When progress has to be judged again although nothing happened.
    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.progress_deadline_seconds()?;
        let condition = self.condition("Progressing")?;
        if self.is_complete(&self.status) || condition.reason.as_deref() == Some(conditions::TIMED_OUT) {
            return None;
        }
        // Conditions keep whole seconds: a second later the deadline has passed for certain.
        Some(after(condition, seconds)? + SignedDuration::from_secs(1))
    }

    fn copy_replica_failure(&mut self) {
        let failure_of = |planned: &Planned| {
            let mut conditions = planned.set.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.find(|condition| condition.type_ == "ReplicaFailure").cloned()
        };
        let failure = self.new.iter().chain(&self.old).find_map(failure_of);
        let all = self.status.conditions.get_or_insert_default();
        match failure {
            Some(failure) => conditions::set(all, copied(failure)),
            None => conditions::remove(all, "ReplicaFailure"),
        }
    }
}

fn copied(failure: ReplicaSetCondition) -> DeploymentCondition {
    DeploymentCondition {
        type_: failure.type_,
        status: failure.status,
        reason: failure.reason,
        message: failure.message,
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time,
    }
}

fn after(condition: &DeploymentCondition, seconds: i32) -> Option<Timestamp> {
    let since = condition.last_update_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

/// More new Pods, fewer old ones, or more that are ready or available.
fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let is_more = |count: fn(&DeploymentStatus) -> Option<i32>| count(new).unwrap_or(0) > count(old).unwrap_or(0);
    let of_old_sets = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    is_more(|status| status.updated_replicas)
        || is_more(|status| status.ready_replicas)
        || is_more(|status| status.available_replicas)
        || of_old_sets(new) < of_old_sets(old)
}
