//! Puts the programs together in one process. Each speaks to the API server as the user that it would be over
//! the network, without a network between.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow};
use apiserver::{
    Server,
    auth::{ServiceAccountKeys, TokenConfig},
    pki::{self, Endpoints, Pki},
    request::User,
};
use clock::{Chance, Clock};
use kube::Client;
use store::Store;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{machine, progress::Progress, up::UpFlags};

/// How long Events are kept.
const EVENT_TTL: std::time::Duration = std::time::Duration::from_secs(3600);
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The administrator's kubeconfig.
pub fn kubeconfig_file(data_dir: &Path) -> PathBuf {
    data_dir.join("kubeconfig")
}

/// A running cluster.
pub struct Cluster {
    /// A client that may do everything.
    pub admin: Client,
    parts: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

/// What every part is started with.
struct Parts {
    server: Arc<Server>,
    clock: Clock,
    chance: Chance,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Parts {
    fn client(&self, user: &str, groups: &[&str]) -> Client {
        client::config::in_process(self.server.in_process(User::named(user, groups)))
    }

    fn spawn<F>(&mut self, name: &'static str, part: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.tasks.spawn(async move { part.await.with_context(|| format!("{name} ended")) });
    }
}

impl Cluster {
    /// Starts everything that the flags ask for, and returns when requests are answered.
    pub async fn start(flags: &UpFlags, progress: Progress, stop: CancellationToken) -> anyhow::Result<Self> {
        let (clock, chance) = (Clock::machine(), Chance::from_os());
        // Another provider may be installed already, by whoever embeds this: then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pki = Pki::open(&flags.data_dir.join("pki"), clock.clone(), chance.clone())?;
        progress.done(format!("certificates are in {}", flags.data_dir.join("pki").display()));
        let store = open_store(flags, &clock).await?;
        progress.done(match flags.etcd_servers.as_slice() {
            [] => "the embedded store is open".to_owned(),
            servers => format!("etcd answers at {}", servers.join(", ")),
        });
        let server = Server::new(server_config(flags, &pki)?, store, clock.clone(), chance.clone());
        server.start(stop.clone()).await.map_err(|status| anyhow!("the API server did not start: {status}"))?;
        let address = SocketAddr::new(flags.bind_address, flags.secure_port);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address} (is another API server running? choose --secure-port)"))?;
        write_kubeconfig(flags, &pki)?;
        let mut parts = Parts { server: server.clone(), clock, chance, stop: stop.clone(), tasks: JoinSet::new() };
        let serving = stop.clone();
        parts.spawn("the API server", async move {
            server.serve(listener, serving).await.map_err(|status| anyhow!("{status}"))
        });
        progress.done(format!("the API server answers on https://{}:{}", flags.node_ip(), flags.secure_port));
        start_control_plane(flags, &pki, &mut parts);
        progress.done("scheduler and controller manager are running");
        if !flags.no_node {
            start_node(flags, &pki, &mut parts)?;
            progress.done("kubelet and proxy are running");
        }
        let admin = parts.client("kubernetes-admin", &["system:masters"]);
        Ok(Self { admin, parts: parts.tasks, stop })
    }

