use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::defaults;
use crate::{
    kind::Kind as _,
    kinds::testing::{check_created, check_row},
};

#[test]
fn defaults_of_a_small_pod() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    check_created::<Pod>(
        pod,
        expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "name": "p"
          },
          "spec": {
            "containers": [
              {
                "image": "nginx",
                "imagePullPolicy": "Always",
                "name": "c",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"
              }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30
          },
          "status": {
            "phase": "Pending",
            "qosClass": "BestEffort"
          }
        }"#]],
    );
}

#[test]
fn defaults_of_what_a_pod_may_have() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "hostNetwork": true,
        "serviceAccount": "builder",
        "initContainers": [{"name": "i", "image": "busybox:1"}],
        "containers": [{"name": "c", "image": "nginx:1.27@sha256:00", "stdin": false, "command": [],
            "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "B", "value": ""}],
            "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": 0.1}},
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"grpc": {"port": 80}, "periodSeconds": 3},
            "lifecycle": {"preStop": {"httpGet": {"port": "web"}}}}],
        "volumes": [{"name": "e"}, {"name": "h", "hostPath": {"path": "/"}}, {"name": "s", "secret": {"secretName": "s"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}]}});
    check_created::<Pod>(
        pod,
        expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "name": "p"
          },
          "spec": {
            "containers": [
              {
                "env": [
                  {
                    "name": "A",
                    "valueFrom": {
                      "fieldRef": {
                        "apiVersion": "v1",
                        "fieldPath": "metadata.name"
                      }
                    }
                  },
                  {
                    "name": "B"
                  }
                ],
                "image": "nginx:1.27@sha256:00",
                "imagePullPolicy": "IfNotPresent",
                "lifecycle": {
                  "preStop": {
                    "httpGet": {
                      "path": "/",
                      "port": "web",
                      "scheme": "HTTP"
                    }
                  }
                },
                "livenessProbe": {
                  "failureThreshold": 3,
                  "httpGet": {
                    "path": "/",
                    "port": 80,
                    "scheme": "HTTP"
                  },
                  "periodSeconds": 10,
                  "successThreshold": 1,
                  "timeoutSeconds": 1
                },
                "name": "c",
                "ports": [
                  {
                    "containerPort": 80,
                    "hostPort": 80,
                    "protocol": "TCP"
                  }
                ],
                "readinessProbe": {
                  "failureThreshold": 3,
                  "grpc": {
                    "port": 80,
                    "service": ""
                  },
                  "periodSeconds": 3,
                  "successThreshold": 1,
                  "timeoutSeconds": 1
                },
                "resources": {
                  "limits": {
                    "cpu": "500m",
                    "memory": "1Gi"
                  },
                  "requests": {
                    "cpu": "100m",
                    "memory": "1Gi"
                  }
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"
              }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "hostNetwork": true,
            "initContainers": [
              {
                "image": "busybox:1",
                "imagePullPolicy": "IfNotPresent",
                "name": "i",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"
              }
            ],
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "builder",
            "serviceAccountName": "builder",
            "terminationGracePeriodSeconds": 30,
            "volumes": [
              {
                "emptyDir": {},
                "name": "e"
              },
              {
                "hostPath": {
                  "path": "/",
                  "type": ""
                },
                "name": "h"
              },
              {
                "name": "s",
                "secret": {
                  "defaultMode": 420,
                  "secretName": "s"
                }
              },
              {
                "name": "p",
                "projected": {
                  "defaultMode": 420,
                  "sources": [
                    {
                      "serviceAccountToken": {
                        "expirationSeconds": 3600,
                        "path": "t"
                      }
                    },
                    {
                      "downwardAPI": {
                        "items": [
                          {
                            "fieldRef": {
                              "apiVersion": "v1",
                              "fieldPath": "metadata.labels"
                            },
                            "path": "l"
                          }
                        ]
                      }
                    }
                  ]
                }
              }
            ]
          },
          "status": {
            "phase": "Pending",
            "qosClass": "Burstable"
          }
        }"#]],
    );
}

#[test]
fn a_gated_pod_waits() {
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "a"}}, "spec": {
        "schedulingGates": [{"name": "example.com/quota"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "matchLabelKeys": ["app"], "labelSelector": {}}],
        "containers": []}});
    let mut pod: Pod = serde_json::from_value(pod).unwrap();
    pod.prepare_for_create();
    let (spec, status) = (pod.spec.unwrap(), pod.status.unwrap());
    assert_eq!(status.conditions.unwrap()[0].reason.as_deref(), Some("SchedulingGated"));
    let constraint = &spec.topology_spread_constraints.unwrap()[0];
    let selector = serde_json::to_string(&constraint.label_selector).unwrap();
    assert_eq!(selector, r#"{"matchExpressions":[{"key":"app","operator":"In","values":["a"]}]}"#);
}

