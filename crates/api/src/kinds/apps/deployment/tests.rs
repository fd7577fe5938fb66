use expect_test::{Expect, expect};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::{
    field::Errors,
    kind::Kind as _,
    kinds::testing::{check_change, check_created, check_new, check_row},
};

fn nginx() -> Value {
    json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"selector": {"matchLabels": {"app": "nginx"}}, "template": {
            "metadata": {"labels": {"app": "nginx"}},
            "spec": {"containers": [{"name": "nginx", "image": "nginx:1.7.9", "ports": [{"containerPort": 80}]}]}}}})
}

fn with(pointer: &str, value: Value) -> Value {
    let mut object = nginx();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
    object
}

#[test]
fn defaults() {
    check_created::<Deployment>(
        nginx(),
        expect![[r#"
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "name": "web"
          },
          "spec": {
            "progressDeadlineSeconds": 600,
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "selector": {
              "matchLabels": {
                "app": "nginx"
              }
            },
            "strategy": {
              "rollingUpdate": {
                "maxSurge": "25%",
                "maxUnavailable": "25%"
              },
              "type": "RollingUpdate"
            },
            "template": {
              "metadata": {
                "labels": {
                  "app": "nginx"
                }
              },
              "spec": {
                "containers": [
                  {
                    "image": "nginx:1.7.9",
                    "imagePullPolicy": "IfNotPresent",
                    "name": "nginx",
                    "ports": [
                      {
                        "containerPort": 80,
                        "protocol": "TCP"
                      }
                    ],
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            }
          }
        }"#]],
    );
}

#[test]
fn strategies() {
    let strategy = |strategy: Value| with("/spec/strategy", strategy);
    check_new::<Deployment>(nginx(), expect![""]);
    check_new::<Deployment>(
        strategy(json!({"type": "Recreate", "rollingUpdate": {}})),
        expect!["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    check_new::<Deployment>(
        strategy(json!({"type": "Canary"})),
        expect![[
            r#"spec.strategy: Unsupported value: {"type":"Canary"}: supported values: "Recreate", "RollingUpdate""#
        ]],
    );
    check_new::<Deployment>(
        strategy(json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}})),
        expect![[
            r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0"#
        ]],
    );
    check_new::<Deployment>(
        strategy(json!({"rollingUpdate": {"maxSurge": "x", "maxUnavailable": "110%"}})),
        expect![[r#"
        spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')
        spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "110%": must not be greater than 100%"#]],
    );
}

#[test]
fn spec() {
    check_new::<Deployment>(
        with("/spec/replicas", json!(-1)),
        expect!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check_new::<Deployment>(
        with("/spec/selector", json!({})),
        expect![[r#"
        spec.selector: Required value
        spec.template.metadata.labels: Invalid value: {"app":"nginx"}: `selector` does not match template `labels`"#]],
    );
    check_new::<Deployment>(
        with("/spec/selector", json!({"matchLabels": {}})),
        expect![[r#"spec.selector: Invalid value: {"matchLabels":{}}: empty selector is invalid for deployment"#]],
    );
    check_new::<Deployment>(
        with("/spec/minReadySeconds", json!(600)),
        expect!["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
    );
    check_new::<Deployment>(
        with("/spec/template/spec/containers", json!([])),
        expect!["spec.template.spec.containers: Required value"],
    );
}

#[test]
fn the_selector_stays() {
    let other = with("/spec/template/metadata/labels", json!({"app": "nginx", "tier": "web"}));
    check_change::<Deployment>(nginx(), other.clone(), expect![""]);
    let mut selected = other;
    selected["spec"]["selector"] = json!({"matchLabels": {"tier": "web"}});
    check_change::<Deployment>(
        nginx(),
        selected,
        expect![[r#"spec.selector: Invalid value: {"matchLabels":{"tier":"web"}}: field is immutable"#]],
    );
}

#[test]
fn status() {
    fn check(status: Value, expected: Expect) {
        let new: Deployment = serde_json::from_value(with("/status", status)).unwrap();
        let old: Deployment = serde_json::from_value(with("/status", json!({"collisionCount": 2}))).unwrap();
        let mut errors = Errors::default();
        new.validate_status_update(&old, &mut errors);
        expected.assert_eq(&errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    check(json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "collisionCount": 2}), expect![""]);
    check(
        json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 3, "collisionCount": 1}),
        expect![[r#"
        status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas
        status.collisionCount: Invalid value: 1: cannot be decremented"#]],
    );
}

#[test]
fn row() {
    let mut web = nginx();
    web["status"] = json!({"replicas": 3, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1});
    check_row::<Deployment>(web, expect!["web | 1/1 | 2 | 1 | 60m | nginx | nginx:1.7.9 | app=nginx"]);
}