    /// Waits until a part fails or `stop` fires and all have ended.
    pub async fn finished(&mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.parts.join_next().await {
            match ended.context("a part panicked").and_then(|outcome| outcome) {
                Ok(()) if self.stop.is_cancelled() => {}
                Ok(()) => tracing::warn!("a part ended by itself"),
                Err(error) => {
                    self.stop.cancel();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

async fn open_store(flags: &UpFlags, clock: &Clock) -> anyhow::Result<Arc<dyn Store>> {
    if flags.etcd_servers.is_empty() {
        let options = store::Options { clock: clock.clone(), ..store::Options::default() };
        let path = flags.data_dir.join("store.redb");
        let store = store::Embedded::open(&path, options).await.with_context(|| format!("open {}", path.display()))?;
        return Ok(Arc::new(store));
    }
    open_etcd(flags).await
}

#[cfg(feature = "etcd")]
async fn open_etcd(flags: &UpFlags) -> anyhow::Result<Arc<dyn Store>> {
    let options = store::EtcdOptions {
        ca_file: flags.etcd_cafile.clone(),
        cert_file: flags.etcd_certfile.clone(),
        key_file: flags.etcd_keyfile.clone(),
        ..store::EtcdOptions::default()
    };
    let store = store::Etcd::connect(&flags.etcd_servers, options).await;
    Ok(Arc::new(store.with_context(|| format!("reach etcd at {}", flags.etcd_servers.join(", ")))?))
}

#[cfg(not(feature = "etcd"))]
async fn open_etcd(_: &UpFlags) -> anyhow::Result<Arc<dyn Store>> {
    anyhow::bail!("this skiff was built without etcd; build it with: cargo build --release --features etcd")
}

fn endpoints(flags: &UpFlags) -> Endpoints {
    Endpoints { names: vec![machine::host_name(), flags.node_name()], addresses: vec![flags.node_ip()] }
}

fn server_config(flags: &UpFlags, pki: &Pki) -> anyhow::Result<apiserver::Config> {
    let first = flags.service_cluster_ip_range.hosts().next().context("the Service range has no addresses")?;
    let serving = pki.api_server(IpAddr::V4(first), &endpoints(flags))?;
    let authority = &pki.cluster.certificate_pem;
    let address = SocketAddr::new(flags.node_ip(), flags.secure_port).to_string();
    Ok(apiserver::Config {
        advertise_address: flags.node_ip(),
        secure_port: flags.secure_port,
        tls: Some(Arc::new(pki::server_config(&serving, authority)?)),
        service_account_keys: ServiceAccountKeys::from_pems(&[pki.service_account_key()?])?,
        tokens: TokenConfig::in_cluster(&address),
        service_cluster_ip_ranges: vec![flags.service_cluster_ip_range.into()],
        service_node_port_range: NODE_PORTS,
        event_ttl: EVENT_TTL,
        kubelet_tls: Some(Arc::new(pki::client_config(authority, &pki.kubelet_client()?)?)),
    })
}

fn write_kubeconfig(flags: &UpFlags, pki: &Pki) -> anyhow::Result<()> {
    let server = format!("https://127.0.0.1:{}", flags.secure_port);
    let text = pki::kubeconfig("skiff", &server, &pki.cluster.certificate_pem, &pki.admin()?);
    Ok(pki::write_secret(&kubeconfig_file(&flags.data_dir), &text)?)
}

fn start_control_plane(flags: &UpFlags, pki: &Pki, parts: &mut Parts) {
    let (clock, chance, stop) = (parts.clock.clone(), parts.chance.clone(), parts.stop.clone());
    let client = parts.client("system:kube-scheduler", &[]);
    parts.spawn(
        "the scheduler",
        scheduler::run(client, clock.clone(), chance.clone(), scheduler::Config::default(), stop.clone()),
    );
    let client = parts.client("system:kube-controller-manager", &[]);
    let config = controller_manager::Config {
        cluster_cidr: Some(flags.cluster_cidr),
        root_ca: Some(pki.cluster.certificate_pem.clone()),
        host: flags.node_name(),
        ..controller_manager::Config::default()
    };
    parts.spawn("the controller manager", controller_manager::run(client, clock, chance, config, stop));
}

fn start_node(flags: &UpFlags, pki: &Pki, parts: &mut Parts) -> anyhow::Result<()> {
    let (clock, chance, stop) = (parts.clock.clone(), parts.chance.clone(), parts.stop.clone());
    let name = flags.node_name();
    let serving = pki.node_serving(&name, &endpoints(flags))?;
    let directory = flags.data_dir.join("pki");
    pki::write_secret(&directory.join("kubelet-serving.key"), &serving.key_pem)?;
    pki::write_secret(&directory.join("kubelet-serving.crt"), &serving.certificate_pem)?;
    let mut config = kubelet::Config::for_node(&name);
    config.node_ips = vec![flags.node_ip()];
    config.port = flags.kubelet_port;
    config.root_dir = flags.data_dir.join("kubelet");
    config.docker_endpoint = machine::docker_endpoint(flags.docker_endpoint.as_deref());
    config.inventory_file = flags.gpu_inventory.clone();
    config.uses_local_images = true;
    config.server = Some(kubelet::server::ServerConfig {
        address: SocketAddr::new([0, 0, 0, 0].into(), flags.kubelet_port),
        certificate_file: directory.join("kubelet-serving.crt"),
        key_file: directory.join("kubelet-serving.key"),
        client_ca_file: directory.join("ca.crt"),
    });
    let client = parts.client(&format!("system:node:{name}"), &["system:nodes"]);
    parts.spawn("the kubelet", kubelet::run(client, clock.clone(), chance.clone(), config, stop.clone()));
    let client = parts.client("system:kube-proxy", &[]);
    let mut config = proxy::Config::for_node(&name);
    config.mode = flags.proxy_mode;
    parts.spawn("the proxy", proxy::run(client, clock, chance, config, stop));
    Ok(())
}
