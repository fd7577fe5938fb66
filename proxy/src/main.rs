//! `proxy`: Services on this node, with kube-proxy's flag names.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use clock::{Chance, Clock};
use tokio_util::sync::CancellationToken;

/// Makes Services reachable on this node.
#[derive(Parser)]
#[command(name = "proxy")]
struct Flags {
    /// How to reach the API server.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The name of this node, if it is not the machine's host name.
    #[arg(long)]
    hostname_override: Option<String>,
    /// How packets are moved.
    #[arg(long, value_enum, default_value = "auto")]
    proxy_mode: proxy::Mode,
    /// Changes within this many milliseconds of each other are applied together.
    #[arg(long, default_value_t = 20)]
    nftables_min_sync_period_ms: u64,
    /// Where to serve /healthz and /metrics.
    #[arg(long, default_value = "127.0.0.1:10256")]
    healthz_bind_address: SocketAddr,
    /// Remove everything the proxy ever wrote into the kernel, and exit.
    #[arg(long)]
    cleanup: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    if flags.cleanup {
        return Ok(proxy::kernel::clean_up().await?);
    }
    let host_name = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let mut config = proxy::Config::for_node(&flags.hostname_override.unwrap_or_else(host_name));
    config.mode = flags.proxy_mode;
    config.sync_period_min = Duration::from_millis(flags.nftables_min_sync_period_ms);
    config.healthz_bind_address = Some(flags.healthz_bind_address);
    let client = client::config::from_kubeconfig(flags.kubeconfig.as_deref(), "proxy").await?;
    let stop = CancellationToken::new();
    let running = proxy::run(client, Clock::machine(), Chance::from_os(), config, stop.clone());
    tokio::select! {
        outcome = running => outcome,
        _ = tokio::signal::ctrl_c() => { stop.cancel(); Ok(()) }
    }
}