#[test]
fn images_without_a_fixed_tag_are_always_pulled() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1.27", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
        ("nginx:latest@sha256:0123", "Always"),
        ("", "IfNotPresent"),
    ] {
        assert_eq!(defaults::pull_policy(image), policy, "{image}");
    }
}

#[test]
fn qos_classes() {
    let class = |resources: Value| {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}});
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        pod.set_defaults();
        super::resources::qos_class(pod.spec.as_ref().unwrap())
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"limits": {"nvidia.com/gpu": 1}})), "BestEffort");
    assert_eq!(class(json!({"limits": {"cpu": 1}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": 1, "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "500m"}})), "Burstable");
}

#[test]
fn a_pod_needs_what_its_worst_moment_needs() {
    let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
    let pod = json!({"initContainers": [
            {"name": "a", "resources": cpu("500m")},
            {"name": "b", "restartPolicy": "Always", "resources": cpu("1")},
            {"name": "c", "resources": cpu("4")}],
        "containers": [{"name": "d", "resources": cpu("2")}], "overhead": {"cpu": "250m"}});
    let spec = serde_json::from_value(pod).unwrap();
    assert_eq!(super::resources::pod_requests(&spec)["cpu"].0, "5250m");
}

#[test]
fn a_status_update_keeps_what_a_client_does_not_know() {
    let status = |status: Value| -> Pod { serde_json::from_value(json!({"status": status})).unwrap() };
    let old = status(json!({"qosClass": "Burstable", "observedGeneration": 3,
        "conditions": [{"type": "Ready", "status": "False", "observedGeneration": 2}]}));
    let mut new = status(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
    new.prepare_for_status_update(&old);
    let new = new.status.unwrap();
    assert_eq!((new.qos_class.as_deref(), new.observed_generation), (Some("Burstable"), Some(3)));
    assert_eq!(new.conditions.unwrap()[0].observed_generation, Some(2));
}

fn row(spec: Value, status: Value, expected: Expect) {
    let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n", "containers": [{"name": "c"}, {"name": "d"}]}, "status": status});
    for (field, value) in spec.as_object().unwrap() {
        match field.as_str() {
            "deletionTimestamp" => pod["metadata"][field] = value.clone(),
            _ => pod["spec"][field] = value.clone(),
        }
    }
    check_row::<Pod>(pod, expected);
}

fn container(name: &str, state: Value) -> Value {
    let ready = state.get("running").is_some();
    json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state})
}

#[test]
fn rows_of_running_pods() {
    let (c, d) = (container("c", json!({"running": {}})), container("d", json!({"running": {}})));
    let ready = json!([{"type": "Ready", "status": "True"}]);
    row(json!({}), json!({"phase": "Pending"}), expect!["p | 0/2 | Pending | 0 | 60m | <none> | n | <none> | <none>"]);
    let status = json!({"phase": "Running", "conditions": ready, "containerStatuses": [c, d], "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}]});
    row(json!({}), status.clone(), expect!["p | 2/2 | Running | 0 | 60m | 10.0.0.1 | n | <none> | <none>"]);
    row(
        json!({"deletionTimestamp": "2026-01-01T00:59:00Z"}),
        status.clone(),
        expect!["p | 2/2 | Terminating | 0 | 60m | 10.0.0.1 | n | <none> | <none>"],
    );
    let mut restarted = status.clone();
    restarted["containerStatuses"][0]["restartCount"] = json!(3);
    restarted["containerStatuses"][0]["lastState"] =
        json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}});
    row(json!({}), restarted, expect!["p | 2/2 | Running | 3 (5m ago) | 60m | 10.0.0.1 | n | <none> | <none>"]);
    let mut half = status.clone();
    half["containerStatuses"][1] = container("d", json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
    row(json!({}), half.clone(), expect!["p | 1/2 | Running | 0 | 60m | 10.0.0.1 | n | <none> | <none>"]);
    half["conditions"] = json!([]);
    row(json!({}), half, expect!["p | 1/2 | NotReady | 0 | 60m | 10.0.0.1 | n | <none> | <none>"]);
    let gates = json!({"readinessGates": [{"conditionType": "a"}, {"conditionType": "Ready"}]});
    row(gates, status, expect!["p | 2/2 | Running | 0 | 60m | 10.0.0.1 | n | <none> | 1/2"]);
}

