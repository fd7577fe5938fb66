//! Startup, readiness and liveness probes: one task for each probe of each running container.
//!
//! Tasks only write results and wake the Pod's worker; what follows from a result is decided in `pod::plan` and
//! `pod::status`. Liveness and readiness begin when the container has started (its startup probe succeeded).

pub mod check;
mod grpc;
pub mod http;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::events::{EventRecorder, EventType};
use clock::{Chance, Clock};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Probe};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};

use self::check::{Outcome, Patient, check};
use crate::{
    pod::{find_container, is_host_network},
    runtime::{ContainerRuntime, ContainerState, ContainerStatus, PodView},
};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    /// First word of upstream's messages.
    fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// What is known of one container; `None` while a probe has not decided.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Health {
    pub startup: Option<bool>,
    pub readiness: Option<bool>,
    pub liveness: Option<bool>,
}

/// By container id.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProbeResults(pub BTreeMap<String, Health>);

impl ProbeResults {
    pub fn of(&self, id: &str) -> Health {
        self.0.get(id).copied().unwrap_or_default()
    }

    fn set(&mut self, id: &str, kind: ProbeKind, result: bool) -> bool {
        let health = self.0.entry(id.into()).or_default();
        let slot = match kind {
            ProbeKind::Startup => &mut health.startup,
            ProbeKind::Readiness => &mut health.readiness,
            ProbeKind::Liveness => &mut health.liveness,
        };
        slot.replace(result) != Some(result)
    }
}

/// What probing needs of the node.
#[derive(Clone)]
pub struct Surroundings {
    pub runtime: Arc<dyn ContainerRuntime>,
    pub recorder: EventRecorder,
    pub clock: Clock,
    pub chance: Chance,
    pub node_ip: String,
    pub hollow: bool,
}

/// The probes of one Pod.
pub struct Probes {
    around: Surroundings,
    wake: Arc<Notify>,
    results: Arc<Mutex<ProbeResults>>,
    tasks: BTreeMap<(String, ProbeKind), JoinHandle<()>>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

impl Probes {
    /// `wake` is rung whenever a result changes.
    pub fn new(around: Surroundings, wake: Arc<Notify>) -> Self {
        Self { around, wake, results: Default::default(), tasks: BTreeMap::new() }
    }

    pub fn results(&self) -> ProbeResults {
        self.results.lock().clone()
    }

    /// Begins and ends tasks so that exactly the running containers are probed. While a Pod terminates only
    /// readiness goes on.
    pub fn observe(&mut self, pod: &Pod, view: &PodView, terminating: bool) {
        let running: BTreeMap<&str, &ContainerStatus> = view
            .running()
            .filter(|status| view.container(&status.name).is_some_and(|newest| newest.id == status.id))
            .map(|status| (status.id.as_str(), status))
            .collect();
        self.tasks.retain(|(id, kind), task| {
            let keep = running.contains_key(id.as_str()) && (!terminating || *kind == ProbeKind::Readiness);
            if !keep {
                task.abort();
            }
            keep
        });
        self.results.lock().0.retain(|id, _| view.containers.iter().any(|status| status.id == *id));
        for status in running.into_values() {
            if let Some((_, container)) = find_container(pod, &status.name) {
                self.begin(pod, view, &container, status, terminating);
            }
        }
    }

    fn begin(&mut self, pod: &Pod, view: &PodView, container: &Container, status: &ContainerStatus, late: bool) {
        if !self.results.lock().0.contains_key(&status.id) {
            let known = known_before(pod, container, status);
            self.results.lock().0.insert(status.id.clone(), known);
        }
        let health = self.results.lock().of(&status.id);
        let started = container.startup_probe.is_none() || health.startup == Some(true);
        for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
            let Some(probe) = kind.of(container) else { continue };
            let due = match kind {
                ProbeKind::Startup => health.startup.is_none() && !late,
                ProbeKind::Readiness => started,
                ProbeKind::Liveness => started && !late && health.liveness != Some(false),
            };
            let key = (status.id.clone(), kind);
            if !due || self.tasks.get(&key).is_some_and(|task| !task.is_finished()) {
                continue;
            }
            let patient = self.patient(pod, view, container, status);
            let task = Task {
                kind,
                probe: probe.clone(),
                patient,
                about: crate::events::about_container(pod, &container.name),
                started_at: status.started_at.unwrap_or(status.created_at),
                around: self.around.clone(),
                results: self.results.clone(),
                wake: self.wake.clone(),
            };
            self.tasks.insert(key, tokio::spawn(task.run()));
        }
    }

