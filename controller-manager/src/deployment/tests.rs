//! A Deployment is driven to its end against ReplicaSets that obey at once; each step is written down.

use client::controller::Verb;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

/// The cluster as far as one Deployment sees it.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: i64,
    /// ReplicaSets whose Pods never become available.
    broken: Vec<String>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl World {
    fn new(spec: Value) -> Self {
        let mut value = json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "dep", "generation": 1, "resourceVersion": "1"},
            "spec": {
                "replicas": 3, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
            },
        });
        for (key, field) in spec.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        Self { deployment: serde_json::from_value(value).unwrap(), sets: Vec::new(), now: 0, broken: Vec::new() }
    }

    fn edit(&mut self, edit: impl FnOnce(&mut k8s_openapi::api::apps::v1::DeploymentSpec)) {
        edit(self.deployment.spec.as_mut().unwrap());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn set_image(&mut self, image: &str) {
        self.edit(|spec| spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into()));
    }

    fn decide(&self) -> Decision {
        let name = template::replica_set_name(&self.deployment);
        let candidates: Vec<Arc<ReplicaSet>> = self.sets.iter().cloned().map(Arc::new).collect();
        let namesake = candidates.iter().find(|set| set.metadata.name.as_ref() == Some(&name)).cloned();
        let observed = Observed {
            deployment: Arc::new(self.deployment.clone()),
            candidates,
            namesake,
            pods: vec![],
            failure: None,
        };
        decide(&observed, at(self.now))
    }

    /// One pass, carried out. What was told, or what was done silently.
    fn step(&mut self) -> Option<Vec<String>> {
        let decision = self.decide();
        if decision.actions.is_empty() && decision.status.is_none() {
            return None;
        }
        let mut told = Vec::new();
        for action in decision.actions.into_iter().chain(decision.status) {
            told.extend(action.success.as_ref().map(|note| note.message.clone()));
            match (action.target.resource.kind.as_str(), action.verb) {
                ("Deployment", Verb::Replace { object, .. }) => {
                    self.deployment = serde_json::from_value(object).unwrap()
                }
                (_, Verb::Create(object)) => {
                    let mut set: ReplicaSet = serde_json::from_value(object).unwrap();
                    let number = i64::try_from(self.sets.len()).unwrap();
                    set.metadata.uid = Some(format!("set-{number}"));
                    set.metadata.generation = Some(1);
                    set.metadata.creation_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(number)));
                    self.sets.push(set);
                }
                (_, Verb::Replace { object, .. }) => {
                    let set: ReplicaSet = serde_json::from_value(object).unwrap();
                    let known = self.sets.iter_mut().find(|known| known.metadata.uid == set.metadata.uid).unwrap();
                    *known = set;
                }
                (_, Verb::Delete(_)) => {
                    told.push(format!("deleted {}", action.target.key.name));
                    self.sets.retain(|set| set.metadata.name.as_ref() != Some(&action.target.key.name));
                }
                (kind, verb) => panic!("unexpected {} of {kind}", verb.name()),
            }
        }
        self.obey();
        Some(told)
    }

    /// ReplicaSets have the Pods they should have, available unless broken.
    fn obey(&mut self) {
        for set in &mut self.sets {
            let replicas = set.spec.as_ref().unwrap().replicas.unwrap();
            let works = !self.broken.contains(set.metadata.name.as_ref().unwrap());
            let ready = if works { crate::pod::nonzero(replicas) } else { None };
            let status = set.status.get_or_insert_default();
            status.replicas = replicas;
            status.ready_replicas = ready;
            status.available_replicas = ready;
            status.terminating_replicas = Some(0);
            status.observed_generation = set.metadata.generation;
        }
    }

    /// Until nothing changes any more.
    fn run(&mut self) -> String {
        let mut lines = Vec::new();
        for _ in 0..60 {
            let Some(told) = self.step() else { return self.without_hashes(&lines.join("\n")) };
            lines.extend(told);
        }
        panic!("does not come to rest:\n{}", lines.join("\n"));
    }

    /// Names in order of creation instead of hashes.
    fn without_hashes(&self, text: &str) -> String {
        let names = self.sets.iter().enumerate();
        names.fold(text.to_owned(), |text, (n, set)| {
            text.replace(set.metadata.name.as_ref().unwrap(), &format!("web-{}", n + 1))
        })
    }

    fn conditions(&self) -> Vec<String> {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.iter().flatten();
        let line = |c: &k8s_openapi::api::apps::v1::DeploymentCondition| {
            format!("{}={} {}", c.type_, c.status, c.reason.clone().unwrap())
        };
        let mut lines: Vec<String> = conditions.map(line).collect();
        lines.sort();
        lines
    }

    fn revision(&self) -> &str {
        &self.deployment.metadata.annotations.as_ref().unwrap()[revision::REVISION]
    }
}

