use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::{
    probe::Health,
    runtime::{SandboxStatus, labels},
};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A Pod of one init container, one sidecar and one regular container.
fn whole() -> Value {
    json!({"initContainers": [{"name": "init", "image": "i"}, {"name": "side", "image": "s", "restartPolicy": "Always"}],
           "containers": [{"name": "app", "image": "a"}]})
}

fn single(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "app", "image": "a"}]})
}

struct World {
    pod: Pod,
    view: PodView,
    probes: ProbeResults,
    backoff: Backoff,
    blocked: BTreeMap<String, Blocked>,
    killing: BTreeSet<String>,
}

impl World {
    fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            view: PodView::default(),
            probes: ProbeResults::default(),
            backoff: Backoff::default(),
            blocked: BTreeMap::new(),
            killing: BTreeSet::new(),
        }
    }

    fn sandbox(mut self, attempt: u32, ready: bool) -> Self {
        let sandbox = SandboxStatus { id: format!("s{attempt}"), attempt, ready, ..Default::default() };
        self.view.sandboxes.insert(0, sandbox);
        self
    }

    /// `app 0 running`, `app 1 exited 3`; in the newest sandbox.
    fn container(mut self, text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let spec = super::super::find_container(&self.pod, words[0]).unwrap().1;
        let exit_code = words.get(3).map_or(0, |code| code.parse().unwrap());
        let state = match words[2] {
            "running" => ContainerState::Running,
            "created" => ContainerState::Created,
            _ => ContainerState::Exited,
        };
        let status = ContainerStatus {
            id: format!("{}{}", words[0], words[1]),
            name: words[0].into(),
            attempt: words[1].parse().unwrap(),
            hash: container_hash(&spec),
            sandbox_id: self.view.sandboxes.first().map(|sandbox| sandbox.id.clone()).unwrap_or_default(),
            state,
            finished_at: (state == ContainerState::Exited).then(now),
            exit_code,
            ..Default::default()
        };
        self.view.containers.insert(0, status);
        self
    }

    fn plan(&self) -> Plan {
        plan(&Observed {
            pod: &self.pod,
            view: &self.view,
            probes: &self.probes,
            backoff: &self.backoff,
            blocked: &self.blocked,
            killing: &self.killing,
            now: now(),
        })
    }

    fn check(&self, expected: Expect) {
        let plan = self.plan();
        let mut lines: Vec<String> = plan
            .actions
            .iter()
            .map(|action| match action {
                PodAction::CreateSandbox { attempt } => format!("create sandbox {attempt}"),
                PodAction::RemoveSandbox { id } => format!("remove sandbox {id}"),
                PodAction::StartContainer { name, attempt, .. } => format!("start {name} {attempt}"),
                PodAction::KillContainer { id, message, .. } => {
                    format!("kill {id}: {}", message.as_deref().unwrap_or("-"))
                }
                PodAction::RemoveContainer { id } => format!("remove {id}"),
            })
            .collect();
        lines.extend(plan.waiting.iter().map(|(name, waiting)| format!("{name} waits: {}", waiting.reason)));
        lines.extend(plan.ended.then(|| "ended".to_string()));
        expected.assert_eq(&lines.join("\n"));
    }
}

#[test]
fn a_life_in_order() {
    World::new(whole()).check(expect!["create sandbox 0"]);
    let world = World::new(whole()).sandbox(0, true);
    world.check(expect!["start init 0"]);
    let world = world.container("init 0 running");
    world.check(expect![""]);
    let world = World::new(whole()).sandbox(0, true).container("init 0 exited 0");
    world.check(expect!["start side 0"]);
    let world = world.container("side 0 running");
    world.check(expect!["start app 0"]);
    world.container("app 0 running").check(expect![""]);
}

#[test]
fn a_half_made_container_is_started_again_under_its_number() {
    World::new(single("Always")).sandbox(0, true).container("app 2 created").check(expect!["start app 2"]);
}

