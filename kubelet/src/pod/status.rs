//! What the API shows of a Pod, computed from what was observed, never from what was intended. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus as ApiContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    ContainerKind, as_container, container_restart_policy, ephemeral_containers, init_containers, is_host_network,
    is_sidecar,
    lifecycle::{Lifecycle, Verdict},
    plan::Waiting,
    restart_policy, spec,
};
use crate::{
    probe::ProbeResults,
    runtime::{ContainerState, ContainerStatus, PodView},
};

/// Everything a status is computed from.
pub struct Observed<'a> {
    pub pod: &'a Pod,
    pub view: &'a PodView,
    pub probes: &'a ProbeResults,
    /// By container name: why it waits.
    pub waiting: &'a BTreeMap<String, Waiting>,
    pub lifecycle: &'a Lifecycle,
    pub verdict: Option<&'a Verdict>,
    pub host_ips: &'a [IpAddr],
    /// By container id: what it left in its termination message.
    pub messages: &'a BTreeMap<String, String>,
    pub now: Timestamp,
}

pub fn pod_status(observed: &Observed<'_>) -> PodStatus {
    let Observed { pod, .. } = observed;
    let old = pod.status.clone().unwrap_or_default();
    let builder = Builder { observed, old: &old };
    let init = init_containers(pod)
        .iter()
        .map(|c| builder.container(if is_sidecar(c) { ContainerKind::Sidecar } else { ContainerKind::Init }, c));
    let init: Vec<ApiContainerStatus> = init.collect();
    let regular: Vec<_> = spec(pod).containers.iter().map(|c| builder.container(ContainerKind::Regular, c)).collect();
    let ephemeral: Vec<_> = ephemeral_containers(pod)
        .iter()
        .map(|c| builder.container(ContainerKind::Ephemeral, &as_container(c)))
        .collect();
    let phase = builder.phase(&init, &regular);
    let conditions = builder.conditions(&phase, &init, &regular);
    let some = |list: Vec<ApiContainerStatus>| (!list.is_empty()).then_some(list);
    let ips = builder.pod_ips();
    let verdict = observed.verdict.filter(|_| builder.is_over());
    PodStatus {
        conditions: Some(conditions),
        container_statuses: some(regular),
        ephemeral_container_statuses: some(ephemeral),
        host_ip: observed.host_ips.first().map(IpAddr::to_string),
        host_ips: Some(observed.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        init_container_statuses: some(init),
        message: verdict.map(|verdict| verdict.message.clone()).or_else(|| old.message.clone()),
        observed_generation: pod.metadata.generation,
        phase: Some(phase),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| crate::resources::qos_class(pod).into())),
        reason: verdict.map(|verdict| verdict.reason.clone()).or_else(|| old.reason.clone()),
        start_time: Some(old.start_time.clone().unwrap_or(Time(whole_seconds(observed.now)))),
        ..old
    }
}

/// The API keeps whole seconds.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn time(time: Option<Timestamp>) -> Option<Time> {
    time.map(|time| Time(whole_seconds(time)))
}

struct Builder<'a> {
    observed: &'a Observed<'a>,
    old: &'a PodStatus,
}