    fn patient(&self, pod: &Pod, view: &PodView, container: &Container, status: &ContainerStatus) -> Patient {
        let ip = view.sandboxes.first().and_then(|sandbox| sandbox.ips.first()).map(ToString::to_string);
        let ip = ip.filter(|_| !is_host_network(pod)).unwrap_or_else(|| self.around.node_ip.clone());
        Patient {
            runtime: self.around.runtime.clone(),
            container: container.clone(),
            id: status.id.clone(),
            ip,
            hollow: self.around.hollow,
        }
    }
}

/// After a restart of the kubelet the API's status says how the container was; it does not flap.
fn known_before(pod: &Pod, container: &Container, status: &ContainerStatus) -> Health {
    let of_pod = pod.status.clone().unwrap_or_default();
    let lists = [of_pod.container_statuses, of_pod.init_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    let id = format!("docker://{}", status.id);
    let Some(before) = all.find(|before| before.container_id.as_deref() == Some(id.as_str())) else {
        return Health::default();
    };
    debug_assert_eq!(before.name, container.name);
    let running = status.state == ContainerState::Running;
    Health {
        startup: (running && before.started == Some(true)).then_some(true),
        readiness: (running && before.ready).then_some(true),
        liveness: None,
    }
}

struct Task {
    kind: ProbeKind,
    probe: Probe,
    patient: Patient,
    about: ObjectReference,
    started_at: Timestamp,
    around: Surroundings,
    results: Arc<Mutex<ProbeResults>>,
    wake: Arc<Notify>,
}

impl Task {
    async fn run(self) {
        let seconds = |number: Option<i32>, default: u64| {
            Duration::from_secs(number.filter(|number| *number > 0).map_or(default, |number| number as u64))
        };
        let period = seconds(self.probe.period_seconds, 10);
        let first = self.started_at + seconds(self.probe.initial_delay_seconds, 0);
        tokio::time::sleep(self.around.clock.until(first)).await;
        if self.around.clock.now() > self.started_at + period {
            // An adopted container: not all of them at the same moment.
            tokio::time::sleep(self.around.chance.jitter(period, 1.0) - period).await;
        }
        let mut streak = Streak::default();
        loop {
            let healthy = self.examine().await;
            if let Some(result) = streak.count(healthy, self.threshold(healthy)) {
                if self.results.lock().set(&self.patient.id, self.kind, result) {
                    self.wake.notify_one();
                }
                // Startup has decided; after a failed liveness probe the container is killed.
                let decided = match self.kind {
                    ProbeKind::Startup => true,
                    ProbeKind::Liveness => !result,
                    ProbeKind::Readiness => false,
                };
                if decided {
                    return;
                }
            }
            tokio::time::sleep(self.around.chance.jitter(period, 0.01)).await;
        }
    }

    fn threshold(&self, healthy: bool) -> u32 {
        let (given, default) =
            if healthy { (self.probe.success_threshold, 1) } else { (self.probe.failure_threshold, 3) };
        given.filter(|given| *given > 0).map_or(default, |given| given as u32)
    }

    async fn examine(&self) -> bool {
        let word = self.kind.word();
        let warn = |reason: &str, message: String| {
            self.around.recorder.event(self.about.clone(), EventType::Warning, reason, message);
        };
        match check(&self.patient, &self.probe).await {
            Outcome::Success => true,
            Outcome::Warning(output) => {
                warn("ProbeWarning", format!("{word} probe warning: {output}"));
                true
            }
            Outcome::Failure(output) => {
                warn("Unhealthy", format!("{word} probe failed: {output}"));
                false
            }
            Outcome::Errored(error) => {
                warn("Unhealthy", format!("{word} probe errored and resulted in Failure state: {error}"));
                false
            }
        }
    }
}

/// Results of the same kind in a row.
#[derive(Debug, Default)]
struct Streak {
    last: Option<bool>,
    length: u32,
}

impl Streak {
    /// The result, once it has come `threshold` times in a row.
    fn count(&mut self, result: bool, threshold: u32) -> Option<bool> {
        self.length = if self.last == Some(result) { self.length + 1 } else { 1 };
        self.last = Some(result);
        (self.length >= threshold).then_some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_counts_when_it_repeats() {
        let mut streak = Streak::default();
        let results: Vec<_> = [false, false, true, false, false, false]
            .map(|result| streak.count(result, if result { 1 } else { 3 }))
            .into_iter()
            .collect();
        assert_eq!(results, [None, None, Some(true), None, None, Some(false)]);
    }
}
