//! What to do next for a Pod that should run: spec and what is observed to actions. Pure.
//!
//! Order of life: sandbox, init containers one by one (sidecars stay), regular containers together. The plan is
//! made anew after each change, so it never remembers anything: a kubelet that starts in the middle goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    ContainerKind, as_container, backoff::Backoff, container_hash, container_restart_policy, ephemeral_containers,
    full_name, init_containers, is_sidecar, restart_policy, restarts, spec, uid,
};
use crate::{
    probe::ProbeResults,
    runtime::{ContainerState, ContainerStatus, PodView},
};

/// Incarnations of a container that are kept: the present one and the one before, for `logs --previous`.
const INCARNATIONS_KEPT: usize = 2;

/// Why a container is not running; becomes `state.waiting`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// A start that failed, not to be tried again before `until`.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    pub waiting: Waiting,
    pub until: Timestamp,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PodAction {
    CreateSandbox { attempt: u32 },
    RemoveSandbox { id: String },
    StartContainer { name: String, kind: ContainerKind, attempt: u32 },
    KillContainer { id: String, name: String, message: Option<String>, probe_grace_seconds: Option<i64> },
    RemoveContainer { id: String },
}

/// Everything the decision depends on.
pub struct Observed<'a> {
    pub pod: &'a Pod,
    pub view: &'a PodView,
    pub probes: &'a ProbeResults,
    pub backoff: &'a Backoff,
    /// By container name.
    pub blocked: &'a BTreeMap<String, Blocked>,
    /// Ids of containers that are being killed now.
    pub killing: &'a BTreeSet<String>,
    pub now: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<PodAction>,
    /// By container name: why it waits.
    pub waiting: BTreeMap<String, Waiting>,
    /// Look again then, if nothing happens before.
    pub check_again_at: Option<Timestamp>,
    /// Nothing runs and nothing will: the Pod has ended.
    pub ended: bool,
}

impl Plan {
    fn check_again(&mut self, at: Timestamp) {
        self.check_again_at = Some(self.check_again_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Key of the back-off of a container; another image starts afresh.
pub fn backoff_key(pod: &Pod, container: &Container) -> String {
    format!("{}_{}_{}", uid(pod), container.name, container_hash(container))
}

pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    match observed.view.ready_sandbox() {
        None => plan_sandbox(observed, &mut plan),
        Some(sandbox) => {
            let turn = Turn { observed, sandbox: &sandbox.id };
            turn.plan_ephemeral(&mut plan);
            match turn.plan_init(&mut plan) {
                Progress::Initialized => turn.plan_regular(&mut plan),
                Progress::Initializing => {}
                Progress::Failed => plan.ended = true,
            }
        }
    }
    plan_removals(observed, &mut plan);
    plan
}

/// No live sandbox: a new one, unless the Pod has nothing left to run.
fn plan_sandbox(observed: &Observed<'_>, plan: &mut Plan) {
    let view = observed.view;
    let stranded: Vec<&ContainerStatus> = view.running().collect();
    if !stranded.is_empty() {
        // They lost their network with the sandbox.
        for container in stranded.into_iter().filter(|container| !observed.killing.contains(&container.id)) {
            plan.actions.push(kill(container, None, None));
        }
        return;
    }
    let attempt = view.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
    let containers = &spec(observed.pod).containers;
    let nothing_to_run = containers.iter().all(|container| {
        let last = view.container(&container.name);
        last.is_some_and(|last| {
            last.state == ContainerState::Exited
                && !restarts(observed.pod, ContainerKind::Regular, container, last.exit_code)
        })
    });
    let ran_once = restart_policy(observed.pod) == "Never" && attempt != 0 && !view.containers.is_empty();
    if nothing_to_run || ran_once {
        plan.ended = true;
        return;
    }
    match observed.blocked.get(crate::runtime::labels::SANDBOX_NAME) {
        Some(blocked) if blocked.until > observed.now => plan.check_again(blocked.until),
        _ => plan.actions.push(PodAction::CreateSandbox { attempt }),
    }
}

fn kill(container: &ContainerStatus, message: Option<String>, grace: Option<i64>) -> PodAction {
    PodAction::KillContainer {
        id: container.id.clone(),
        name: container.name.clone(),
        message,
        probe_grace_seconds: grace,
    }
}

enum Progress {
    Initialized,
    Initializing,
    Failed,
}

/// What a look at one container says.
#[derive(Eq, PartialEq)]
enum Look {
    /// Runs and may go on.
    Kept,
    /// Not running; it is being started, killed, or waits.
    Pending,
    /// Has ended and stays so.
    Ended { exit_code: i32 },
}

/// One look at a Pod with a live sandbox.
struct Turn<'a> {
    observed: &'a Observed<'a>,
    sandbox: &'a str,
}

impl Turn<'_> {
    /// The newest incarnation, if it lives in the present sandbox.
    fn present(&self, name: &str) -> Option<&ContainerStatus> {
        self.observed.view.container(name).filter(|container| container.sandbox_id == self.sandbox)
    }

