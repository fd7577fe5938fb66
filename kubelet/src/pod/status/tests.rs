use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::{probe::Health, runtime::SandboxStatus};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

struct World {
    pod: Pod,
    view: PodView,
    probes: ProbeResults,
    waiting: BTreeMap<String, Waiting>,
    lifecycle: Lifecycle,
    verdict: Option<Verdict>,
}

impl World {
    fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "uid": "u", "generation": 3}, "spec": spec});
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            view: PodView::default(),
            probes: ProbeResults::default(),
            waiting: BTreeMap::new(),
            lifecycle: Lifecycle::Running,
            verdict: None,
        }
    }

    fn started(mut self) -> Self {
        let ips = vec![[10, 0, 0, 7].into()];
        self.view.sandboxes = vec![SandboxStatus { id: "s".into(), ready: true, ips, ..Default::default() }];
        self
    }

    fn container(mut self, name: &str, attempt: u32, end: Option<i32>) -> Self {
        let state = if end.is_some() { ContainerState::Exited } else { ContainerState::Running };
        let status = ContainerStatus {
            id: format!("{name}{attempt}"),
            name: name.into(),
            attempt,
            state,
            exit_code: end.unwrap_or_default(),
            reason: end.map_or("", |code| if code == 0 { "Completed" } else { "Error" }).into(),
            started_at: Some(now()),
            finished_at: end.map(|_| now()),
            image: "a:1".into(),
            ..Default::default()
        };
        self.view.containers.insert(0, status);
        self
    }

    fn status(&self) -> PodStatus {
        pod_status(&Observed {
            pod: &self.pod,
            view: &self.view,
            probes: &self.probes,
            waiting: &self.waiting,
            lifecycle: &self.lifecycle,
            verdict: self.verdict.as_ref(),
            host_ips: &[[192, 0, 2, 1].into()],
            messages: &BTreeMap::new(),
            now: now(),
        })
    }

    fn check(&self, expected: Expect) {
        let status = self.status();
        let mut text = format!("{} ip={}\n", status.phase.unwrap(), status.pod_ip.unwrap_or_default());
        for condition in status.conditions.unwrap() {
            let reason = condition.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
            let message = condition.message.map(|message| format!(": {message}")).unwrap_or_default();
            text += &format!("  {}={}{reason}{message}\n", condition.type_, condition.status);
        }
        for container in status.init_container_statuses.into_iter().chain(status.container_statuses).flatten() {
            let show = |state: Option<ApiState>| {
                let state = state.unwrap_or_default();
                match (state.running, state.waiting, state.terminated) {
                    (Some(_), _, _) => "running".to_string(),
                    (_, Some(waiting), _) => format!("waiting {}", waiting.reason.unwrap_or_default()),
                    (_, _, Some(end)) => format!("terminated {} {}", end.exit_code, end.reason.unwrap_or_default()),
                    _ => "-".into(),
                }
            };
            text += &format!(
                "  {}: {}, last {}, ready={} started={:?} restarts={}\n",
                container.name,
                show(container.state),
                show(container.last_state),
                container.ready,
                container.started,
                container.restart_count
            );
        }
        expected.assert_eq(&text);
    }
}

fn single(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "app", "image": "a:1"}]})
}

#[test]
fn before_anything_runs() {
    World::new(single("Always")).check(expect![[r#"
        Pending ip=
          PodReadyToStartContainers=False
          Initialized=True
          Ready=False ContainersNotReady: containers with unready status: [app]
          ContainersReady=False ContainersNotReady: containers with unready status: [app]
          PodScheduled=True
          app: waiting ContainerCreating, last -, ready=false started=Some(false) restarts=0
    "#]]);
}

#[test]
fn running_and_ready() {
    let world = World::new(single("Always")).started().container("app", 0, None);
    world.check(expect![[r#"
        Running ip=10.0.0.7
          PodReadyToStartContainers=True
          Initialized=True
          Ready=True
          ContainersReady=True
          PodScheduled=True
          app: running, last -, ready=true started=Some(true) restarts=0
    "#]]);
    assert_eq!(world.status().observed_generation, Some(3));
    assert_eq!(world.status().container_statuses.unwrap()[0].container_id.as_deref(), Some("docker://app0"));
}

#[test]
fn crashing() {
    let mut world = World::new(single("Always")).started().container("app", 4, Some(1));
    world.waiting.insert("app".into(), Waiting { reason: "CrashLoopBackOff".into(), message: "m".into() });
    world.check(expect![[r#"
        Running ip=10.0.0.7
          PodReadyToStartContainers=True
          Initialized=True
          Ready=False ContainersNotReady: containers with unready status: [app]
          ContainersReady=False ContainersNotReady: containers with unready status: [app]
          PodScheduled=True
          app: waiting CrashLoopBackOff, last terminated 1 Error, ready=false started=Some(false) restarts=4
    "#]]);
}

#[test]
fn initializing() {
    let spec =
        json!({"initContainers": [{"name": "i", "image": "i"}], "containers": [{"name": "app", "image": "a:1"}]});
    World::new(spec).started().container("i", 0, None).check(expect![[r#"
        Pending ip=10.0.0.7
          PodReadyToStartContainers=True
          Initialized=False ContainersNotInitialized: containers with incomplete status: [i]
          Ready=False ContainersNotReady: containers with unready status: [app]
          ContainersReady=False ContainersNotReady: containers with unready status: [app]
          PodScheduled=True
          i: running, last -, ready=false started=Some(true) restarts=0
          app: waiting PodInitializing, last -, ready=false started=Some(false) restarts=0
    "#]]);
}

#[test]
fn ended() {
    let mut world = World::new(single("Never")).started().container("app", 0, Some(0));
    world.lifecycle = Lifecycle::Terminated;
    world.check(expect![[r#"
        Succeeded ip=10.0.0.7
          PodReadyToStartContainers=True
          Initialized=True PodCompleted
          Ready=False PodCompleted
          ContainersReady=False PodCompleted
          PodScheduled=True
          app: terminated 0 Completed, last -, ready=false started=Some(false) restarts=0
    "#]]);
}

#[test]
fn readiness_gates_and_probes_hold_back_ready() {
    let spec = json!({"readinessGates": [{"conditionType": "example.com/go"}],
        "containers": [{"name": "app", "image": "a:1", "readinessProbe": {"exec": {"command": ["x"]}}}]});
    let mut world = World::new(spec).started().container("app", 0, None);
    let ready = |world: &World| {
        let conditions = world.status().conditions.unwrap();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap();
        format!("{} {}", ready.status, ready.message.unwrap_or_default())
    };
    assert_eq!(ready(&world), "False containers with unready status: [app]");
    world.probes.0.insert("app0".into(), Health { readiness: Some(true), ..Default::default() });
    assert_eq!(ready(&world), "False corresponding condition of pod readiness gate \"example.com/go\" does not exist.");
}

#[test]
fn a_verdict_shows_when_the_containers_have_ended() {
    let mut world = World::new(single("Always")).started().container("app", 0, None);
    world.verdict = Some(Verdict { reason: "DeadlineExceeded".into(), message: "m".into() });
    world.lifecycle = Lifecycle::Terminating { deadline: now() };
    let status = world.status();
    assert_eq!((status.phase.as_deref(), status.reason), (Some("Running"), None));
    let mut world = world.container("app", 1, Some(137));
    world.lifecycle = Lifecycle::Terminated;
    let status = world.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}
