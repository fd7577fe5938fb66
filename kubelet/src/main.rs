//! The kubelet: flags to [`kubelet::Config`], then [`kubelet::run`].

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use clock::{Chance, Clock};
use k8s_openapi::{api::core::v1::Taint, apimachinery::pkg::api::resource::Quantity};
use kubelet::{Config, server::ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Flags have upstream's names where the meaning is the same.
#[derive(Debug, Parser)]
#[command(name = "kubelet", version, about = "Runs the Pods of one node on Docker")]
struct Flags {
    /// How to reach the API server, and as whom.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Name of the node; the host's name by default.
    #[arg(long)]
    hostname_override: Option<String>,
    /// Addresses of this node, separated by commas; that of the default route by default.
    #[arg(long, value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// Folder for volumes and small files of Pods.
    #[arg(long, default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    /// Addresses of the cluster's DNS.
    #[arg(long, value_delimiter = ',')]
    cluster_dns: Vec<String>,
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    #[arg(long, default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    #[arg(long, default_value_t = kubelet::MAX_PODS_DEFAULT)]
    max_pods: u64,
    /// Processes in one container; -1 for no limit.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pod_max_pids: i64,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    register_node: bool,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    register_schedulable: bool,
    /// `key=value:effect`, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = parse_taint)]
    register_with_taints: Vec<Taint>,
    /// `key=value`, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = parse_pair)]
    node_labels: Vec<(String, String)>,
    /// What Pods may not have: `cpu=500m,memory=1Gi`.
    #[arg(long, value_delimiter = ',', value_parser = parse_pair)]
    system_reserved: Vec<(String, String)>,
    #[arg(long, default_value = kubelet::DOCKER_ENDPOINT_DEFAULT)]
    docker_endpoint: String,
    /// Docker's network that Pods are put on.
    #[arg(long, default_value = kubelet::DOCKER_NETWORK_DEFAULT)]
    docker_network: String,
    /// Simulated GPUs, YAML or JSON.
    #[arg(long)]
    gpu_inventory: Option<PathBuf>,
    #[arg(long, default_value = "0.0.0.0")]
    address: IpAddr,
    #[arg(long, default_value_t = kubelet::PORT_DEFAULT)]
    port: u16,
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Authority whose client certificates the node's server accepts.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write key=value")?;
    Ok((key.into(), value.into()))
}

fn parse_taint(text: &str) -> Result<Taint, String> {
    let (name, effect) = text.rsplit_once(':').ok_or("write key=value:effect")?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(format!("{effect} is none of NoSchedule, PreferNoSchedule, NoExecute"));
    }
    let (key, value) = name.split_once('=').map_or((name, None), |(key, value)| (key, Some(value.to_string())));
    Ok(Taint { key: key.into(), value, effect: effect.into(), time_added: None })
}

impl Flags {
    fn server(&self) -> Option<ServerConfig> {
        Some(ServerConfig {
            address: (self.address, self.port).into(),
            certificate_file: self.tls_cert_file.clone()?,
            key_file: self.tls_private_key_file.clone()?,
            client_ca_file: self.client_ca_file.clone()?,
        })
    }

    fn config(&self) -> anyhow::Result<Config> {
        let hostname = kubelet::node::machine::hostname();
        let node_name = self.hostname_override.clone().unwrap_or(hostname).to_lowercase();
        let root_dir = std::path::absolute(&self.root_dir).context("--root-dir")?;
        Ok(Config {
            root_dir,
            docker_endpoint: self.docker_endpoint.clone(),
            docker_network: self.docker_network.clone(),
            node_ips: self.node_ip.clone(),
            cluster_dns: self.cluster_dns.clone(),
            cluster_domain: self.cluster_domain.trim_end_matches('.').into(),
            resolv_conf: self.resolv_conf.clone(),
            register_node: self.register_node,
            register_schedulable: self.register_schedulable,
            register_with_taints: self.register_with_taints.clone(),
            node_labels: self.node_labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            inventory_file: self.gpu_inventory.clone(),
            max_pods: self.max_pods,
            pod_pids_max: Some(self.pod_max_pids).filter(|pids| *pids > 0),
            reserved: self.system_reserved.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect(),
            port: self.port,
            server: self.server(),
            ..Config::for_node(&node_name)
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    let config = flags.config()?;
    if config.server.is_none() {
        tracing::warn!("no --tls-cert-file and --client-ca-file: logs, exec and port-forward are not served");
    }
    let client = client::config::from_kubeconfig(flags.kubeconfig.as_deref(), "kubelet/v1.36.2").await?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stopping.cancel();
    });
    kubelet::run(client, Clock::machine(), Chance::from_os(), config, stop).await
}