impl Builder<'_> {
    fn is_over(&self) -> bool {
        matches!(self.observed.lifecycle, Lifecycle::Terminated | Lifecycle::Finished)
    }

    fn pod_ips(&self) -> Vec<String> {
        let Observed { pod, view, host_ips, .. } = self.observed;
        let ips = match view.sandboxes.first() {
            Some(sandbox) if is_host_network(pod) && sandbox.ready => host_ips.to_vec(),
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        };
        if ips.is_empty() && self.observed.view.ready_sandbox().is_none() {
            // A stopped Pod keeps showing the address it had.
            return self.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
        }
        ips.iter().map(IpAddr::to_string).collect()
    }

    fn old_container(&self, kind: ContainerKind, name: &str) -> Option<&ApiContainerStatus> {
        let list = match kind {
            ContainerKind::Init | ContainerKind::Sidecar => &self.old.init_container_statuses,
            ContainerKind::Regular => &self.old.container_statuses,
            ContainerKind::Ephemeral => &self.old.ephemeral_container_statuses,
        };
        list.iter().flatten().find(|status| status.name == name)
    }

    fn container(&self, kind: ContainerKind, container: &Container) -> ApiContainerStatus {
        let Observed { view, waiting, probes, .. } = self.observed;
        let mut incarnations = view.incarnations(&container.name);
        let newest = incarnations.next();
        let mut status = self.blank(container);
        let Some(newest) = newest else {
            self.without_incarnation(kind, container, &mut status);
            return status;
        };
        status.restart_count = newest.attempt as i32;
        status.image = newest.image.clone();
        status.image_id = newest.image_id.clone();
        status.container_id = Some(container_id(newest));
        status.last_state = incarnations
            .find(|older| older.state == ContainerState::Exited)
            .map(|older| terminated(older, self.observed))
            .or_else(|| self.old_container(kind, &container.name)?.last_state.clone());
        let state = self.state_of(newest);
        let wait = waiting.get(&container.name);
        match (newest.state, wait) {
            // It ended and will run again: the end is what happened last, waiting is what it does now.
            (ContainerState::Exited, Some(wait)) if !self.is_over() => {
                status.last_state = Some(state);
                status.state = Some(waiting_state(wait));
            }
            _ => status.state = Some(state),
        }
        let health = probes.of(&newest.id);
        let running = newest.state == ContainerState::Running;
        let started = running && (container.startup_probe.is_none() || health.startup == Some(true));
        status.started = Some(started);
        status.ready = match kind {
            ContainerKind::Init => newest.state == ContainerState::Exited && newest.exit_code == 0,
            ContainerKind::Ephemeral => false,
            _ => started && (container.readiness_probe.is_none() || health.readiness == Some(true)),
        };
        status
    }

    fn blank(&self, container: &Container) -> ApiContainerStatus {
        let mounts = container.volume_mounts.iter().flatten().map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            recursive_read_only: mount.read_only.filter(|read_only| *read_only).map(|_| "Disabled".into()),
            volume_status: None,
        });
        let mounts: Vec<_> = mounts.collect();
        ApiContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: String::new(),
            ready: false,
            started: Some(false),
            restart_count: 0,
            resources: container.resources.clone(),
            allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
            volume_mounts: (!mounts.is_empty()).then_some(mounts),
            ..Default::default()
        }
    }

    /// The runtime knows nothing of it: not yet, or not any more.
    fn without_incarnation(&self, kind: ContainerKind, container: &Container, status: &mut ApiContainerStatus) {
        let default = if kind == ContainerKind::Regular && !init_containers(self.observed.pod).is_empty()
            || kind == ContainerKind::Init
            || kind == ContainerKind::Sidecar
        {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        let blank = Waiting { reason: default.into(), message: String::new() };
        let wait = self.observed.waiting.get(&container.name).unwrap_or(&blank);
        status.state = Some(waiting_state(wait));
        let Some(old) = self.old_container(kind, &container.name) else { return };
        status.restart_count = old.restart_count;
        status.last_state = old.last_state.clone();
        let state = old.state.clone().unwrap_or_default();
        if state.terminated.is_some() {
            *status = old.clone();
        } else if state.running.is_some() {
            // It ran and is gone without a trace; an unknown end is an end with an error.
            let gone = ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some("The container could not be located when the pod was terminated".into()),
                ..Default::default()
            };
            let gone = ApiState { terminated: Some(gone), ..Default::default() };
            if self.is_over() {
                status.state = Some(gone);
            } else {
                status.last_state = Some(gone);
            }
        }
    }

    fn state_of(&self, newest: &ContainerStatus) -> ApiState {
        match newest.state {
            ContainerState::Running => ApiState {
                running: Some(ContainerStateRunning { started_at: time(newest.started_at) }),
                ..Default::default()
            },
            ContainerState::Exited => terminated(newest, self.observed),
            ContainerState::Created | ContainerState::Unknown => {
                let blank = Waiting { reason: "ContainerCreating".into(), message: String::new() };
                waiting_state(self.observed.waiting.get(&newest.name).unwrap_or(&blank))
            }
        }
    }

    fn phase(&self, init: &[ApiContainerStatus], regular: &[ApiContainerStatus]) -> String {
        let Observed { pod, .. } = self.observed;
        if let Some(terminal) = self.old.phase.as_deref().filter(|phase| matches!(*phase, "Succeeded" | "Failed")) {
            return terminal.into();
        }
        // Not before its containers have ended: nobody may take it for done while they run.
        if self.observed.verdict.is_some() && self.is_over() {
            return "Failed".into();
        }
        let exit_of = |status: &ApiContainerStatus| {
            status.state.as_ref().and_then(|state| state.terminated.as_ref()).map(|end| end.exit_code)
        };
        let mut initializing = false;
        for (container, status) in init_containers(pod).iter().zip(init) {
            match exit_of(status) {
                _ if is_sidecar(container) => initializing |= status.started != Some(true),
                Some(0) => {}
                Some(_) if container_restart_policy(pod, container) == "Never" => return "Failed".into(),
                _ => initializing = true,
            }
        }
        let has_run = |status: &ApiContainerStatus| {
            let last = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
            last || status.state.as_ref().is_some_and(|state| state.waiting.is_none())
        };
        if initializing && !regular.iter().any(has_run) {
            return if self.is_over() { "Failed".into() } else { "Pending".into() };
        }
        let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
        for status in regular {
            let state = status.state.clone().unwrap_or_default();
            let ended_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
            match (state.running, state.terminated) {
                (Some(_), _) => running += 1,
                (None, Some(end)) => {
                    stopped += 1;
                    succeeded += usize::from(end.exit_code == 0);
                }
                (None, None) if ended_before => stopped += 1,
                (None, None) => waiting += 1,
            }
        }
        let all_well = if succeeded == regular.len() { "Succeeded" } else { "Failed" };
        let sidecars_run = init.iter().any(|status| status.state.as_ref().is_some_and(|s| s.running.is_some()));
        match (waiting, running) {
            _ if self.is_over() => all_well,
            (0, 0) if stopped > 0 && !sidecars_run => match restart_policy(pod) {
                "Always" => "Running",
                _ if succeeded == stopped => "Succeeded",
                "Never" => "Failed",
                _ => "Running",
            },
            (0, _) => "Running",
            _ => "Pending",
        }
        .into()
    }

    fn conditions(
        &self,
        phase: &str,
        init: &[ApiContainerStatus],
        regular: &[ApiContainerStatus],
    ) -> Vec<PodCondition> {
        let sandbox = self.observed.view.ready_sandbox().is_some();
        let ready_to_start = Truth { status: sandbox, ..Truth::default() };
        let initialized = self.initialized(phase, init, regular);
        let containers_ready = self.containers_ready(phase, init, regular);
        let ready = self.ready(&containers_ready);
        let mut conditions: Vec<PodCondition> = self.old.conditions.clone().unwrap_or_default();
        let scheduled = Truth { status: true, ..Truth::default() };
        for (r#type, truth) in [
            ("PodReadyToStartContainers", ready_to_start),
            ("Initialized", initialized),
            ("Ready", ready),
            ("ContainersReady", containers_ready),
            ("PodScheduled", scheduled),
        ] {
            self.set(&mut conditions, r#type, truth);
        }
        conditions
    }

    /// Keeps the time of the last transition unless the status really changes.
    fn set(&self, conditions: &mut Vec<PodCondition>, r#type: &str, truth: Truth) {
        let status = if truth.status { "True" } else { "False" };
        let old = conditions.iter_mut().find(|condition| condition.type_ == r#type);
        let since = old.as_ref().filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        let condition = PodCondition {
            type_: r#type.into(),
            status: status.into(),
            reason: truth.reason,
            message: truth.message,
            last_transition_time: Some(since.unwrap_or(Time(whole_seconds(self.observed.now)))),
            last_probe_time: None,
            observed_generation: self.observed.pod.metadata.generation,
        };
        match old {
            Some(old) => *old = condition,
            None => conditions.push(condition),
        }
    }

    fn initialized(&self, phase: &str, init: &[ApiContainerStatus], regular: &[ApiContainerStatus]) -> Truth {
        if phase == "Succeeded" {
            return Truth { status: true, reason: Some("PodCompleted".into()), message: None };
        }
        let started = |status: &ApiContainerStatus| {
            let last = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
            last || status.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        };
        let containers = init_containers(self.observed.pod).iter().zip(init);
        let incomplete: Vec<&str> = containers
            .filter(
                |(container, status)| {
                    if is_sidecar(container) { status.started != Some(true) } else { !status.ready }
                },
            )
            .map(|(container, _)| container.name.as_str())
            .collect();
        if incomplete.is_empty() || regular.iter().any(started) {
            return Truth { status: true, ..Truth::default() };
        }
        let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        Truth { status: false, reason: Some("ContainersNotInitialized".into()), message: Some(message) }
    }

    fn containers_ready(&self, phase: &str, init: &[ApiContainerStatus], regular: &[ApiContainerStatus]) -> Truth {
        let over = match phase {
            "Succeeded" => Some("PodCompleted"),
            "Failed" => Some("PodFailed"),
            _ => None,
        };
        if let Some(reason) = over {
            return Truth { status: false, reason: Some(reason.into()), message: None };
        }
        let sidecars = init_containers(self.observed.pod).iter().zip(init).filter(|(c, _)| is_sidecar(c));
        let unready: Vec<&str> = sidecars
            .map(|(_, status)| status)
            .chain(regular)
            .filter(|status| !status.ready)
            .map(|status| status.name.as_str())
            .collect();
        if unready.is_empty() {
            return Truth { status: true, ..Truth::default() };
        }
        let message = format!("containers with unready status: [{}]", unready.join(" "));
        Truth { status: false, reason: Some("ContainersNotReady".into()), message: Some(message) }
    }

    fn ready(&self, containers_ready: &Truth) -> Truth {
        if !containers_ready.status {
            return containers_ready.clone();
        }
        let gates = spec(self.observed.pod).readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
        let conditions = self.old.conditions.as_deref().unwrap_or_default();
        let closed: Vec<String> = gates
            .filter_map(|gate| match conditions.iter().find(|condition| condition.type_ == gate) {
                None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            })
            .collect();
        if closed.is_empty() {
            return Truth { status: true, ..Truth::default() };
        }
        let message = Some(closed.join(", "));
        Truth { status: false, reason: Some("ReadinessGatesNotReady".into()), message }
    }
}

/// A condition without its history.
#[derive(Clone, Debug, Default)]
struct Truth {
    status: bool,
    reason: Option<String>,
    message: Option<String>,
}

fn container_id(status: &ContainerStatus) -> String {
    format!("docker://{}", status.id)
}

fn waiting_state(wait: &Waiting) -> ApiState {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let waiting = ContainerStateWaiting { reason: text(&wait.reason), message: text(&wait.message) };
    ApiState { waiting: Some(waiting), ..Default::default() }
}

fn terminated(status: &ContainerStatus, observed: &Observed<'_>) -> ApiState {
    let left = observed.messages.get(&status.id).filter(|message| !message.is_empty());
    let message = left.cloned().or_else(|| (!status.message.is_empty()).then(|| status.message.clone()));
    let end = ContainerStateTerminated {
        exit_code: status.exit_code,
        reason: Some(status.reason.clone()),
        message,
        started_at: time(status.started_at.or(status.finished_at)),
        finished_at: time(status.finished_at),
        container_id: Some(container_id(status)),
        signal: None,
    };
    ApiState { terminated: Some(end), ..Default::default() }
}

#[cfg(test)]
mod tests;