    fn plan_ephemeral(&self, plan: &mut Plan) {
        for ephemeral in ephemeral_containers(self.observed.pod) {
            let container = as_container(ephemeral);
            if self.observed.view.container(&container.name).is_none_or(|c| c.state == ContainerState::Created) {
                self.start(ContainerKind::Ephemeral, &container, plan);
            }
        }
    }

    fn plan_init(&self, plan: &mut Plan) -> Progress {
        let regular = &spec(self.observed.pod).containers;
        let initialized = regular.iter().any(|container| {
            self.present(&container.name).is_some_and(|container| container.state != ContainerState::Created)
        });
        for container in init_containers(self.observed.pod) {
            if is_sidecar(container) {
                let up =
                    self.look(ContainerKind::Sidecar, container, plan) == Look::Kept && self.has_started(container);
                if !up && !initialized {
                    return Progress::Initializing;
                }
            } else if !initialized {
                match self.look(ContainerKind::Init, container, plan) {
                    Look::Ended { exit_code: 0 } => {}
                    Look::Ended { .. } => return Progress::Failed,
                    Look::Kept | Look::Pending => return Progress::Initializing,
                }
            }
        }
        Progress::Initialized
    }

    fn has_started(&self, container: &Container) -> bool {
        let id = self.present(&container.name).map(|status| status.id.as_str()).unwrap_or_default();
        container.startup_probe.is_none() || self.observed.probes.of(id).startup == Some(true)
    }

    fn plan_regular(&self, plan: &mut Plan) {
        let containers = &spec(self.observed.pod).containers;
        let looks: Vec<Look> =
            containers.iter().map(|container| self.look(ContainerKind::Regular, container, plan)).collect();
        plan.ended = looks.iter().all(|look| matches!(look, Look::Ended { .. }));
        if plan.ended {
            // Sidecars must not be restarted any more.
            plan.actions.retain(|action| !matches!(action, PodAction::StartContainer { .. }));
        }
    }

    fn look(&self, kind: ContainerKind, container: &Container, plan: &mut Plan) -> Look {
        let newest = self.observed.view.container(&container.name);
        let Some(status) = newest else {
            self.start(kind, container, plan);
            return Look::Pending;
        };
        if self.observed.killing.contains(&status.id) {
            return Look::Pending;
        }
        let elsewhere = status.sandbox_id != self.sandbox;
        match status.state {
            ContainerState::Running if elsewhere => {
                plan.actions.push(kill(status, None, None));
                Look::Pending
            }
            ContainerState::Running => self.look_at_running(kind, container, status, plan),
            ContainerState::Created | ContainerState::Unknown => {
                self.start(kind, container, plan);
                Look::Pending
            }
            // A new sandbox begins with the first init container again.
            ContainerState::Exited if kind == ContainerKind::Init && elsewhere => {
                self.start(kind, container, plan);
                Look::Pending
            }
            ContainerState::Exited => {
                let image_changed = status.hash != container_hash(container);
                let never = container_restart_policy(self.observed.pod, container) == "Never";
                let again = restarts(self.observed.pod, kind, container, status.exit_code)
                    || (image_changed && !never && kind == ContainerKind::Regular);
                if !again {
                    return Look::Ended { exit_code: status.exit_code };
                }
                self.restart(kind, container, status, plan);
                Look::Pending
            }
        }
    }