#[test]
fn restart_policies() {
    for (policy, ended, expected) in [
        ("Always", "app 0 exited 0", expect!["start app 1"]),
        ("OnFailure", "app 0 exited 0", expect!["ended"]),
        ("OnFailure", "app 0 exited 1", expect!["start app 1"]),
        ("Never", "app 0 exited 1", expect!["ended"]),
    ] {
        World::new(single(policy)).sandbox(0, true).container(ended).check(expected);
    }
}

#[test]
fn an_init_container_that_fails_for_good_ends_the_pod() {
    let mut spec = whole();
    spec["restartPolicy"] = json!("Never");
    World::new(spec).sandbox(0, true).container("init 0 exited 1").check(expect!["ended"]);
    World::new(whole()).sandbox(0, true).container("init 0 exited 1").check(expect!["start init 1"]);
}

#[test]
fn crashes_are_slowed_down() {
    let mut world = World::new(single("Always")).sandbox(0, true).container("app 3 exited 1");
    let key = backoff_key(&world.pod, &spec(&world.pod).containers[0]);
    world.backoff.next(&key, now());
    world.check(expect!["app waits: CrashLoopBackOff"]);
    let plan = world.plan();
    assert_eq!(plan.check_again_at, Some(now() + Duration::from_secs(10)));
    assert_eq!(plan.waiting["app"].message, "back-off 10s restarting failed container=app pod=p_n(u)");
}

#[test]
fn probes_and_changed_images_end_a_container() {
    let mut world = World::new(single("Always")).sandbox(0, true).container("app 0 running");
    world.probes.0.insert("app0".into(), Health { liveness: Some(false), ..Default::default() });
    world.check(expect!["kill app0: Container app failed liveness probe, will be restarted"]);
    world.killing.insert("app0".into());
    world.check(expect![""]);
    let mut world = World::new(single("Never")).sandbox(0, true).container("app 0 running");
    world.probes.0.insert("app0".into(), Health { startup: Some(false), ..Default::default() });
    world.check(expect!["kill app0: Container app failed startup probe"]);
    let mut world = World::new(single("Never")).sandbox(0, true).container("app 0 running");
    world.view.containers[0].hash = "other".into();
    world.check(expect!["kill app0: Container app definition changed, will be restarted"]);
}

#[test]
fn a_lost_sandbox_takes_everything_with_it() {
    let world = World::new(whole()).sandbox(0, false).container("app 0 running");
    world.check(expect!["kill app0: -"]);
    let world = World::new(whole())
        .sandbox(0, false)
        .container("init 0 exited 0")
        .container("side 0 exited 137")
        .container("app 0 exited 137");
    world.check(expect!["create sandbox 1"]);
    world.sandbox(1, true).check(expect![[r#"
        start init 1
        remove sandbox s0"#]]);
    World::new(single("Never")).sandbox(0, false).container("app 0 exited 0").check(expect!["ended"]);
}

#[test]
fn only_the_last_two_incarnations_are_kept() {
    let world = World::new(single("Always")).sandbox(0, true);
    let world = world.container("app 0 exited 1").container("app 1 exited 1").container("app 2 running");
    world.check(expect!["remove app0"]);
}

#[test]
fn a_failed_start_waits_with_its_reason() {
    let mut world = World::new(single("Always")).sandbox(0, true);
    let until = now() + Duration::from_secs(5);
    let waiting = Waiting { reason: "ErrImagePull".into(), message: "m".into() };
    world.blocked.insert("app".into(), Blocked { waiting, until });
    world.check(expect!["app waits: ErrImagePull"]);
    assert_eq!(world.plan().check_again_at, Some(until));
    world.blocked.insert(labels::SANDBOX_NAME.into(), Blocked { waiting: Waiting::default(), until });
    world.view.sandboxes.clear();
    world.check(expect![""]);
}
