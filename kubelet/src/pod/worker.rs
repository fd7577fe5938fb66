//! The task that owns a Pod: observe, decide, publish, act; then wait for the next change or deadline.
//!
//! It takes the newest object from the API and the newest view from the runtime, never a history of events, so that
//! many changes in a row cost one round and a restart of the kubelet is just another round.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::informer::revision_of;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use tokio::sync::{Notify, watch};

use super::{
    backoff::Backoff,
    is_terminal,
    kill::Kills,
    lifecycle::{self, Desired, Lifecycle, Verdict},
    name, namespace,
    plan::{self, Blocked, Plan, PodAction},
    status,
    status_patch::status_patch,
    termination_message, uid,
};
use crate::{
    Kubelet,
    probe::{Probes, Surroundings},
    runtime::{ContainerState, PodView, RuntimeError},
    volume::{self, PodVolumes},
};

/// After a failed round; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Between two measurements of emptyDirs that have a limit.
const SIZE_CHECK: Duration = Duration::from_secs(15);

/// What the API says, newest only.
#[derive(Clone)]
pub struct Mail {
    pub pod: Arc<Pod>,
    pub desired: Desired,
}

/// A round could not be finished; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    #[error("container runtime")]
    Runtime(#[from] RuntimeError),
    #[error("API server")]
    Api(#[from] kube::Error),
    #[error("the Pod's folder")]
    Disk(#[from] std::io::Error),
}

pub struct Worker {
    pub(super) kubelet: Arc<Kubelet>,
    mailbox: watch::Receiver<Mail>,
    pub(super) wake: Arc<Notify>,
    pub(super) pod: Arc<Pod>,
    pub(super) desired: Desired,
    /// The Pod as our last write left it; newer than the mailbox for a moment.
    written: Option<Arc<Pod>>,
    pub(super) lifecycle: Lifecycle,
    verdict: Option<Verdict>,
    pub(super) backoff: Backoff,
    pub(super) blocked: BTreeMap<String, Blocked>,
    pub(super) kills: Kills,
    pub(super) probes: Probes,
    pub(super) volumes: PodVolumes,
    /// Termination messages by container id.
    messages: BTreeMap<String, String>,
    /// Until when a back-off has been told in an event, by container.
    pub(super) told: BTreeMap<String, Timestamp>,
    /// Attempts to make sandbox and volumes that failed in a row.
    pub(super) sandbox_failures: u32,
    sizes_checked_at: Timestamp,
    deleted: bool,
}

impl Worker {
    pub fn new(
        kubelet: Arc<Kubelet>,
        mailbox: watch::Receiver<Mail>,
        wake: Arc<Notify>,
        verdict: Option<Verdict>,
    ) -> Self {
        let Mail { pod, desired } = mailbox.borrow().clone();
        let around = Surroundings {
            runtime: kubelet.runtime.clone(),
            recorder: kubelet.recorder.clone(),
            clock: kubelet.clock.clone(),
            chance: kubelet.chance.clone(),
            node_ip: kubelet.host_ips().first().map(ToString::to_string).unwrap_or_default(),
            hollow: kubelet.config.hollow,
        };
        let kills = Kills::new(kubelet.runtime.clone(), kubelet.recorder.clone(), kubelet.clock.clone(), wake.clone());
        Self {
            probes: Probes::new(around, wake.clone()),
            volumes: PodVolumes::new(kubelet.pod_dir(uid(&pod))),
            kills,
            mailbox,
            wake,
            pod,
            desired,
            written: None,
            lifecycle: Lifecycle::Running,
            verdict,
            backoff: Backoff::default(),
            blocked: BTreeMap::new(),
            messages: BTreeMap::new(),
            told: BTreeMap::new(),
            sandbox_failures: 0,
            sizes_checked_at: kubelet.clock.now(),
            deleted: false,
            kubelet,
        }
    }

    /// Runs until nothing is left of the Pod on this node.
    pub async fn run(mut self) {
        let mut retry = RETRY_MIN;
        while self.lifecycle != Lifecycle::Finished {
            let next = match self.round().await {
                Ok(next) => {
                    retry = RETRY_MIN;
                    next
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(pod = name(&self.pod), namespace = namespace(&self.pod), error, "will try again");
                    let next = self.kubelet.clock.now() + retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    Some(next)
                }
            };
            let sleep = next.map(|next| self.kubelet.clock.until(next));
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            }
        }
    }

    /// Rounds until nothing is left to do now; says when to look again.
    async fn round(&mut self) -> Result<Option<Timestamp>, RoundError> {
        loop {
            self.take_mail();
            let view = self.kubelet.runtime.pod(uid(&self.pod)).await?;
            self.read_messages(&view).await;
            self.probes.observe(&self.pod, &view, self.lifecycle != Lifecycle::Running);
            self.judge();
            let before = self.lifecycle.clone();
            let plan = self.decide(&view);
            self.publish(&view, &plan).await?;
            if self.lifecycle == Lifecycle::Finished {
                return Ok(None);
            }
            let acted = self.act(&plan, &view).await?;
            if self.lifecycle == Lifecycle::Terminated && self.desired != Desired::Present {
                self.finish(&view).await?;
            }
            let moved = std::mem::discriminant(&before) != std::mem::discriminant(&self.lifecycle);
            if !acted && !moved {
                return Ok(self.look_again_at(&plan));
            }
        }
    }

    /// The newest object; our own last write counts as well.
    fn take_mail(&mut self) {
        let Mail { pod, desired } = self.mailbox.borrow_and_update().clone();
        self.desired = desired;
        let newer = self.written.take().filter(|written| revision_of(&**written) > revision_of(&*pod));
        self.pod = newer.clone().unwrap_or(pod);
        self.written = newer;
        if self.desired != Desired::Gone && self.lifecycle == Lifecycle::Running {
            self.kubelet.sources.track(&self.pod, !self.kubelet.config.hollow, &self.wake);
        }
    }

    async fn read_messages(&mut self, view: &PodView) {
        let ended = view.containers.iter().filter(|container| container.state == ContainerState::Exited);
        let new: Vec<_> = ended.filter(|container| !self.messages.contains_key(&container.id)).collect();
        let pod_dir = self.kubelet.pod_dir(uid(&self.pod));
        for container in new {
            let message = termination_message::read(&*self.kubelet.runtime, &pod_dir, container).await;
            self.messages.insert(container.id.clone(), message);
        }
        self.messages.retain(|id, _| view.containers.iter().any(|container| container.id == *id));
    }

    /// Reasons of this node's own to stop the Pod.
    fn judge(&mut self) {
        let now = self.kubelet.clock.now();
        if self.verdict.is_some() || self.lifecycle != Lifecycle::Running || self.desired != Desired::Present {
            return;
        }
        self.verdict = lifecycle::past_deadline(&self.pod, now);
        let measure = !self.kubelet.config.hollow && volume::has_size_limits(&self.pod);
        if self.verdict.is_none() && measure && now >= self.sizes_checked_at + SIZE_CHECK {
            self.sizes_checked_at = now;
            let sentence = volume::exceeded_size_limit(&self.kubelet.pod_dir(uid(&self.pod)), &self.pod);
            self.verdict = sentence.map(|message| Verdict { reason: "Evicted".into(), message });
        }
        if let Some(verdict) = &self.verdict {
            let about = crate::events::about_pod(&self.pod);
            let r#type = client::events::EventType::Warning;
            self.kubelet.recorder.event(about, r#type, &verdict.reason, verdict.message.clone());
        }
    }

    fn decide(&mut self, view: &PodView) -> Plan {
        let killing = self.kills.ids();
        let now = self.kubelet.clock.now();
        let plan = match self.lifecycle {
            Lifecycle::Running => plan::plan(&plan::Observed {
                pod: &self.pod,
                view,
                probes: &self.probes.results(),
                backoff: &self.backoff,
                blocked: &self.blocked,
                killing: &killing,
                now,
            }),
            _ => Plan::default(),
        };
        let stop = plan.ended || self.verdict.is_some();
        self.lifecycle = lifecycle::step(&self.lifecycle, &self.pod, self.desired, stop, view, now);
        match &self.lifecycle {
            Lifecycle::Running => plan,
            Lifecycle::Terminating { deadline } => {
                self.kills.hasten(*deadline);
                lifecycle::terminate(&self.pod, view, &killing)
            }
            Lifecycle::Terminated if self.desired == Desired::Present => Plan {
                actions: view.sandboxes.iter().map(|s| PodAction::RemoveSandbox { id: s.id.clone() }).collect(),
                ..Plan::default()
            },
            // Removed in `finish`, after the last status is written.
            Lifecycle::Terminated | Lifecycle::Finished => Plan::default(),
        }
    }

    /// Writes the status, if it changed.
    pub(super) async fn publish(&mut self, view: &PodView, plan: &Plan) -> Result<(), RoundError> {
        // The end is told once; later the runtime may have forgotten what the status still shows.
        let settled = self.lifecycle == Lifecycle::Terminated && is_terminal(&self.pod) && !shows_running(&self.pod);
        if self.desired == Desired::Gone || self.deleted || settled {
            return Ok(());
        }
        let old = self.pod.status.clone().unwrap_or_default();
        let new = self.status(view, plan);
        let Some(patch) = status_patch(uid(&self.pod), &old, &new) else { return Ok(()) };
        let api: Api<Pod> = Api::namespaced(self.kubelet.client.clone(), namespace(&self.pod));
        match api.patch_status(name(&self.pod), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(written) => {
                let written = Arc::new(written);
                self.pod = written.clone();
                self.written = Some(written);
                Ok(())
            }
            // It is gone, or a namesake has its place: the watch will say so.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn status(&self, view: &PodView, plan: &Plan) -> PodStatus {
        status::pod_status(&status::Observed {
            pod: &self.pod,
            view,
            probes: &self.probes.results(),
            waiting: &plan.waiting,
            lifecycle: &self.lifecycle,
            verdict: self.verdict.as_ref(),
            host_ips: self.kubelet.host_ips(),
            messages: &self.messages,
            now: self.kubelet.clock.now(),
        })
    }

    /// Everything has ended and the status says so: clean up, then let the API object go.
    async fn finish(&mut self, view: &PodView) -> Result<(), RoundError> {
        for action in lifecycle::clean_up(view).actions {
            match action {
                PodAction::RemoveContainer { id } => self.kubelet.runtime.remove_container(&id).await?,
                PodAction::RemoveSandbox { id } => self.kubelet.runtime.remove_pod_sandbox(&id).await?,
                _ => {}
            }
        }
        if !self.kubelet.config.hollow {
            self.volumes.clean().await?;
        }
        if self.desired == Desired::Gone {
            self.lifecycle = Lifecycle::Finished;
        } else if !self.deleted {
            self.delete().await?;
            self.deleted = true;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<(), RoundError> {
        let api: Api<Pod> = Api::namespaced(self.kubelet.client.clone(), namespace(&self.pod));
        let preconditions = Preconditions { uid: Some(uid(&self.pod).into()), ..Default::default() };
        let params =
            DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
        match api.delete(name(&self.pod), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn look_again_at(&self, plan: &Plan) -> Option<Timestamp> {
        if self.lifecycle != Lifecycle::Running {
            return None;
        }
        let sizes = !self.kubelet.config.hollow && volume::has_size_limits(&self.pod);
        let sizes = sizes.then(|| self.sizes_checked_at + SIZE_CHECK);
        let all = [plan.check_again_at, self.volumes.renew_at(), lifecycle::active_deadline(&self.pod), sizes];
        all.into_iter().flatten().min()
    }

    /// Deletion or disappearance: whatever takes long must be dropped.
    pub(super) fn has_to_stop(&self) -> impl Future<Output = ()> + use<> {
        let mut mailbox = self.mailbox.clone();
        async move {
            // The sender lives longer than the worker.
            let _ = mailbox.wait_for(|mail| mail.desired != Desired::Present).await;
        }
    }
}

/// Whether the API's status shows a container that runs.
fn shows_running(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    all.any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
}
