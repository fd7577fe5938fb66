use expect_test::expect;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use crate::kinds::testing::{check_change, check_created, check_new, check_row};

#[test]
fn defaults() {
    check_created::<Service>(
        json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}}),
        expect![[r#"
            {
              "apiVersion": "v1",
              "kind": "Service",
              "metadata": {
                "name": "web"
              },
              "spec": {
                "externalTrafficPolicy": "Cluster",
                "internalTrafficPolicy": "Cluster",
                "ports": [
                  {
                    "port": 80,
                    "protocol": "TCP",
                    "targetPort": 80
                  }
                ],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {
                  "clientIP": {
                    "timeoutSeconds": 10800
                  }
                },
                "type": "NodePort"
              },
              "status": {
                "loadBalancer": {}
              }
            }"#]],
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
        expect![[r#"
            spec.type: Unsupported value: "Other": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
            spec.ports[1].name: Duplicate value: "a"
            spec.ports[1].targetPort: Invalid value: "Up": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.ports[2].name: Required value
            spec.ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[2].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            spec.ports[2].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[1].nodePort: Duplicate value: 30000
            spec.ports[1]: Duplicate value: {"AppProtocol":null,"Name":"","NodePort":0,"Port":80,"Protocol":"TCP","TargetPort":0}"#]],
    );
    check_new::<Service>(
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"],
            "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": true, "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
            "externalIPs": ["127.0.0.1"]}}),
        expect![[r#"
            spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
            spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400
            spec.clusterIPs: Invalid value: ["10.0.0.1","10.0.0.2"]: may specify no more than one IP for each IP family
            spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'
            spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"#]],
    );
    check_new::<Service>(
        json!({"spec": {"type": "ExternalName", "externalName": "a_b", "clusterIPs": ["None"]}}),
        expect![[r#"
            spec.clusterIPs: Forbidden: may not be set for ExternalName services
            spec.externalName: Invalid value: "a_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
    );
}

#[test]
fn changes() {
    let allocated = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ports": [{"port": 80, "nodePort": 30000}]}});
    check_change::<Service>(
        allocated.clone(),
        json!({"spec": {"type": "NodePort", "ports": [{"port": 81}]}}),
        expect![""],
    );
    check_change::<Service>(
        allocated.clone(),
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}]}}),
        expect![""],
    );
    check_change::<Service>(
        allocated.clone(),
        json!({"spec": {"clusterIP": "10.0.0.2", "ports": [{"port": 80}]}}),
        expect![[r#"spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set"#]],
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
        expect!["web | NodePort | 10.0.0.1 | <none> | 80:30080/TCP,53/UDP | <unknown> | app=web"],
    );
    check_row::<Service>(
        json!({"metadata": {"name": "lb"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}),
        expect!["lb | LoadBalancer | <none> | <pending> | 80/TCP | <unknown> | <none>"],
    );
    check_row::<Service>(
        json!({"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}),
        expect!["x | ExternalName | <none> | example.com | <none> | <unknown> | <none>"],
    );
}

#[test]
fn warnings() {
    let service: Service = serde_json::from_value(json!({"spec": {"clusterIP": "10.0.0.1", "type": "ClusterIP",
        "sessionAffinity": "None", "externalIPs": ["1.2.3.4"], "externalName": "x", "trafficDistribution": "PreferClose",
        "ports": [{"port": 80, "protocol": "SCTP"}]}}))
    .unwrap();
    expect![[r#"
        spec.externalIPs is deprecated and may no longer be implemented in some clusters
        spec.externalName is ignored when spec.type is not "ExternalName"
        spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"
        spec.ports[0].protocol: SCTP is stored, but not carried by this cluster
        spec.trafficDistribution is stored, but has no effect in this cluster"#]]
    .assert_eq(&crate::Kind::warnings(&service, None).join("\n"));
}
