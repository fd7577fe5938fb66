//! Addresses and ports of Services, through the API.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::addresses::Range;
use crate::tests::{Answer, Harness};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec})
}

fn one_port() -> Value {
    json!([{"port": 80}])
}

fn ports_of(answer: &Answer) -> Vec<u64> {
    let ports = answer.body["spec"]["ports"].as_array().unwrap();
    ports.iter().filter_map(|port| port["nodePort"].as_u64()).collect()
}

/// `expected` is the sentence about the field.
async fn check_refused(harness: &Harness, spec: Value, expected: &str) {
    let failure = harness.send("POST", SERVICES, &service("x", spec)).await.failure();
    assert_eq!(failure.strip_prefix("422 Invalid: Service \"x\" is invalid: ").unwrap_or(&failure), expected);
}

#[test]
fn ranges_leave_out_their_ends() {
    let range = Range::of(&"10.96.0.0/16".parse().unwrap());
    assert_eq!((range.address(0).to_string(), range.band()), ("10.96.0.1".into(), 256));
    assert_eq!(range.address(65_533).to_string(), "10.96.255.254");
    let range = Range::of(&"10.0.0.0/29".parse().unwrap());
    assert_eq!((range.address(5).to_string(), range.band()), ("10.0.0.6".into(), 0));
}

#[tokio::test]
async fn a_service_gets_an_address_and_gives_it_back() {
    let harness = Harness::new().await;
    let answer = harness.get(&format!("{SERVICES}/kubernetes")).await;
    assert_eq!(answer.body["spec"]["clusterIP"], "10.96.0.1");

    let created = harness.send("POST", SERVICES, &service("a", json!({"ports": one_port()}))).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let spec = &created.body["spec"];
    let ip = spec["clusterIP"].as_str().unwrap().to_owned();
    let facts = (&spec["clusterIPs"], &spec["ipFamilies"], &spec["ipFamilyPolicy"]);
    assert_eq!(facts, (&json!([ip]), &json!(["IPv4"]), &json!("SingleStack")));

    let spec = json!({"ports": one_port(), "clusterIP": ip});
    check_refused(
        &harness,
        json!({"ports": one_port(), "clusterIP": "10.96.0.1"}),
        "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: \
         failed to allocate IP 10.96.0.1: provided IP is already allocated",
    )
    .await;
    assert_eq!(harness.send("POST", SERVICES, &service("b", spec.clone())).await.code, 422);
    harness.delete(&format!("{SERVICES}/a")).await;
    let again = harness.send("POST", SERVICES, &service("b", spec)).await;
    assert_eq!((again.code, again.body["spec"]["clusterIP"].as_str()), (201, Some(ip.as_str())));
}

#[tokio::test]
async fn what_cannot_be_had_is_refused() {
    let harness = Harness::new().await;
    let fixed = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 32600}]});
    assert_eq!(harness.send("POST", SERVICES, &service("fixed", fixed.clone())).await.code, 201);
    check_refused(
        &harness,
        fixed,
        "spec.ports[0].nodePort: Invalid value: 32600: \
         provided port is already allocated",
    )
    .await;
    check_refused(
        &harness,
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
        "spec.ports[0].nodePort: Invalid value: 80: \
         provided port is not in the valid range. The range of valid ports is 30000-32767",
    )
    .await;
    check_refused(
        &harness,
        json!({"ports": one_port(), "clusterIP": "192.168.0.1"}),
        "spec.clusterIPs: Invalid value: [\"192.168.0.1\"]: \
         failed to allocate IP 192.168.0.1: the provided IP (192.168.0.1) is not in the valid range. \
         The range of valid IPs is 10.96.0.0/16",
    )
    .await;
    check_refused(
        &harness,
        json!({"ports": one_port(), "ipFamilyPolicy": "RequireDualStack"}),
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": \
         this cluster is not configured for dual-stack services",
    )
    .await;
}

#[tokio::test]
async fn node_ports_follow_the_type() {
    let harness = Harness::new().await;
    let path = format!("{SERVICES}/a");
    let dns = json!([{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53, "protocol": "TCP"}]);
    let created = harness.send("POST", SERVICES, &service("a", json!({"type": "NodePort", "ports": dns}))).await;
    let ports = ports_of(&created);
    assert!(ports.len() == 2 && ports[0] == ports[1] && (30_086..=32_767).contains(&ports[0]), "{ports:?}");

    // A client that applies the same again, without what the server filled in, changes nothing.
    let same = harness.send("PUT", &path, &service("a", json!({"type": "NodePort", "ports": dns}))).await;
    assert_eq!((same.code, ports_of(&same)), (200, ports.clone()), "{}", same.body);

    let plain = harness.send("PUT", &path, &service("a", json!({"ports": dns}))).await;
    assert_eq!((plain.code, ports_of(&plain)), (200, vec![]), "{}", plain.body);
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": ports[0]}]});
    assert_eq!(harness.send("POST", SERVICES, &service("b", taken)).await.code, 201);

    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let external = harness.send("PUT", &path, &service("a", external)).await;
    assert_eq!((external.code, external.body["spec"].get("clusterIP")), (200, None), "{}", external.body);
    let ip = plain.body["spec"]["clusterIP"].clone();
    let reused = harness.send("POST", SERVICES, &service("c", json!({"ports": one_port(), "clusterIP": ip}))).await;
    assert_eq!(reused.code, 201, "{}", reused.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_services_get_the_same_under_concurrency() {
    const COUNT: usize = 60;
    let harness = Arc::new(Harness::new().await);
    let create = |index: usize| {
        let harness = harness.clone();
        tokio::spawn(async move {
            let spec = json!({"type": "NodePort", "ports": one_port()});
            let answer = harness.send("POST", SERVICES, &service(&format!("s{index}"), spec)).await;
            assert_eq!(answer.code, 201, "{}", answer.body);
            (answer.body["spec"]["clusterIP"].as_str().unwrap().to_owned(), ports_of(&answer)[0])
        })
    };
    let created = futures::future::join_all((0..COUNT).map(create)).await;
    let (ips, ports): (BTreeSet<_>, BTreeSet<_>) = created.into_iter().map(Result::unwrap).unzip();
    assert_eq!((ips.len(), ports.len()), (COUNT, COUNT));

    let same = |index: usize| {
        let harness = harness.clone();
        tokio::spawn(async move {
            let spec = json!({"ports": one_port(), "clusterIP": "10.96.0.77"});
            harness.send("POST", SERVICES, &service(&format!("t{index}"), spec)).await.code
        })
    };
    let codes: Vec<u16> = futures::future::join_all((0..8).map(same)).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 201 | 422)), "{codes:?}");
}
