use client::controller::Verb;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn service(ports: Value) -> Arc<Service> {
    let value = json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "svc", "labels": {"tier": "front"}},
        "spec": {"clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"}, "ports": ports},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(name: &str, ip: &str, ready: &str) -> Arc<Pod> {
    let value = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": ready}]},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn observed(pods: Vec<Arc<Pod>>, slices: Vec<Arc<EndpointSlice>>) -> Observed {
    let node = json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}});
    let nodes = BTreeMap::from([("n1".to_owned(), Arc::new(serde_json::from_value(node).unwrap()))]);
    Observed { service: service(json!([{"port": 80, "targetPort": "http"}])), pods, nodes, slices }
}

fn written(decision: Decision) -> Vec<Arc<EndpointSlice>> {
    let bodies = decision.actions.into_iter().filter_map(|action| match action.verb {
        Verb::Create(object) | Verb::Replace { object, .. } => Some(object),
        Verb::Patch { .. } | Verb::Delete(_) => None,
    });
    bodies.map(|object| Arc::new(serde_json::from_value(object).unwrap())).collect()
}

fn check(observed: &Observed, expected: Expect) {
    let lines: Vec<String> = decide(observed)
        .actions
        .into_iter()
        .map(|action| match &action.verb {
            Verb::Create(object) | Verb::Replace { object, .. } => {
                format!("{action} {} {}", object["ports"], object["endpoints"])
            }
            _ => action.to_string(),
        })
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_service_gets_a_slice_with_its_pods_and_resolved_ports() {
    check(
        &observed(vec![pod("a", "10.0.0.1", "True"), pod("b", "10.0.0.2", "False")], vec![]),
        expect![[
            r#"create EndpointSlice d/ [{"name":"","port":8080,"protocol":"TCP"}] [{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"a","namespace":"d","uid":"a"},"zone":"z"},{"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":false,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"b","namespace":"d","uid":"b"},"zone":"z"}]"#
        ]],
    );
    check(&observed(vec![], vec![]), expect!["create EndpointSlice d/ [] []"]);
}

#[test]
fn what_is_right_is_left_alone_and_one_change_rewrites_one_slice() {
    let pods: Vec<_> = (0..150).map(|n| pod(&format!("p{n}"), &format!("10.0.1.{n}"), "True")).collect();
    let mut slices = written(decide(&observed(pods.clone(), vec![])));
    assert_eq!(slices.iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect::<Vec<_>>(), [100, 50]);
    for (number, slice) in slices.iter_mut().enumerate() {
        Arc::make_mut(slice).metadata.name = Some(format!("s{number}"));
    }
    assert!(decide(&observed(pods.clone(), slices.clone())).actions.is_empty());
    let mut fewer = pods;
    fewer.retain(|pod| pod.name_any() != "p149");
    assert_eq!(decide(&observed(fewer, slices.clone())).actions.len(), 1);
    let lines: Vec<_> = decide(&observed(vec![], slices)).actions.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["replace EndpointSlice d/s1", "delete EndpointSlice d/s0"]);
}
