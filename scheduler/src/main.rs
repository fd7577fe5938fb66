//! `scheduler`: binds Pods to Nodes, with kube-scheduler's flag names.

use std::path::PathBuf;

use clap::Parser;
use clock::{Chance, Clock};
use tokio_util::sync::CancellationToken;

/// Binds Pods to Nodes.
#[derive(Parser)]
#[command(name = "scheduler")]
struct Flags {
    /// How to reach the API server.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Schedules Pods that ask for this name.
    #[arg(long, default_value = scheduler::DEFAULT_SCHEDULER_NAME)]
    scheduler_name: String,
    /// Work only while holding the lease kube-system/kube-scheduler.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let client = client::config::from_kubeconfig(flags.kubeconfig.as_deref(), "scheduler").await?;
    let (clock, chance, stop) = (Clock::machine(), Chance::from_os(), CancellationToken::new());
    let config = scheduler::Config { scheduler_name: flags.scheduler_name, ..scheduler::Config::default() };
    let (work_client, work_clock) = (client.clone(), clock.clone());
    let identity = format!("{}_{}", host_name(), chance.uuid());
    let run = move |stop| scheduler::run(work_client, work_clock, chance, config, stop);
    let lease = client::leader::LeaderConfig::new("kube-scheduler", identity);
    let running = async {
        match flags.leader_elect {
            true => client::leader::lead(client, clock, lease, stop.clone(), run).await,
            false => run(stop.clone()).await,
        }
    };
    tokio::select! {
        outcome = running => outcome,
        _ = tokio::signal::ctrl_c() => { stop.cancel(); Ok(()) }
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
