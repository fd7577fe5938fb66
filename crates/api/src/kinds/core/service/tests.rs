use expect_test::expect;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use crate::kinds::testing::{check_change, check_created, check_new, check_row};

#[test]
fn defaults() {
    check_created::<Service>(
        json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}}),
        expect![[r#""#]],
    );
}

#[test]
fn a_service_by_itself() {
    check_new::<Service>(json!({"spec": {"ports": [{"port": 80}]}}), expect![""]);
    check_new::<Service>(json!({"spec": {}}), expect!["spec.ports: Required value"]);
    check_new::<Service>(
        json!({"spec": {"type": "Other", "ports": [
            {"name": "a", "port": 80, "nodePort": 30000},
            {"name": "a", "port": 80, "nodePort": 30000, "targetPort": "Up"},
            {"port": 0, "protocol": "ICMP"}]}}),
        expect![[r#""#]],
    );
    check_new::<Service>(
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"],
            "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": true, "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
            "externalIPs": ["127.0.0.1"]}}),
        expect![[r#""#]],
    );
    check_new::<Service>(
        json!({"spec": {"type": "ExternalName", "externalName": "a_b", "clusterIPs": ["None"]}}),
        expect![[r#""#]],
    );
}

#[test]
fn changes() {
    let allocated = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ports": [{"port": 80, "nodePort": 30000}]}});
    check_change::<Service>(allocated.clone(), json!({"spec": {"type": "NodePort", "ports": [{"port": 81}]}}), expect![""]);
    check_change::<Service>(allocated.clone(), json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}]}}), expect![""]);
    check_change::<Service>(
        allocated.clone(),
        json!({"spec": {"clusterIP": "10.0.0.2", "ports": [{"port": 80}]}}),
        expect![[r#""#]],
    );
    check_change::<Service>(
        allocated,
        json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": "10.0.0.1",
            "clusterIPs": ["10.0.0.1"]}}),
        expect![""],
    );
}

#[test]
fn rows() {
    check_row::<Service>(
        json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]}}),
        expect![""],
    );
    check_row::<Service>(
        json!({"metadata": {"name": "lb"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}),
        expect![""],
    );
    check_row::<Service>(
        json!({"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}),
        expect![""],
    );
}
