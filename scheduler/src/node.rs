//! A Node with what runs on it summed up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::{
    devices::{self, Device},
    pod::{HostPort, PodInfo},
    resources::Resources,
};

/// A Node as the plugins see it. Cheap to clone where nothing changes: snapshots share it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub allocatable: Resources,
    pub pods_max: i64,
    pub requested: Resources,
    pub usual_requested: Resources,
    pub pods: BTreeMap<String, Arc<PodInfo>>,
    pub host_ports: Vec<HostPort>,
    /// Image name -> size in bytes.
    pub images: BTreeMap<String, i64>,
    /// GPUs of its inventory.
    pub devices: Vec<Device>,
    /// UUIDs of GPUs that Pods hold.
    pub devices_used: BTreeSet<String>,
    /// How many Pods have required anti-affinity: zero skips a pass over Pods.
    pub anti_affinity_pods: usize,
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

impl NodeInfo {
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.node.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().get(key).map(String::as_str)
    }

    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    pub fn is_unschedulable(&self) -> bool {
        self.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
    }

    /// Takes over a new version of the Node object; Pods stay.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref());
        self.allocatable = Resources::from_list(allocatable);
        self.pods_max = allocatable
            .and_then(|list| list.get("pods"))
            .map_or(0, |amount| api::quantity::Quantity::of(amount).value());
        self.images = status
            .and_then(|status| status.images.as_ref())
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        self.devices = devices::inventory(&node);
        self.node = node;
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(pod.uid());
        self.requested.add(&pod.requests);
        self.usual_requested.add(&pod.usual_requests);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        self.devices_used.extend(devices::assigned(&pod.pod));
        self.anti_affinity_pods += usize::from(!pod.required_anti_affinity.is_empty());
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    pub fn remove_pod(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.requested.subtract(&pod.requests);
        self.usual_requested.subtract(&pod.usual_requests);
        for port in &pod.host_ports {
            if let Some(at) = self.host_ports.iter().position(|own| own == port) {
                self.host_ports.swap_remove(at);
            }
        }
        for uuid in devices::assigned(&pod.pod) {
            self.devices_used.remove(&uuid);
        }
        self.anti_affinity_pods -= usize::from(!pod.required_anti_affinity.is_empty());
    }
}
