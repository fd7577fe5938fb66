//! This machine as a Node: registration, status, lease.

pub mod lease;
pub mod machine;
pub mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::events::{EventRecorder, EventType};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec, NodeStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use self::{
    machine::{available_memory_bytes, disk, processes},
    status::{Facts, Readings, differs, node_status, outdated, own_labels, transitions},
};
use crate::{Kubelet, devices, events::about_node};

/// How often the node is looked at; what did not change is not written.
const LOOK: Duration = Duration::from_secs(10);
/// Written at the latest after this time, so that heartbeats in the status are not older.
const REPORT_AGE_MAX: Duration = Duration::from_secs(300);
const RETRY_MAX: Duration = Duration::from_secs(7);

/// Registers until it works.
///
/// The Node, as the API has it.
pub async fn register(kubelet: &Kubelet, facts: &Facts) -> Node {
    let mut wait = Duration::from_millis(100);
    loop {
        match try_register(kubelet, facts).await {
            Ok(node) => return node,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "node not registered");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn try_register(kubelet: &Kubelet, facts: &Facts) -> kube::Result<Node> {
    let api: Api<Node> = Api::all(kubelet.client.clone());
    let (labels, annotations) = wanted_metadata(kubelet);
    if let Some(node) = api.get_opt(&facts.node_name).await? {
        return reconcile(&api, node, &labels, &annotations).await;
    }
    if !kubelet.config.register_node {
        let status = kube::core::Status::failure("the node does not exist and --register-node=false", "NotFound");
        return Err(kube::Error::Api(status.with_code(404).boxed()));
    }
    let readings = observe(kubelet).await;
    let node = Node {
        metadata: ObjectMeta {
            name: Some(facts.node_name.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            taints: Some(kubelet.config.register_with_taints.clone()).filter(|taints| !taints.is_empty()),
            unschedulable: (!kubelet.config.register_schedulable).then_some(true),
            ..Default::default()
        }),
        status: Some(node_status(&NodeStatus::default(), facts, &readings, kubelet.clock.now())),
    };
    match api.create(&PostParams::default(), &node).await {
        // Another incarnation of this kubelet was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => api.get(&facts.node_name).await,
        other => other,
    }
}

/// Brings labels and annotations that are the kubelet's up to date; others are left alone.
async fn reconcile(
    api: &Api<Node>,
    node: Node,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> kube::Result<Node> {
    if !outdated(&node, labels, annotations) {
        return Ok(node);
    }
    let patch = json!({"metadata": {"uid": node.metadata.uid, "labels": labels, "annotations": annotations}});
    let name = node.metadata.name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await
}

fn wanted_metadata(kubelet: &Kubelet) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut labels = own_labels(&kubelet.config.node_name);
    labels.extend(devices::labels(&*kubelet.inventory));
    labels.extend(kubelet.config.node_labels.clone());
    let devices = kubelet.inventory.devices();
    let mut annotations = BTreeMap::new();
    if !devices.is_empty()
        && let Ok(text) = serde_json::to_string(&devices)
    {
        annotations.insert(devices::INVENTORY_ANNOTATION.to_string(), text);
    }
    (labels, annotations)
}

async fn observe(kubelet: &Kubelet) -> Readings {
    let (version, images) = tokio::join!(kubelet.runtime.version(), kubelet.runtime.images());
    let hollow = kubelet.config.hollow;
    Readings {
        memory_available_bytes: (!hollow).then(available_memory_bytes).flatten(),
        disk_bytes: (!hollow).then(|| disk(&kubelet.config.root_dir)).flatten(),
        processes: (!hollow).then(processes).flatten(),
        runtime_error: version.err().map(|error| format!("container runtime is down: {error}")),
        images: images.unwrap_or_default(),
        devices: kubelet.inventory.devices(),
    }
}

/// Keeps the Node's status true until it is dropped.
pub async fn report(kubelet: Arc<Kubelet>, facts: Facts, node: Node) {
    let api: Api<Node> = Api::all(kubelet.client.clone());
    let recorder = &kubelet.recorder;
    recorder.event(about_node(&facts.node_name), EventType::Normal, "Starting", "Starting kubelet.".into());
    let mut known = Known { node, reported_at: Timestamp::UNIX_EPOCH };
    loop {
        if let Err(error) = report_once(&kubelet, &api, &facts, &mut known).await {
            match &error {
                kube::Error::Api(status) if status.code == 404 => {
                    tracing::warn!("the Node was deleted; registering again");
                    known.node = register(&kubelet, &facts).await;
                    continue;
                }
                _ => tracing::warn!(error = &error as &dyn std::error::Error, "node status not written"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(kubelet.chance.jitter(LOOK, 0.1)) => {}
            () = kubelet.node_changed.notified() => {}
        }
    }
}

struct Known {
    node: Node,
    reported_at: Timestamp,
}

async fn report_once(kubelet: &Kubelet, api: &Api<Node>, facts: &Facts, known: &mut Known) -> kube::Result<()> {
    let now = kubelet.clock.now();
    let (labels, annotations) = wanted_metadata(kubelet);
    known.node = reconcile(api, known.node.clone(), &labels, &annotations).await?;
    let readings = observe(kubelet).await;
    let old = known.node.status.clone().unwrap_or_default();
    let new = node_status(&old, facts, &readings, now);
    if !differs(&old, &new) && now < known.reported_at + REPORT_AGE_MAX {
        return Ok(());
    }
    // Others write conditions and taints too: always from the newest.
    known.node = api.get(&facts.node_name).await?;
    let old = known.node.status.clone().unwrap_or_default();
    let new = node_status(&old, facts, &readings, now);
    let patch = json!({"metadata": {"uid": known.node.metadata.uid}, "status": status_changes(&old, &new)});
    known.node = api.patch_status(&facts.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    known.reported_at = now;
    announce(&kubelet.recorder, facts, &transitions(&old, &new));
    Ok(())
}

/// Lists that merge by key are sent whole with their replacement marked; the rest only where it changed.
fn status_changes(old: &NodeStatus, new: &NodeStatus) -> serde_json::Value {
    let (old, new) = (json!(old), json!(new));
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return json!({}) };
    let mut changes: serde_json::Map<_, _> =
        new.iter().filter(|(name, value)| old.get(*name) != Some(value)).map(|(n, v)| (n.clone(), v.clone())).collect();
    if let Some(serde_json::Value::Array(addresses)) = changes.get_mut("addresses") {
        addresses.push(json!({"$patch": "replace"}));
    }
    // Maps merge too: a resource that vanished must be named.
    for name in ["capacity", "allocatable"] {
        let gone = old.get(name).and_then(|list| list.as_object()).into_iter().flat_map(|list| list.keys());
        if let Some(serde_json::Value::Object(list)) = changes.get_mut(name) {
            gone.for_each(|key| {
                list.entry(key).or_insert(serde_json::Value::Null);
            });
        }
    }
    serde_json::Value::Object(changes)
}

fn announce(recorder: &EventRecorder, facts: &Facts, reasons: &[&'static str]) {
    for reason in reasons {
        let message = format!("Node {} status is now: {reason}", facts.node_name);
        recorder.event(about_node(&facts.node_name), EventType::Normal, reason, message);
    }
}
