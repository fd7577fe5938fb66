//! Where a Pod stands on this node. Moves only to the right.
//!
//! ```text
//!            deleted, ended, evicted          all containers stopped            API object gone
//!   Running ------------------------> Terminating ---------------> Terminated ----------------> Finished
//!                                      deadline only moves earlier   cleaned up
//! ```
//!
//! Invariants: no container is started after Running; the deadline never moves later; Terminated never runs again.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    ContainerKind, find_container, init_containers, is_sidecar, is_terminal,
    plan::{Plan, PodAction},
    spec,
};
use crate::runtime::PodView;

/// What the API server says about a Pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Desired {
    Present,
    /// It carries a deletionTimestamp.
    Deleting,
    /// The object does not exist (any more).
    Gone,
}

/// Why a Pod has to stop though nobody deleted it; becomes status.reason and message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Lifecycle {
    /// Containers are started and restarted as the spec says.
    Running,
    /// Containers are asked to end; what is left at the deadline is killed.
    Terminating { deadline: Timestamp },
    /// Nothing runs; kept for its logs and status until the API object goes.
    Terminated,
    /// Nothing is left of it on this node.
    Finished,
}

/// The least time a container gets between SIGTERM and SIGKILL, as upstream.
const GRACE_SECONDS_MIN: i64 = 1;
const GRACE_SECONDS_DEFAULT: i64 = 30;

/// How long its containers may take to end, as of now.
pub fn grace(pod: &Pod, desired: Desired) -> Duration {
    let of_spec = spec(pod).termination_grace_period_seconds;
    let of_deletion = pod.metadata.deletion_grace_period_seconds.filter(|_| desired == Desired::Deleting);
    let seconds = of_deletion.or(of_spec).unwrap_or(GRACE_SECONDS_DEFAULT).max(GRACE_SECONDS_MIN);
    Duration::from_secs(seconds as u64)
}

/// One step. `ended` and `verdict` are reasons of this node's own to stop.
pub fn step(
    lifecycle: &Lifecycle,
    pod: &Pod,
    desired: Desired,
    stop: bool,
    view: &PodView,
    now: Timestamp,
) -> Lifecycle {
    let stopped = view.running().next().is_none();
    match lifecycle {
        Lifecycle::Running if desired != Desired::Present || stop || is_terminal(pod) => {
            Lifecycle::Terminating { deadline: now + grace(pod, desired) }
        }
        Lifecycle::Running => Lifecycle::Running,
        Lifecycle::Terminating { .. } if stopped => Lifecycle::Terminated,
        Lifecycle::Terminating { deadline } if desired == Desired::Present => {
            Lifecycle::Terminating { deadline: *deadline }
        }
        Lifecycle::Terminating { deadline } => {
            Lifecycle::Terminating { deadline: (*deadline).min(now + grace(pod, desired)) }
        }
        Lifecycle::Terminated if desired == Desired::Gone && view.is_empty() => Lifecycle::Finished,
        Lifecycle::Terminated => Lifecycle::Terminated,
        Lifecycle::Finished => Lifecycle::Finished,
    }
}

/// What to do for a Pod that has to stop: main containers first, then sidecars from the last to the first.
pub fn terminate(pod: &Pod, view: &PodView, killing: &BTreeSet<String>) -> Plan {
    let sidecars: Vec<&str> = init_containers(pod)
        .iter()
        .filter(|container| is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let running: Vec<_> = view.running().collect();
    let (last, first): (Vec<_>, Vec<_>) = running.into_iter().partition(|c| sidecars.contains(&c.name.as_str()));
    let now = if first.is_empty() {
        let order = |name: &str| sidecars.iter().position(|sidecar| *sidecar == name);
        last.into_iter().max_by_key(|container| order(&container.name)).into_iter().collect()
    } else {
        first
    };
    let kill = |container: &crate::runtime::ContainerStatus| PodAction::KillContainer {
        id: container.id.clone(),
        name: container.name.clone(),
        message: None,
        probe_grace_seconds: None,
    };
    let actions = now.into_iter().filter(|container| !killing.contains(&container.id)).map(kill).collect();
    Plan { actions, ..Default::default() }
}

/// What is left to remove once the API object goes.
pub fn clean_up(view: &PodView) -> Plan {
    let containers = view.containers.iter().map(|c| PodAction::RemoveContainer { id: c.id.clone() });
    let sandboxes = view.sandboxes.iter().map(|s| PodAction::RemoveSandbox { id: s.id.clone() });
    Plan { actions: containers.chain(sandboxes).collect(), ..Default::default() }
}

/// The moment at which spec.activeDeadlineSeconds runs out.
pub fn active_deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = spec(pod).active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    Some(start + Duration::from_secs(seconds.max(0) as u64))
}

