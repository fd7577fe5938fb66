//! `skiff down`: takes the cluster off this machine again.

use std::{path::PathBuf, process::Command};

use anyhow::Context;
use clap::Args;

use crate::{daemon, machine, progress::Progress};

/// Flags of `skiff down`.
#[derive(Args, Clone, Debug)]
pub struct DownFlags {
    /// Where the cluster keeps its state.
    #[arg(long, default_value = "/var/lib/skiff")]
    pub data_dir: PathBuf,
    /// Docker's socket; `DOCKER_HOST` or the usual place by default.
    #[arg(long, env = "DOCKER_HOST")]
    pub docker_endpoint: Option<String>,
    /// Only end the process: containers go on running and traffic goes on flowing.
    #[arg(long)]
    pub keep_containers: bool,
    /// Remove the state as well: certificates, objects, volumes.
    #[arg(long)]
    pub purge: bool,
}

/// Ends the process, then removes its containers and firewall table, then, if asked, its state.
pub async fn run(flags: DownFlags) -> anyhow::Result<()> {
    let progress = Progress::to_stdout();
    match daemon::running(&flags.data_dir) {
        Some(pid) => {
            daemon::stop(&flags.data_dir, pid)?;
            progress.done("the control plane has stopped");
        }
        None => progress.note(format!("no cluster runs from {}", flags.data_dir.display())),
    }
    if flags.keep_containers {
        return Ok(());
    }
    let node =
        std::fs::read_to_string(machine::node_name_file(&flags.data_dir)).unwrap_or_else(|_| machine::host_name());
    let endpoint = machine::docker_endpoint(flags.docker_endpoint.as_deref());
    let removed =
        kubelet::remove_all_containers(&endpoint, node.trim()).await.context("remove the Pods' containers")?;
    progress.done(format!("{removed} containers removed"));
    if let Err(error) = proxy::kernel::clean_up().await {
        progress.note(format!("the firewall table was not removed: {error}"));
    }
    unmount_below(&flags.data_dir);
    if flags.purge {
        std::fs::remove_dir_all(&flags.data_dir).or_else(ignore_missing).context("remove the state")?;
        progress.done(format!("{} removed", flags.data_dir.display()));
    }
    Ok(())
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Volumes in memory are mounts: they must go before their directories can.
fn unmount_below(data_dir: &std::path::Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| path.starts_with(&*data_dir.to_string_lossy()));
    for path in below.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").arg(path).status();
    }
}
