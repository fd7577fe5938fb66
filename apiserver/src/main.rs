//! `apiserver`: serves the Kubernetes API, with kube-apiserver's flag names.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use apiserver::{
    Config, Server,
    auth::{ServiceAccountKeys, TokenConfig},
    bootstrap::first_address,
    pki::{Endpoints, Issued, Pki, client_config, server_config},
};
use clap::Parser;
use clock::{Chance, Clock};
use ipnet::IpNet;
use store::{Embedded, Store};
use tokio::{net::TcpListener, signal::unix::SignalKind};
use tokio_util::sync::CancellationToken;

/// Serves the Kubernetes API over an embedded store or etcd.
#[derive(Parser)]
#[command(name = "apiserver")]
struct Flags {
    /// etcd to store in, comma-separated; without it, the embedded store in --data-dir.
    #[arg(long, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// Under which prefix in etcd.
    #[arg(long, default_value = "/registry/")]
    etcd_prefix: String,
    #[arg(long)]
    etcd_cafile: Option<PathBuf>,
    #[arg(long)]
    etcd_certfile: Option<PathBuf>,
    #[arg(long)]
    etcd_keyfile: Option<PathBuf>,
    /// Where the embedded store is.
    #[arg(long, default_value = "/var/lib/skiff")]
    data_dir: PathBuf,
    /// Where certificates and keys are, and are made when they are missing; default: pki in --data-dir.
    #[arg(long)]
    cert_dir: Option<PathBuf>,
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// Where the cluster reaches this server; default: the address of the default route.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Whose client certificates are believed; default: the cluster's authority in --cert-dir.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    #[arg(long, default_value = "10.96.0.0/16", value_delimiter = ',')]
    service_cluster_ip_range: Vec<IpNet>,
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    service_node_port_range: RangeInclusive<u16>,
    #[arg(long)]
    service_account_issuer: Option<String>,
    /// Older private keys whose tokens are still believed.
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Always Node,RBAC.
    #[arg(long, default_value = "Node,RBAC")]
    authorization_mode: String,
    /// How long Events are kept, such as 1h0m0s.
    #[arg(long, default_value = "1h", value_parser = duration)]
    event_ttl: Duration,
    #[arg(long)]
    kubelet_certificate_authority: Option<PathBuf>,
    #[arg(long, requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    #[arg(long, requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    if flags.authorization_mode != "Node,RBAC" {
        bail!("--authorization-mode must be Node,RBAC: there is no other");
    }
    let (clock, chance) = (Clock::machine(), Chance::from_os());
    let config = config(&flags, &clock, &chance)?;
    let address = SocketAddr::new(flags.bind_address, flags.secure_port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let server = Server::new(config, open_store(&flags, &clock).await?, clock, chance);
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    server.start(stop.clone()).await.context("the server cannot start")?;
    tracing::info!(%address, "serving");
    server.serve(listener, stop).await?;
    Ok(())
}

async fn stop_on_signal(stop: CancellationToken) {
    let terminate = async {
        match tokio::signal::unix::signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.cancel();
}

async fn open_store(flags: &Flags, clock: &Clock) -> anyhow::Result<Arc<dyn Store>> {
    if !flags.etcd_servers.is_empty() {
        return open_etcd(flags).await;
    }
    fs::create_dir_all(&flags.data_dir).with_context(|| format!("cannot make {}", flags.data_dir.display()))?;
    let path = flags.data_dir.join("state.redb");
    let options = store::Options { clock: clock.clone(), ..store::Options::default() };
    let store = Embedded::open(&path, options).await.with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Arc::new(store))
}

#[cfg(feature = "etcd")]
async fn open_etcd(flags: &Flags) -> anyhow::Result<Arc<dyn Store>> {
    let options = store::EtcdOptions {
        prefix: flags.etcd_prefix.clone(),
        ca_file: flags.etcd_cafile.clone(),
        cert_file: flags.etcd_certfile.clone(),
        key_file: flags.etcd_keyfile.clone(),
    };
    Ok(Arc::new(store::Etcd::connect(&flags.etcd_servers, options).await.context("cannot reach etcd")?))
}

