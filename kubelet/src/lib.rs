//! Makes one machine run the Pods bound to it.
//!
//! **Knows:** Pods of this node, Docker, volumes, probes, devices, the Node object.
//! **Does not know:** how Pods are scheduled or made, other nodes, Services beyond their variables.
//! **Invariants:** one task owns a Pod, and nobody else starts or ends its containers; everything needed after a
//! restart is in labels and the API; stopping the kubelet stops no container; a Pod's API object goes last.
//! **Start reading at:** `pod/plan.rs`, then `pod/worker.rs`, then [`run`].

pub mod admission;
mod config;
pub mod devices;
pub mod downward;
pub mod environment;
mod events;
mod hooks;
pub mod images;
pub mod node;
pub mod pod;
pub mod pods;
pub mod probe;
pub mod resources;
pub mod runtime;
pub mod server;
pub mod sources;
pub mod volume;

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use client::{
    events::EventRecorder,
    informer::{Informer, Selection},
};
use clock::{Chance, Clock};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::config::{Config, DOCKER_ENDPOINT_DEFAULT, DOCKER_NETWORK_DEFAULT, MAX_PODS_DEFAULT, PORT_DEFAULT};
use self::{
    devices::Inventory,
    downward::Place,
    images::Images,
    node::{machine::Machine, status::Facts},
    pod::sandbox_config::{NodeDns, parse_resolv_conf},
    pods::PodSet,
    runtime::{ContainerRuntime, RuntimeVersion, docker::Docker},
    server::Server,
    sources::Sources,
};

/// Between attempts to reach Docker at the start.
const CONNECT_RETRY: Duration = Duration::from_secs(2);

/// What every part of the kubelet shares.
pub struct Kubelet {
    pub config: Config,
    pub client: Client,
    pub runtime: Arc<dyn ContainerRuntime>,
    pub clock: Clock,
    pub chance: Chance,
    pub recorder: EventRecorder,
    pub images: Images,
    pub sources: Sources,
    /// Of the whole cluster, for variables.
    pub services: Informer<Service>,
    pub inventory: Arc<dyn Inventory>,
    pub facts: Facts,
    pub dns: NodeDns,
    /// Rung to have the node's status looked at now.
    pub node_changed: Notify,
}

impl Kubelet {
    /// The folder of a Pod on this node.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.root_dir.join("pods").join(uid)
    }

    pub fn host_ips(&self) -> &[IpAddr] {
        &self.facts.addresses
    }

    /// What a Pod with these addresses may learn of its place.
    pub fn place(&self, pod_ips: Vec<String>) -> Place {
        let allocatable = node::status::allocatable(&self.facts, &self.inventory.devices());
        Place { pod_ips, host_ips: self.host_ips().iter().map(IpAddr::to_string).collect(), allocatable }
    }
}

/// Runs with Docker until `stop`; waits for Docker where it does not answer yet. Containers go on afterwards.
///
/// # Errors
/// The inventory file or the server's certificates cannot be used, or its port is taken.
pub async fn run(
    client: Client,
    clock: Clock,
    chance: Chance,
    config: Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let connect = async {
        loop {
            match Docker::connect(&config.docker_endpoint, &config.node_name, &config.docker_network).await {
                Ok(docker) => return docker,
                Err(error) => tracing::warn!(endpoint = config.docker_endpoint, %error, "no container runtime yet"),
            }
            tokio::time::sleep(CONNECT_RETRY).await;
        }
    };
    let docker = tokio::select! {
        docker = connect => docker,
        () = stop.cancelled() => return Ok(()),
    };
    run_with(Arc::new(docker), client, clock, chance, config, stop).await
}

