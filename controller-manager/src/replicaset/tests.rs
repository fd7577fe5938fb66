use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn set(replicas: i32, min_ready_seconds: i32) -> Arc<ReplicaSet> {
    let value = json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "set", "generation": 1, "resourceVersion": "5"},
        "spec": {
            "replicas": replicas, "minReadySeconds": min_ready_seconds, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
        },
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(name: &str, changes: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {
            "name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}, "creationTimestamp": at(0),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true}],
        },
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(0)}]},
    });
    merge(&mut value, changes);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            changes.into_iter().for_each(|(key, change)| merge(into.entry(key).or_insert(Value::Null), change));
        }
        (into, changes) => *into = changes,
    }
}

fn check(set: Arc<ReplicaSet>, pods: Vec<Arc<Pod>>, expected: Expect) {
    let failure = None;
    let observed = Observed { set, related: pods.clone(), candidates: pods, failure };
    check_observed(&observed, expected);
}

fn check_observed(observed: &Observed, expected: Expect) {
    let decision = decide(observed, at(NOW));
    let mut lines: Vec<String> = decision.actions.iter().map(ToString::to_string).collect();
    if let Some(Action { verb: client::controller::Verb::Replace { object, .. }, .. }) = decision.status {
        lines.push(object["status"].to_string());
    }
    lines.extend(decision.check_again_at.map(|at| format!("again in {} s", at.as_second() - NOW)));
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn creates_what_is_missing() {
    check(
        set(3, 0),
        vec![pod("a", json!({})), pod("ended", json!({"status": {"phase": "Failed"}}))],
        expect![[r#"
            create Pod d/
            create Pod d/
            {"availableReplicas":1,"fullyLabeledReplicas":1,"observedGeneration":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}"#]],
    );
}

#[test]
fn deletes_the_unscheduled_the_unready_the_cheap_the_crowded_and_the_young_in_this_order() {
    let ready = |second: i64| json!([{"type": "Ready", "status": "True", "lastTransitionTime": at(second)}]);
    let pods = vec![
        pod("old", json!({"spec": {"nodeName": "n2"}})),
        pod("young", json!({"spec": {"nodeName": "n3"}, "status": {"conditions": ready(NOW - 10)}})),
        pod("crowded-1", json!({})),
        pod("crowded-2", json!({"status": {"conditions": ready(NOW - 10)}})),
        pod(
            "cheap",
            json!({"spec": {"nodeName": "n4"}, "metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}),
        ),
        pod("unready", json!({"status": {"conditions": []}})),
        pod("pending", json!({"spec": {"nodeName": null}, "status": {"phase": "Pending", "conditions": []}})),
    ];
    check(
        set(1, 0),
        pods,
        expect![[r#"
            delete Pod d/pending
            delete Pod d/unready
            delete Pod d/cheap
            delete Pod d/crowded-2
            delete Pod d/crowded-1
            delete Pod d/young
            {"availableReplicas":5,"fullyLabeledReplicas":7,"observedGeneration":1,"readyReplicas":5,"replicas":7,"terminatingReplicas":0}"#]],
    );
}

#[test]
fn adopts_and_releases_before_it_counts() {
    let orphan = pod("orphan", json!({"metadata": {"ownerReferences": null, "resourceVersion": "3"}}));
    let stray = pod("stray", json!({"metadata": {"labels": {"app": "other"}}}));
    check(
        set(2, 0),
        vec![orphan, stray],
        expect![[r#"
            patch Pod d/orphan {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"set"}],"resourceVersion":"3","uid":"orphan"}}
            patch Pod d/stray {"metadata":{"ownerReferences":[],"resourceVersion":null,"uid":"stray"}}"#]],
    );
}

#[test]
fn counts_a_pod_as_available_only_after_min_ready_seconds_and_looks_again_then() {
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": at(NOW - 4)}]);
    let leaving = pod("b", json!({"metadata": {"deletionTimestamp": at(NOW)}}));
    check(
        set(1, 10),
        vec![pod("a", json!({"status": {"conditions": ready}})), leaving],
        expect![[r#"
            {"fullyLabeledReplicas":1,"observedGeneration":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":1}
            again in 6 s"#]],
    );
}

#[test]
fn a_failure_becomes_a_condition() {
    let failure = Failure { message: "quota".into(), verb: "create", at: at(0) };
    let observed = Observed { set: set(0, 0), candidates: vec![], related: vec![], failure: Some(failure) };
    check_observed(
        &observed,
        expect![[
            r#"{"conditions":[{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"quota","reason":"FailedCreate","status":"True","type":"ReplicaFailure"}],"observedGeneration":1,"replicas":0,"terminatingReplicas":0}"#
        ]],
    );
}