    fn look_at_running(
        &self,
        kind: ContainerKind,
        container: &Container,
        status: &ContainerStatus,
        plan: &mut Plan,
    ) -> Look {
        let health = self.observed.probes.of(&status.id);
        let name = &container.name;
        let mut restart =
            kind == ContainerKind::Sidecar || container_restart_policy(self.observed.pod, container) != "Never";
        let subject = if kind == ContainerKind::Regular { "Container" } else { "Init container" };
        let (why, grace) = if kind != ContainerKind::Init && status.hash != container_hash(container) {
            restart = true;
            ("definition changed", None)
        } else if health.liveness == Some(false) {
            let probe = container.liveness_probe.as_ref();
            ("failed liveness probe", probe.and_then(|probe| probe.termination_grace_period_seconds))
        } else if health.startup == Some(false) {
            let probe = container.startup_probe.as_ref();
            ("failed startup probe", probe.and_then(|probe| probe.termination_grace_period_seconds))
        } else {
            return Look::Kept;
        };
        let after = if restart { ", will be restarted" } else { "" };
        plan.actions.push(kill(status, Some(format!("{subject} {name} {why}{after}")), grace));
        Look::Pending
    }

    /// Starts again after an end, not faster than the back-off allows.
    fn restart(&self, kind: ContainerKind, container: &Container, last: &ContainerStatus, plan: &mut Plan) {
        let Observed { pod, backoff, now, .. } = self.observed;
        let ended = last.finished_at.unwrap_or(last.created_at);
        match backoff.until(&backoff_key(pod, container), ended, *now) {
            Some((until, wait)) => {
                plan.check_again(until);
                let message = format!(
                    "back-off {} restarting failed container={} pod={}",
                    go_duration(wait),
                    container.name,
                    full_name(pod)
                );
                let waiting = Waiting { reason: "CrashLoopBackOff".into(), message };
                plan.waiting.insert(container.name.clone(), waiting);
            }
            None => self.start(kind, container, plan),
        }
    }

    fn start(&self, kind: ContainerKind, container: &Container, plan: &mut Plan) {
        if let Some(blocked) = self.observed.blocked.get(&container.name) {
            plan.waiting.insert(container.name.clone(), blocked.waiting.clone());
            if blocked.until > self.observed.now {
                return plan.check_again(blocked.until);
            }
        }
        let newest = self.observed.view.container(&container.name);
        let attempt = match newest {
            Some(status) if status.state == ContainerState::Created => status.attempt,
            Some(status) => status.attempt + 1,
            None => attempts_before(self.observed.pod, &container.name),
        };
        plan.actions.push(PodAction::StartContainer { name: container.name.clone(), kind, attempt });
    }
}

/// For a container that the runtime has forgotten: the status remembers how often it ran.
fn attempts_before(pod: &Pod, name: &str) -> u32 {
    let Some(status) = &pod.status else { return 0 };
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let known = lists.into_iter().flatten().flatten().find(|status| status.name == name);
    known.filter(|known| known.container_id.is_some()).map_or(0, |known| known.restart_count.max(0) as u32 + 1)
}

/// Old incarnations and sandboxes that nobody needs.
fn plan_removals(observed: &Observed<'_>, plan: &mut Plan) {
    let view = observed.view;
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for container in &view.containers {
        let newer = seen.entry(&container.name).or_default();
        *newer += 1;
        if *newer > INCARNATIONS_KEPT && container.state != ContainerState::Running {
            plan.actions.push(PodAction::RemoveContainer { id: container.id.clone() });
        }
    }
    for sandbox in view.sandboxes.iter().skip(1) {
        if !view.running().any(|container| container.sandbox_id == sandbox.id) {
            plan.actions.push(PodAction::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

/// As Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests;