/// Stops a Pod that ran longer than it may.
pub fn past_deadline(pod: &Pod, now: Timestamp) -> Option<Verdict> {
    active_deadline(pod).filter(|deadline| *deadline <= now).map(|_| Verdict {
        reason: "DeadlineExceeded".into(),
        message: "Pod was active on the node longer than the specified deadline".into(),
    })
}

/// The kind of a running container, even one that the spec no longer names.
pub fn kind_of(pod: &Pod, name: &str) -> ContainerKind {
    find_container(pod, name).map_or(ContainerKind::Regular, |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::runtime::{ContainerState, ContainerStatus};

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "deletionGracePeriodSeconds": 5},
            "spec": {"terminationGracePeriodSeconds": 30, "containers": [{"name": "app"}]}
        }))
        .unwrap()
    }

    fn view(state: Option<ContainerState>) -> PodView {
        let container = |state| ContainerStatus { id: "c".into(), name: "app".into(), state, ..Default::default() };
        PodView { containers: state.map(container).into_iter().collect(), ..Default::default() }
    }

    fn check(expected: Expect) {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = now + Duration::from_secs(60);
        let mut table = String::new();
        let states = [
            Lifecycle::Running,
            Lifecycle::Terminating { deadline: later },
            Lifecycle::Terminated,
            Lifecycle::Finished,
        ];
        for from in &states {
            for desired in [Desired::Present, Desired::Deleting, Desired::Gone] {
                for runtime in [Some(ContainerState::Running), Some(ContainerState::Exited), None] {
                    let to = step(from, &pod(), desired, false, &view(runtime), now);
                    let show = |lifecycle: &Lifecycle| match lifecycle {
                        Lifecycle::Terminating { deadline } => {
                            format!("Terminating({}s)", deadline.duration_since(now).as_secs())
                        }
                        other => format!("{other:?}"),
                    };
                    let runtime = runtime.map_or("nothing".to_string(), |state| format!("{state:?}"));
                    table += &format!("{:18} {desired:?} + {runtime} -> {}\n", show(from), show(&to));
                }
            }
        }
        expected.assert_eq(&table);
    }

    #[test]
    fn every_state_meets_every_observation() {
        check(expect![[r#"
            Running            Present + Running -> Running
            Running            Present + Exited -> Running
            Running            Present + nothing -> Running
            Running            Deleting + Running -> Terminating(5s)
            Running            Deleting + Exited -> Terminating(5s)
            Running            Deleting + nothing -> Terminating(5s)
            Running            Gone + Running -> Terminating(30s)
            Running            Gone + Exited -> Terminating(30s)
            Running            Gone + nothing -> Terminating(30s)
            Terminating(60s)   Present + Running -> Terminating(60s)
            Terminating(60s)   Present + Exited -> Terminated
            Terminating(60s)   Present + nothing -> Terminated
            Terminating(60s)   Deleting + Running -> Terminating(5s)
            Terminating(60s)   Deleting + Exited -> Terminated
            Terminating(60s)   Deleting + nothing -> Terminated
            Terminating(60s)   Gone + Running -> Terminating(30s)
            Terminating(60s)   Gone + Exited -> Terminated
            Terminating(60s)   Gone + nothing -> Terminated
            Terminated         Present + Running -> Terminated
            Terminated         Present + Exited -> Terminated
            Terminated         Present + nothing -> Terminated
            Terminated         Deleting + Running -> Terminated
            Terminated         Deleting + Exited -> Terminated
            Terminated         Deleting + nothing -> Terminated
            Terminated         Gone + Running -> Terminated
            Terminated         Gone + Exited -> Terminated
            Terminated         Gone + nothing -> Finished
            Finished           Present + Running -> Finished
            Finished           Present + Exited -> Finished
            Finished           Present + nothing -> Finished
            Finished           Deleting + Running -> Finished
            Finished           Deleting + Exited -> Finished
            Finished           Deleting + nothing -> Finished
            Finished           Gone + Running -> Finished
            Finished           Gone + Exited -> Finished
            Finished           Gone + nothing -> Finished
        "#]]);
    }
}
