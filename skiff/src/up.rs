//! `skiff up`: a cluster on this machine.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{self, Cluster},
    daemon, machine,
    progress::Progress,
};

/// How long the node may take to become Ready before the person is told.
const NODE_READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Flags of `skiff up`.
#[derive(Args, Clone, Debug)]
pub struct UpFlags {
    /// Where certificates, the store and logs are kept.
    #[arg(long, default_value = "/var/lib/skiff")]
    pub data_dir: PathBuf,
    /// Return when the cluster is ready, and leave it running.
    #[arg(long)]
    pub detach: bool,
    /// The name of this machine's Node; its host name by default.
    #[arg(long)]
    pub node_name: Option<String>,
    /// The address of this machine that others reach; found out by default.
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// Where the API server listens.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Where the node's own server listens.
    #[arg(long, default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Keep the state in etcd instead of the embedded store.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// Where Services get their addresses.
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: Ipv4Net,
    /// Where nodes get the ranges of their Pods.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: Ipv4Net,
    /// Docker's socket; `DOCKER_HOST` or the usual place by default.
    #[arg(long, env = "DOCKER_HOST")]
    pub docker_endpoint: Option<String>,
    /// A file that describes simulated GPUs (YAML or JSON).
    #[arg(long)]
    pub gpu_inventory: Option<PathBuf>,
    /// How Services are proxied.
    #[arg(long, value_enum, default_value = "auto")]
    pub proxy_mode: proxy::Mode,
    /// Run the control plane only: no kubelet and no proxy.
    #[arg(long)]
    pub no_node: bool,
}

impl UpFlags {
    pub fn node_name(&self) -> String {
        self.node_name.clone().unwrap_or_else(machine::host_name)
    }

    pub fn node_ip(&self) -> IpAddr {
        self.node_ip.unwrap_or_else(machine::address)
    }
}

/// Starts the cluster and stays with it until a signal; or, detached, until it is ready.
pub async fn run(flags: UpFlags) -> anyhow::Result<()> {
    if !flags.no_node && !machine::is_root() {
        bail!("a node needs root (mounts, firewall, Docker): run this with sudo, or with --no-node");
    }
    if flags.detach {
        let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--detach").collect();
        return daemon::detach(&flags.data_dir, &args);
    }
    std::fs::create_dir_all(&flags.data_dir).with_context(|| format!("make {}", flags.data_dir.display()))?;
    daemon::claim(&flags.data_dir)?;
    std::fs::write(machine::node_name_file(&flags.data_dir), flags.node_name()).context("write the node's name")?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let progress = Progress::to_stdout();
    let mut cluster = Cluster::start(&flags, progress, stop.clone()).await?;
    if !flags.no_node {
        node_ready(&cluster.admin, &flags.node_name(), progress).await;
    }
    greet(&flags, progress);
    progress.say(daemon::READY);
    let outcome = cluster.finished().await;
    stop.cancel();
    let _ = std::fs::remove_file(daemon::pid_file(&flags.data_dir));
    outcome
}

fn stop_on_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("listen for signals")?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}

/// Waits until the node is Ready; says so, or says what it waits for.
async fn node_ready(admin: &kube::Client, name: &str, progress: Progress) {
    let nodes: Api<Node> = Api::all(admin.clone());
    let is_ready = |node: Option<&Node>| {
        node.and_then(|node| node.status.as_ref()?.conditions.as_ref())
            .is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    };
    let wait = kube::runtime::wait::await_condition(nodes.clone(), name, is_ready);
    match tokio::time::timeout(NODE_READY_TIMEOUT, wait).await {
        Ok(Ok(_)) => progress.done(format!("node {name} is Ready")),
        _ => progress.note(format!("node {name} is not Ready yet; see: kubectl describe node {name}")),
    }
}

fn greet(flags: &UpFlags, progress: Progress) {
    let kubeconfig = cluster::kubeconfig_file(&flags.data_dir);
    progress.say("");
    progress.say("The cluster is ready. Use it:");
    progress.say(format!("  export KUBECONFIG={}", kubeconfig.display()));
    progress.say("  kubectl get nodes");
    progress.say("  kubectl create deployment web --image=nginx");
    progress.say("");
    progress.say(format!("Its log is {}; stop it with: skiff down", daemon::log_file(&flags.data_dir).display()));
}
