//! The controller manager as a program of its own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use clock::{Chance, Clock};
use controller_manager::{COMPONENT, Config, TERMINATED_PODS_MAX};
use ipnet::Ipv4Net;
use tokio_util::sync::CancellationToken;

/// Makes the cluster become what its objects say.
#[derive(Parser)]
#[command(name = "controller-manager", version)]
struct Flags {
    /// How to reach the API server; without it as kubectl finds it.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Controllers to run: '*' for all, 'name', '-name' for all but.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, default_value = "*")]
    controllers: Vec<String>,
    /// Addresses that Nodes get for their Pods.
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: Ipv4Net,
    /// Whether Nodes get Pod addresses at all.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    allocate_node_cidrs: bool,
    /// CA certificates to publish in each namespace.
    #[arg(long)]
    root_ca_file: Option<PathBuf>,
    /// Work only while holding the lease.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Each controller acts as its own ServiceAccount, with no more rights than it needs.
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    use_service_account_credentials: bool,
    /// How long a Node may be silent: 40s, 2m.
    #[arg(long, default_value = "40s", value_parser = duration)]
    node_monitor_grace_period: Duration,
    /// Ended Pods that may stay.
    #[arg(long, default_value_t = TERMINATED_PODS_MAX)]
    terminated_pod_gc_threshold: usize,
}

fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(span).map_err(|error| error.to_string())
}

impl Flags {
    fn config(&self) -> anyhow::Result<Config> {
        let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        Ok(Config {
            controllers: self.controllers.clone(),
            cluster_cidr: Some(self.cluster_cidr).filter(|_| self.allocate_node_cidrs),
            root_ca: self.root_ca_file.as_ref().map(read).transpose()?,
            leader_elect: self.leader_elect,
            node_monitor_grace_period: self.node_monitor_grace_period,
            terminated_pods_max: self.terminated_pod_gc_threshold,
            client_for: None,
            host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let client = client::config::from_kubeconfig(flags.kubeconfig.as_deref(), COMPONENT).await?;
    let clock = Clock::machine();
    let mut config = flags.config()?;
    if flags.use_service_account_credentials {
        let anonymous = client::config::anonymous(flags.kubeconfig.as_deref(), COMPONENT).await?;
        let (issuer, clock) = (client.clone(), clock.clone());
        config.client_for = Some(Arc::new(move |account| {
            client::config::as_service_account(issuer.clone(), anonymous.clone(), clock.clone(), account)
        }));
    }
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            stopped().await;
            stop.cancel();
        }
    });
    controller_manager::run(client, clock, Chance::from_os(), config, stop).await
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! { _ = tokio::signal::ctrl_c() => (), _ = terminate.recv() => () }
}
