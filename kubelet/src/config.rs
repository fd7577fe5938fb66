//! What the kubelet is told at its start.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use k8s_openapi::api::core::v1::Taint;

use crate::{resources::ResourceList, server::ServerConfig};

pub const DOCKER_ENDPOINT_DEFAULT: &str = "unix:///var/run/docker.sock";
/// Docker's name of its default bridge, docker0.
pub const DOCKER_NETWORK_DEFAULT: &str = "bridge";
pub const PORT_DEFAULT: u16 = 10250;
pub const MAX_PODS_DEFAULT: u64 = 110;

#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// Holds the volumes and small files of Pods. Absolute: Docker mounts from it.
    pub root_dir: PathBuf,
    pub docker_endpoint: String,
    /// Docker's name of the network that Pods are put on.
    pub docker_network: String,
    /// Addresses of this node; that of the default route when empty.
    pub node_ips: Vec<IpAddr>,
    /// Addresses of the cluster's DNS; when empty Pods resolve names as the node does.
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    /// The node's resolv.conf, for what Pods take over from it.
    pub resolv_conf: PathBuf,
    pub register_node: bool,
    pub register_schedulable: bool,
    pub register_with_taints: Vec<Taint>,
    pub node_labels: BTreeMap<String, String>,
    /// Simulated GPUs (YAML or JSON); NVML is asked when absent.
    pub inventory_file: Option<PathBuf>,
    pub max_pods: u64,
    /// Processes in one container; unlimited when absent.
    pub pod_pids_max: Option<i64>,
    /// What Pods may not have: cpu, memory, ephemeral-storage.
    pub reserved: ResourceList,
    /// Where the node's server is reached, as the Node says.
    pub port: u16,
    /// How the node's server is served; not at all when absent.
    pub server: Option<ServerConfig>,
    /// Where an image cannot be pulled, the one that is on this machine will do (Unlike Kubernetes).
    pub uses_local_images: bool,
    /// No volumes, no network probes, an invented machine: for simulation and hollow nodes.
    pub hollow: bool,
}

impl Config {
    pub fn for_node(node_name: &str) -> Self {
        Self {
            node_name: node_name.into(),
            root_dir: "/var/lib/kubelet".into(),
            docker_endpoint: DOCKER_ENDPOINT_DEFAULT.into(),
            docker_network: DOCKER_NETWORK_DEFAULT.into(),
            node_ips: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            register_node: true,
            register_schedulable: true,
            register_with_taints: Vec::new(),
            node_labels: BTreeMap::new(),
            inventory_file: None,
            max_pods: MAX_PODS_DEFAULT,
            pod_pids_max: None,
            reserved: BTreeMap::new(),
            port: PORT_DEFAULT,
            server: None,
            uses_local_images: false,
            hollow: false,
        }
    }
}