/// Removes every container of a node's Pods, and returns how many there were. For taking a node down for good.
///
/// # Errors
/// Docker does not answer, or refuses.
pub async fn remove_all_containers(docker_endpoint: &str, node_name: &str) -> anyhow::Result<usize> {
    let docker = Docker::connect(docker_endpoint, node_name, DOCKER_NETWORK_DEFAULT).await?;
    let mut removed = 0;
    for pod in docker.list().await?.into_values() {
        for container in &pod.containers {
            docker.remove_container(&container.id).await?;
        }
        for sandbox in &pod.sandboxes {
            docker.stop_pod_sandbox(&sandbox.id).await?;
            docker.remove_pod_sandbox(&sandbox.id).await?;
        }
        removed += pod.containers.len() + pod.sandboxes.len();
    }
    Ok(removed)
}

/// Runs with any runtime until `stop`.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    runtime: Arc<dyn ContainerRuntime>,
    client: Client,
    clock: Clock,
    chance: Chance,
    config: Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let kubelet = Arc::new(assemble(runtime, client.clone(), clock, chance, config, stop.clone()).await?);
    let on_this_node =
        Selection { fields: Some(format!("spec.nodeName={}", kubelet.config.node_name)), ..Default::default() };
    let informer = Informer::start(Api::<Pod>::all(client.clone()), on_this_node, stop.clone());
    let pods = PodSet::new(kubelet.clone(), informer);
    let serve = async {
        match kubelet.config.server.clone() {
            Some(config) => {
                let name = &kubelet.config.node_name;
                let server = Server::new(Arc::new(pods.clone()), kubelet.runtime.clone(), client, name);
                server.serve(config, stop.clone()).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        served = serve => served,
        () = be_a_node(kubelet.clone()) => Ok(()),
        () = pods.run() => Ok(()),
    }
}

async fn be_a_node(kubelet: Arc<Kubelet>) {
    let facts = kubelet.facts.clone();
    let node = node::register(&kubelet, &facts).await;
    let uid = node.metadata.uid.clone().unwrap_or_default();
    let (client, clock, chance) = (kubelet.client.clone(), kubelet.clock.clone(), kubelet.chance.clone());
    let lease = tokio::spawn(node::lease::renew(client, clock, chance, facts.node_name.clone(), uid));
    let _ended_with_this = AbortOnDrop(lease.abort_handle());
    node::report(kubelet, facts, node).await;
}

/// A task that lives no longer than its owner.
pub(crate) struct AbortOnDrop(pub tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn assemble(
    runtime: Arc<dyn ContainerRuntime>,
    client: Client,
    clock: Clock,
    chance: Chance,
    config: Config,
    stop: CancellationToken,
) -> anyhow::Result<Kubelet> {
    if !config.hollow {
        std::fs::create_dir_all(config.root_dir.join("pods"))?;
    }
    let recorder = EventRecorder::new(client.clone(), clock.clone(), "kubelet", &config.node_name);
    let inventory = devices::discover(config.inventory_file.as_deref(), config.hollow)?;
    let version = runtime.version().await.unwrap_or_default();
    let resolv_conf = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    Ok(Kubelet {
        images: Images::new(runtime.clone(), clock.clone(), recorder.clone(), config.uses_local_images),
        sources: Sources::new(client.clone()),
        services: Informer::start(Api::<Service>::all(client.clone()), Selection::default(), stop),
        dns: NodeDns {
            cluster_servers: config.cluster_dns.clone(),
            cluster_domain: config.cluster_domain.clone(),
            node: parse_resolv_conf(&resolv_conf),
        },
        facts: facts(&config, version),
        inventory,
        runtime,
        clock,
        chance,
        recorder,
        client,
        node_changed: Notify::new(),
        config,
    })
}

fn facts(config: &Config, runtime: RuntimeVersion) -> Facts {
    let mut addresses = config.node_ips.clone();
    if addresses.is_empty() {
        addresses.push(node::machine::default_address().unwrap_or(IpAddr::from([127, 0, 0, 1])));
    }
    Facts {
        node_name: config.node_name.clone(),
        addresses,
        port: config.port,
        max_pods: config.max_pods,
        machine: if config.hollow { Machine::hollow() } else { Machine::observe(&config.root_dir) },
        runtime,
        reserved: config.reserved.clone(),
    }
}