#[test]
fn rows_of_pods_in_trouble() {
    let waiting = |reason: &str| container("c", json!({"waiting": {"reason": reason}}));
    let ended = |code: i32, reason: &str| container("c", json!({"terminated": {"exitCode": code, "reason": reason}}));
    let one = |phase: &str, status: Value| json!({"phase": phase, "containerStatuses": [status]});
    row(
        json!({}),
        one("Running", waiting("CrashLoopBackOff")),
        expect!["p | 0/2 | CrashLoopBackOff | 0 | 60m | <none> | n | <none> | <none>"],
    );
    row(
        json!({}),
        one("Pending", waiting("ContainerCreating")),
        expect!["p | 0/2 | ContainerCreating | 0 | 60m | <none> | n | <none> | <none>"],
    );
    row(
        json!({}),
        one("Succeeded", ended(0, "Completed")),
        expect!["p | 0/2 | Completed | 0 | 60m | <none> | n | <none> | <none>"],
    );
    row(
        json!({}),
        one("Failed", ended(1, "Error")),
        expect!["p | 0/2 | Error | 0 | 60m | <none> | n | <none> | <none>"],
    );
    row(
        json!({}),
        one("Failed", ended(2, "")),
        expect!["p | 0/2 | ExitCode:2 | 0 | 60m | <none> | n | <none> | <none>"],
    );
    row(
        json!({}),
        json!({"phase": "Failed", "reason": "Evicted"}),
        expect!["p | 0/2 | Evicted | 0 | 60m | <none> | n | <none> | <none>"],
    );
    let lost = json!({"phase": "Running", "reason": "NodeLost"});
    row(
        json!({"deletionTimestamp": "2026-01-01T00:59:00Z"}),
        lost,
        expect!["p | 0/2 | Unknown | 0 | 60m | <none> | n | <none> | <none>"],
    );
    let gated = json!({"phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
    row(json!({}), gated, expect!["p | 0/2 | SchedulingGated | 0 | 60m | <none> | n | <none> | <none>"]);
}

#[test]
fn rows_of_pods_that_initialize() {
    let spec = json!({"initContainers": [{"name": "a"}, {"name": "s", "restartPolicy": "Always"}]});
    let done = container("a", json!({"terminated": {"exitCode": 0}}));
    let init = |statuses: Value| json!({"phase": "Pending", "initContainerStatuses": statuses});
    row(
        spec.clone(),
        init(json!([container("a", json!({"running": {}}))])),
        expect!["p | 0/3 | Init:0/2 | 0 | 60m | <none> | n | <none> | <none>"],
    );
    row(
        spec.clone(),
        init(json!([container("a", json!({"waiting": {"reason": "ErrImagePull"}}))])),
        expect!["p | 0/3 | Init:ErrImagePull | 0 | 60m | <none> | n | <none> | <none>"],
    );
    row(
        spec.clone(),
        init(json!([container("a", json!({"terminated": {"exitCode": 3}}))])),
        expect!["p | 0/3 | Init:ExitCode:3 | 0 | 60m | <none> | n | <none> | <none>"],
    );
    let mut sidecar = container("s", json!({"running": {}}));
    row(
        spec.clone(),
        init(json!([done.clone(), sidecar.clone()])),
        expect!["p | 0/3 | Init:1/2 | 0 | 60m | <none> | n | <none> | <none>"],
    );
    sidecar["started"] = json!(true);
    row(spec, init(json!([done, sidecar])), expect!["p | 1/3 | Pending | 0 | 60m | <none> | n | <none> | <none>"]);
}

#[test]
fn warnings() {
    let pod = json!({"metadata": {"name": "a.b", "annotations": {"scheduler.alpha.kubernetes.io/critical-pod": ""}},
        "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "terminationGracePeriodSeconds": -1,
            "runtimeClassName": "gvisor",
            "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}],
            "imagePullSecrets": [{"name": ""}],
            "containers": [
                {"name": "c", "image": "i", "ports": [{"name": "w", "containerPort": 80}],
                    "resources": {"limits": {"memory": "100m"}},
                    "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A):3"}]},
                {"name": "d", "image": "i", "ports": [{"name": "w", "containerPort": 80},
                    {"containerPort": 80, "hostPort": 80}]}],
            "volumes": [{"name": "g", "gitRepo": {"repository": "r"}}, {"name": "n", "nfs": {"server": "s", "path": "/"}},
                {"name": "m", "configMap": {"name": "m", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]}}]}});
    let mut pod: Pod = serde_json::from_value(pod).unwrap();
    pod.set_defaults();
    expect![[r#"
        metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]
        spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead
        metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead
        spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+
        volume "m" (ConfigMap "m"): overlapping paths: "x/y" with "x"
        spec.hostAliases[1].ip: duplicate ip "1.1.1.1"
        spec.imagePullSecrets[0].name: invalid empty name ""
        spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer
        spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer
        spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply
        spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]
        spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]
        spec.containers[1].ports[1]: overlapping port definition with spec.containers[1].ports[0]
        spec.containers[1].ports[0]: duplicate port name "w" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]
        spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1
        spec.runtimeClassName: not supported by Skiff yet, has no effect
        spec.volumes[1].nfs: not supported by Skiff yet, is not mounted: the Pod will not start"#]].assert_eq(&pod.warnings(None).join("\n"));
    assert!(pod.warnings(Some(&pod)).is_empty());
}