#[cfg(not(feature = "etcd"))]
async fn open_etcd(flags: &Flags) -> anyhow::Result<Arc<dyn Store>> {
    let _ = (&flags.etcd_prefix, &flags.etcd_cafile, &flags.etcd_certfile, &flags.etcd_keyfile);
    bail!("this program was built without etcd; build it with --features etcd")
}

fn config(flags: &Flags, clock: &Clock, chance: &Chance) -> anyhow::Result<Config> {
    let directory = flags.cert_dir.clone().unwrap_or_else(|| flags.data_dir.join("pki"));
    let pki = Pki::open(&directory, clock.clone(), chance.clone())?;
    let advertise_address = flags.advertise_address.unwrap_or_else(own_address);
    let range = flags.service_cluster_ip_range.first().context("--service-cluster-ip-range is empty")?;
    let service_address = first_address(range).context("--service-cluster-ip-range has no addresses")?;
    let endpoints = Endpoints { names: Vec::new(), addresses: vec![advertise_address] };
    let serving = match issued(flags.tls_cert_file.as_deref(), flags.tls_private_key_file.as_deref())? {
        Some(issued) => issued,
        None => pki.api_server(service_address, &endpoints)?,
    };
    let client_authority =
        read(flags.client_ca_file.as_deref())?.unwrap_or_else(|| pki.cluster.certificate_pem.clone());
    let kubelet_client = issued(flags.kubelet_client_certificate.as_deref(), flags.kubelet_client_key.as_deref())?;
    let kubelet_client = kubelet_client.map_or_else(|| pki.kubelet_client(), Ok)?;
    let kubelet_authority = read(flags.kubelet_certificate_authority.as_deref())?;
    let kubelet_authority = kubelet_authority.unwrap_or_else(|| pki.cluster.certificate_pem.clone());
    let host = SocketAddr::new(advertise_address, flags.secure_port).to_string();
    pki.admin()?;
    Ok(Config {
        advertise_address,
        secure_port: flags.secure_port,
        tls: Some(Arc::new(server_config(&serving, &client_authority)?)),
        service_account_keys: service_account_keys(flags, &pki)?,
        tokens: tokens(flags, &host),
        service_cluster_ip_ranges: flags.service_cluster_ip_range.clone(),
        service_node_port_range: flags.service_node_port_range.clone(),
        event_ttl: flags.event_ttl,
        kubelet_tls: Some(Arc::new(client_config(&kubelet_authority, &kubelet_client)?)),
    })
}

fn tokens(flags: &Flags, host: &str) -> TokenConfig {
    let mut tokens = TokenConfig::in_cluster(host);
    if let Some(issuer) = &flags.service_account_issuer {
        tokens.issuer.clone_from(issuer);
        tokens.audiences = vec![issuer.clone()];
    }
    if !flags.api_audiences.is_empty() {
        tokens.audiences.clone_from(&flags.api_audiences);
    }
    tokens
}

fn service_account_keys(flags: &Flags, pki: &Pki) -> anyhow::Result<ServiceAccountKeys> {
    let signing = read(flags.service_account_signing_key_file.as_deref())?;
    let mut pems = vec![signing.map_or_else(|| pki.service_account_key(), Ok)?];
    for path in &flags.service_account_key_file {
        pems.extend(read(Some(path))?.filter(|pem| pem.contains("PRIVATE KEY")));
    }
    Ok(ServiceAccountKeys::from_pems(&pems)?)
}

fn issued(certificate: Option<&Path>, key: Option<&Path>) -> anyhow::Result<Option<Issued>> {
    let (certificate, key) = (read(certificate)?, read(key)?);
    Ok(certificate.zip(key).map(|(certificate_pem, key_pem)| Issued { certificate_pem, key_pem }))
}

fn read(path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    path.map(read).transpose()
}

/// The address of the default route; nothing is sent to find it.
fn own_address() -> IpAddr {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    let found = probe.and_then(|socket| socket.connect(("192.0.2.1", 9)).and_then(|()| socket.local_addr()));
    found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{text:?} is no range of ports such as 30000-32767");
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    Ok(from.parse().map_err(|_| wrong())?..=to.parse().map_err(|_| wrong())?)
}

/// `90s`, `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from(span).map_err(|error| error.to_string())
}
