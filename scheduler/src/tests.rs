//! Short forms of Nodes and Pods for the tables of this crate.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::{devices, pod::PodInfo};

/// `{name, cpu, pods, gpus, unschedulable, taints, labels}`.
pub fn node_from(short: Value) -> Node {
    let name = short["name"].as_str().expect("a name");
    let gpus = short["gpus"].as_u64().unwrap_or(0);
    let inventory: Vec<Value> = (0..gpus).map(|n| json!({"uuid": format!("GPU-{name}-{n}"), "index": n})).collect();
    let mut labels = json!({"kubernetes.io/hostname": name});
    for (key, value) in short["labels"].as_object().into_iter().flatten() {
        labels[key] = value.clone();
    }
    let cpu = short["cpu"].as_str().unwrap_or("4");
    let pods = short["pods"].as_str().unwrap_or("110");
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels,
            "annotations": {devices::INVENTORY_ANNOTATION: Value::from(inventory).to_string()}},
        "spec": {"unschedulable": short["unschedulable"].as_bool().unwrap_or(false), "taints": short["taints"]},
        "status": {"allocatable": {"cpu": cpu, "memory": "16Gi", "pods": pods, devices::GPU: gpus.to_string()}},
    }))
    .expect("a Node")
}

/// `{name, cpu, gpu, node, owner, devices, labels, affinity}`.
pub fn pod_from(short: Value) -> Arc<PodInfo> {
    let name = short["name"].as_str().expect("a name");
    let mut requests = json!({});
    if let Some(cpu) = short["cpu"].as_str() {
        requests["cpu"] = cpu.into();
    }
    if let Some(gpu) = short["gpu"].as_u64() {
        requests[devices::GPU] = gpu.to_string().into();
    }
    let mut meta =
        json!({"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": short["labels"]});
    if let Some(owner) = short["owner"].as_str() {
        meta["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}]);
    }
    if short["devices"].is_array() {
        meta["annotations"] = json!({devices::ASSIGNMENT_ANNOTATION: json!({"main": short["devices"]}).to_string()});
    }
    let pod: Pod = serde_json::from_value(json!({
        "metadata": meta,
        "spec": {"nodeName": short["node"], "affinity": short["affinity"],
            "containers": [{"name": "main", "resources": {"requests": requests}}]},
    }))
    .expect("a Pod");
    Arc::new(PodInfo::new(Arc::new(pod)))
}

pub fn node(name: &str, cpu: &str) -> Node {
    node_from(json!({"name": name, "cpu": cpu}))
}

pub fn pod(name: &str, cpu: &str, node: Option<&str>) -> Arc<PodInfo> {
    pod_from(json!({"name": name, "cpu": cpu, "node": node}))
}
