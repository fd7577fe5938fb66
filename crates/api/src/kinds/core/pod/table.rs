//! A Pod as `kubectl get pods` shows it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use serde_json::Value;

use super::is_sidecar;
use crate::kind::{self, AGE_COLUMN, Column, NAME_COLUMN, column, wide};

pub fn columns() -> Vec<Column> {
    vec![
        NAME_COLUMN,
        column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
        column("Status", "The aggregate status of the containers in this pod."),
        column(
            "Restarts",
            "The number of times the containers in this pod have been restarted and when the last container in this pod \
             has restarted.",
        ),
        AGE_COLUMN,
        wide(
            "IP",
            "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        ),
        wide("Node", "The name of the node that this pod is assigned to."),
        wide("Nominated Node", "The node that is expected to make room for this pod by preempting others."),
        wide("Readiness Gates", "How many of the pod's readiness gates are true."),
    ]
}

pub fn row(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let or_none = |text: Option<String>| Value::from(text.filter(|text| !text.is_empty()).unwrap_or("<none>".into()));
    let first_ip = status.and_then(|status| Some(status.pod_ips.as_ref()?.first()?.ip.clone()));
    vec![
        pod.metadata.name.clone().into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.clone().into(),
        summary.restarts.to_cell(now).into(),
        kind::age(&pod.metadata, now).into(),
        or_none(first_ip),
        or_none(spec.and_then(|spec| spec.node_name.clone())),
        or_none(status.and_then(|status| status.nominated_node_name.clone())),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let is_true = |kind: &str| pod.status.as_ref().is_some_and(|status| condition(status, kind) == Some("True"));
    match gates.len() {
        0 => "<none>".into(),
        count => format!("{}/{count}", gates.iter().filter(|gate| is_true(&gate.condition_type)).count()),
    }
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a str> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
        .map(|condition| condition.status.as_str())
}

/// How often containers were restarted, and when last.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count += container.restart_count;
        let finished = container
            .last_state
            .as_ref()
            .and_then(|state| Some(state.terminated.as_ref()?.finished_at.as_ref()?.0))
            .filter(|at| *at > Timestamp::UNIX_EPOCH);
        self.last = self.last.max(finished);
    }

    fn to_cell(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, kind::human_duration(now.duration_since(last)))
            }
            _ => self.count.to_string(),
        }
    }
}

/// What the columns Ready, Status and Restarts say.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Pod) -> Self {
        let (spec, status) = (pod.spec.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
        let init_containers = spec.init_containers.unwrap_or_default();
        let sidecars: Vec<_> = init_containers.iter().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
        let mut summary = Self {
            ready: 0,
            total: spec.containers.len() + sidecars.len(),
            reason: first_reason(&status),
            restarts: Restarts::default(),
        };
        let initializing = summary.look_at_init_containers(&status, &sidecars, init_containers.len());
        if !initializing || condition(&status, "Initialized") == Some("True") {
            // Only what restarts with the Pod's life counts once it is initialized.
            summary.restarts = Restarts::default();
            let sidecar = |c: &&ContainerStatus| sidecars.contains(&c.name.as_str());
            status.init_container_statuses.iter().flatten().filter(sidecar).for_each(|c| summary.restarts.add(c));
            summary.look_at_containers(&status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            let phase = status.phase.as_deref().unwrap_or_default();
            if status.reason.as_deref() == Some("NodeLost") {
                summary.reason = "Unknown".into();
            } else if phase != "Succeeded" && phase != "Failed" {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    /// Returns whether the Pod is still initializing, or failed to.
    fn look_at_init_containers(&mut self, status: &PodStatus, sidecars: &[&str], total: usize) -> bool {
        for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
            self.restarts.add(container);
            let ContainerState { terminated, waiting, .. } = container.state.clone().unwrap_or_default();
            let waits_for = waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
            let is_running_sidecar = sidecars.contains(&container.name.as_str()) && container.started == Some(true);
            self.reason = match terminated {
                Some(terminated) if terminated.exit_code == 0 => continue,
                _ if is_running_sidecar => {
                    self.ready += usize::from(container.ready);
                    continue;
                }
                Some(terminated) => format!("Init:{}", ended(&terminated)),
                None if !waits_for.is_empty() && waits_for != "PodInitializing" => format!("Init:{waits_for}"),
                None => format!("Init:{index}/{total}"),
            };
            return true;
        }
        false
    }

    fn look_at_containers(&mut self, status: &PodStatus) {
        let mut has_running = false;
        let mut error = None;
        for container in status.container_statuses.iter().flatten().rev() {
            self.restarts.add(container);
            let ContainerState { running, terminated, waiting } = container.state.clone().unwrap_or_default();
            let waits_for = waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
            if !waits_for.is_empty() {
                self.reason = waits_for;
            } else if let Some(terminated) = terminated {
                self.reason = ended(&terminated);
                if terminated.exit_code != 0 {
                    error = Some(self.reason.clone());
                }
            } else if container.ready && running.is_some() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if has_running && condition(status, "Ready") == Some("True") {
                self.reason = "Running".into();
            } else if let Some(error) = error {
                self.reason = error;
            } else if has_running {
                self.reason = "NotReady".into();
            }
        }
    }
}

fn first_reason(status: &PodStatus) -> String {
    let gated =
        status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("SchedulingGated")
        });
    match status.reason.as_deref() {
        _ if gated => "SchedulingGated".into(),
        Some(reason) if !reason.is_empty() => reason.into(),
        _ => status.phase.clone().unwrap_or_default(),
    }
}

fn ended(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref().unwrap_or_default(), terminated.signal.unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}