fn check(world: &mut World, expected: Expect) {
    expected.assert_eq(&world.run());
}

#[test]
fn a_rolling_update_and_a_rollback_keep_within_their_margins() {
    let mut world = World::new(json!({}));
    check(&mut world, expect!["Scaled up replica set web-1 from 0 to 3"]);
    assert_eq!(
        world.conditions(),
        ["Available=True MinimumReplicasAvailable", "Progressing=True NewReplicaSetAvailable"]
    );
    world.set_image("v2");
    check(
        &mut world,
        expect![[r#"
        Scaled up replica set web-2 from 0 to 1
        Scaled down replica set web-1 from 3 to 2
        Scaled up replica set web-2 from 1 to 2
        Scaled down replica set web-1 from 2 to 1
        Scaled up replica set web-2 from 2 to 3
        Scaled down replica set web-1 from 1 to 0"#]],
    );
    assert_eq!(world.revision(), "2");
    world.set_image("v1");
    check(
        &mut world,
        expect![[r#"
        Scaled up replica set web-1 from 0 to 1
        Scaled down replica set web-2 from 3 to 2
        Scaled up replica set web-1 from 1 to 2
        Scaled down replica set web-2 from 2 to 1
        Scaled up replica set web-1 from 2 to 3
        Scaled down replica set web-2 from 1 to 0"#]],
    );
    assert_eq!(world.revision(), "3");
    let annotations = world.sets[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(world.sets.len(), 2);
}

#[test]
fn scaling_and_updating_at_once_first_resizes() {
    let mut world = World::new(json!({"replicas": 1}));
    world.run();
    world.edit(|spec| spec.replicas = Some(4));
    world.set_image("v2");
    check(
        &mut world,
        expect![[r#"
            Scaled up replica set web-1 from 1 to 4
            Scaled up replica set web-2 from 0 to 1
            Scaled down replica set web-1 from 4 to 2
            Scaled up replica set web-2 from 1 to 3
            Scaled down replica set web-1 from 2 to 0
            Scaled up replica set web-2 from 3 to 4"#]],
    );
}

#[test]
fn a_broken_update_stops_times_out_and_is_scaled_in_proportion() {
    let mut world = World::new(json!({"replicas": 10}));
    world.run();
    world.set_image("broken");
    world.broken.push(template::replica_set_name(&world.deployment));
    check(
        &mut world,
        expect![[r#"
        Scaled up replica set web-2 from 0 to 3
        Scaled down replica set web-1 from 10 to 8
        Scaled up replica set web-2 from 3 to 5"#]],
    );
    let again = world.decide().check_again_at.map(Timestamp::as_second);
    assert_eq!(again, Some(601));
    world.now = 601;
    world.run();
    assert_eq!(world.conditions()[1], "Progressing=False ProgressDeadlineExceeded");
    world.edit(|spec| spec.replicas = Some(30));
    check(
        &mut world,
        expect![[r#"
        Scaled up replica set web-2 from 5 to 15
        Scaled up replica set web-1 from 8 to 23"#]],
    );
}

#[test]
fn recreate_never_mixes_templates() {
    let mut world = World::new(json!({"strategy": {"type": "Recreate"}}));
    world.run();
    world.set_image("v2");
    check(
        &mut world,
        expect![[r#"
        Scaled down replica set web-1 from 3 to 0
        Scaled up replica set web-2 from 0 to 3"#]],
    );
}

#[test]
fn a_paused_deployment_only_scales_and_goes_on_when_resumed() {
    let mut world = World::new(json!({"replicas": 2}));
    world.run();
    world.set_image("v2");
    world.edit(|spec| (spec.paused, spec.replicas) = (Some(true), Some(3)));
    check(&mut world, expect!["Scaled up replica set web-1 from 2 to 3"]);
    assert_eq!(world.conditions()[1], "Progressing=Unknown DeploymentPaused");
    world.edit(|spec| spec.paused = None);
    assert!(world.run().contains("web-2 from 2 to 3"));
    assert_eq!(world.conditions()[1], "Progressing=True NewReplicaSetAvailable");
}

#[test]
fn old_replica_sets_beyond_the_limit_are_deleted() {
    let mut world = World::new(json!({"revisionHistoryLimit": 1}));
    for image in ["v1", "v2", "v3"] {
        world.set_image(image);
        world.run();
    }
    assert_eq!(world.sets.len(), 2);
}

#[test]
fn a_hash_collision_is_stepped_over() {
    let mut world = World::new(json!({}));
    let name = template::replica_set_name(&world.deployment);
    let foreign = json!({"metadata": {"name": name, "namespace": "d", "uid": "foreign",
        "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "other", "controller": true}]},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}}});
    world.sets.push(serde_json::from_value(foreign).unwrap());
    assert!(world.run().contains("web-2 from 0 to 3"));
    assert_eq!(world.deployment.status.as_ref().unwrap().collision_count, Some(1));
}
