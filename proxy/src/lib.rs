//! Services and EndpointSlices -> packets that arrive.
//!
//! **Knows:** Services, EndpointSlices, nftables.
//! **Does not know:** Pods, Docker, who makes the endpoints.
//! **Invariants:** what packets meet is a pure function of Services, EndpointSlices and the node's name;
//! the kernel is changed in single transactions, and only in a table of our own; work is proportional to
//! the change; when this process stops, traffic flows on.
//! **Start reading at:** `compile`, then `render`, then [`run`].

pub mod cluster;
pub mod compile;
pub mod kernel;
pub mod render;
pub mod userspace;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use client::informer::{Change, Informer, Selection};
use clock::{Chance, Clock};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::Api;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    cluster::{Cluster, ServiceName},
    compile::{NodeView, Protocol, ServicePort, compile},
    kernel::Kernel,
    render::render,
    userspace::Userspace,
};

/// How packets are moved.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Mode {
    /// nftables where it can be used, else userspace.
    #[default]
    Auto,
    Nftables,
    Userspace,
}

/// What the proxy is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node it works for: decides which endpoints are local.
    pub node_name: String,
    pub mode: Mode,
    /// Changes that come within this time of each other are applied together.
    pub sync_period_min: Duration,
    /// Where `/healthz` and `/metrics` are served; `None` for nowhere.
    pub healthz_bind_address: Option<SocketAddr>,
}

impl Config {
    pub fn for_node(node_name: &str) -> Self {
        Self {
            node_name: node_name.into(),
            mode: Mode::Auto,
            sync_period_min: Duration::from_millis(20),
            healthz_bind_address: Some(([127, 0, 0, 1], 10256).into()),
        }
    }
}

/// A failed transaction is tried again, from nothing, after this time.
const RETRY_PERIOD: Duration = Duration::from_secs(5);

/// Where compiled ports go.
enum Backend {
    Nftables(Kernel),
    Userspace(Userspace),
}

/// Runs until `stop`. Fails only when the configured mode cannot work on this machine.
pub async fn run(
    client: kube::Client,
    _clock: Clock,
    chance: Chance,
    config: Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let backend = choose_backend(config.mode, chance).await?;
    let services = Informer::start(Api::<Service>::all(client.clone()), Selection::default(), stop.clone());
    let slices = Informer::start(Api::<EndpointSlice>::all(client), Selection::default(), stop.clone());
    if let Some(address) = config.healthz_bind_address {
        tokio::spawn(serve_health(address, stop.clone()));
    }
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = async { services.synced().await; slices.synced().await } => {}
    }
    let node = NodeView { name: config.node_name.clone() };
    let proxy = Proxy { cluster: Cluster::default(), node, backend, ports: BTreeMap::new() };
    proxy.follow(services.subscribe(), slices.subscribe(), config.sync_period_min, stop).await;
    Ok(())
}

async fn choose_backend(mode: Mode, chance: Chance) -> anyhow::Result<Backend> {
    let has_nftables = mode != Mode::Userspace && kernel::is_available().await;
    match (mode, has_nftables) {
        (Mode::Auto | Mode::Nftables, true) => {
            kernel::prepare_sysctls().await;
            Ok(Backend::Nftables(Kernel::default()))
        }
        (Mode::Nftables, false) => anyhow::bail!("nftables cannot be used here: is `nft` installed, and is this root?"),
        (Mode::Auto | Mode::Userspace, _) => {
            info!("Services are proxied in userspace");
            Ok(Backend::Userspace(Userspace::new(chance)))
        }
    }
}

struct Proxy {
    cluster: Cluster,
    node: NodeView,
    backend: Backend,
    /// What is in force, for the difference.
    ports: BTreeMap<ServiceName, Vec<ServicePort>>,
}

impl Proxy {
    async fn follow(
        mut self,
        mut services: UnboundedReceiver<Change<Service>>,
        mut slices: UnboundedReceiver<Change<EndpointSlice>>,
        period_min: Duration,
        stop: CancellationToken,
    ) {
        let mut retry = BTreeSet::new();
        // The first pass runs at once: it replaces what an earlier process left.
        let mut deadline = Some(tokio::time::Instant::now());
        loop {
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let soon = tokio::time::Instant::now() + period_min;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                change = services.recv() => match change {
                    Some(change) => { self.observe_service(change); deadline = deadline.min(Some(soon)).or(Some(soon)); }
                    None => return,
                },
                change = slices.recv() => match change {
                    Some(change) => { self.observe_slice(change); deadline = deadline.min(Some(soon)).or(Some(soon)); }
                    None => return,
                },
                () = sleep => {
                    retry.extend(self.cluster.take_dirty());
                    let due = std::mem::take(&mut retry);
                    deadline = self.sync(&due).await.err().map(|error| {
                        warn!(%error, "Services were not applied; trying again");
                        retry = due;
                        tokio::time::Instant::now() + RETRY_PERIOD
                    });
                }
            }
        }
    }

    fn observe_service(&mut self, change: Change<Service>) {
        match change {
            Change::Applied { new, .. } => self.cluster.apply_service(new),
            Change::Deleted(old) => self.cluster.delete_service(&old),
        }
    }

    fn observe_slice(&mut self, change: Change<EndpointSlice>) {
        match change {
            Change::Applied { old, new } => self.cluster.apply_slice(old.as_deref(), new),
            Change::Deleted(old) => self.cluster.delete_slice(&old),
        }
    }

    /// Compiles the named Services and brings them into force.
    async fn sync(&mut self, due: &BTreeSet<ServiceName>) -> Result<(), kernel::Error> {
        let mut stale = BTreeSet::new();
        let mut compiled = BTreeMap::new();
        for name in due {
            let ports = match self.cluster.service(name) {
                Some(service) => {
                    compile(service, self.cluster.slices(name).collect::<Vec<_>>().into_iter(), &self.node)
                }
                None => Vec::new(),
            };
            let old = self.ports.insert(name.clone(), ports.clone()).unwrap_or_default();
            stale.extend(udp_backends(&old).difference(&udp_backends(&ports)).copied());
            if ports.is_empty() {
                self.ports.remove(name);
            }
            compiled.insert(name.clone(), ports);
        }
        match &mut self.backend {
            Backend::Nftables(kernel) => {
                kernel::open_docker_firewall().await;
                kernel.apply(compiled.into_iter().map(|(name, ports)| (name, render(&ports))).collect()).await?;
                for backend in stale {
                    kernel::forget_udp_flows(backend).await;
                }
            }
            Backend::Userspace(userspace) => userspace.apply(self.ports.values().flatten()).await,
        }
        Ok(())
    }
}

fn udp_backends(ports: &[ServicePort]) -> BTreeSet<Ipv4Addr> {
    ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp)
        .flat_map(|port| port.internal_backends.iter().chain(&port.external_backends))
        .map(|backend| backend.ip)
        .collect()
}

async fn serve_health(address: SocketAddr, stop: CancellationToken) {
    let metrics = || async {
        let mut text = String::new();
        let _ = prometheus::TextEncoder::new().encode_utf8(&prometheus::gather(), &mut text);
        text
    };
    let router = axum::Router::new()
        .route("/healthz", axum::routing::get(|| async { "ok" }))
        .route("/livez", axum::routing::get(|| async { "ok" }))
        .route("/metrics", axum::routing::get(metrics));
    match tokio::net::TcpListener::bind(address).await {
        Ok(listener) => {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                warn!(%error, "health server ended");
            }
        }
        Err(error) => warn!(%error, %address, "cannot serve health"),
    }
}
