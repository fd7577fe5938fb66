//! `--detach`: the same program once more, on its own, whose progress the first one shows until it is ready.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use nix::{sys::signal, unistd::Pid};

/// Printed by the detached process when the cluster is ready; not shown.
pub const READY: &str = "#ready";

/// Where the process id is kept.
pub fn pid_file(data_dir: &Path) -> PathBuf {
    data_dir.join("skiff.pid")
}

/// Where the detached process logs.
pub fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.join("skiff.log")
}

/// The running process of this data directory.
pub fn running(data_dir: &Path) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(pid_file(data_dir)).ok()?.trim().parse().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
    // A process that has ended and was not waited for still has an entry.
    let is_ours = field("Name:") == "skiff" && !field("State:").starts_with('Z');
    is_ours.then(|| Pid::from_raw(pid))
}

/// Writes the process id; refuses while another process runs on this data directory.
pub fn claim(data_dir: &Path) -> anyhow::Result<()> {
    if let Some(pid) = running(data_dir).filter(|pid| *pid != Pid::this()) {
        bail!("a cluster already runs from {} (process {pid}); stop it with: skiff down", data_dir.display());
    }
    fs::write(pid_file(data_dir), Pid::this().to_string()).context("write the process id")
}

/// Starts this program again with `args` in a session of its own and shows what it prints until it is ready.
pub fn detach(data_dir: &Path, args: &[String]) -> anyhow::Result<()> {
    fs::create_dir_all(data_dir).with_context(|| format!("make {}", data_dir.display()))?;
    claim_is_free(data_dir)?;
    let log: File = OpenOptions::new().create(true).append(true).open(log_file(data_dir)).context("open the log")?;
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
    let mut child = command.spawn().context("start the cluster's process")?;
    let output = child.stdout.take().expect("stdout was asked to be piped");
    for line in BufReader::new(output).lines() {
        match line.context("read the progress")? {
            line if line == READY => return Ok(()),
            line => println_to_user(&line),
        }
    }
    let status = child.wait().context("wait for the cluster's process")?;
    let log = log_file(data_dir);
    let text = fs::read_to_string(&log).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(8).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    bail!("the cluster did not start ({status}); the end of {}:\n  {}", log.display(), last.join("\n  "))
}

fn claim_is_free(data_dir: &Path) -> anyhow::Result<()> {
    match running(data_dir) {
        Some(pid) => {
            bail!("a cluster already runs from {} (process {pid}); stop it with: skiff down", data_dir.display())
        }
        None => Ok(()),
    }
}

fn println_to_user(line: &str) {
    crate::progress::Progress::to_stdout().say(line);
}

/// Asks the process to end and waits until it has.
pub fn stop(data_dir: &Path, pid: Pid) -> anyhow::Result<()> {
    signal::kill(pid, signal::Signal::SIGTERM).context("signal the process")?;
    for _ in 0..STOP_POLLS_MAX {
        if running(data_dir) != Some(pid) {
            return Ok(());
        }
        std::thread::park_timeout(STOP_POLL);
    }
    signal::kill(pid, signal::Signal::SIGKILL).context("end the process")
}

const STOP_POLL: std::time::Duration = std::time::Duration::from_millis(50);
/// Ten seconds in all.
const STOP_POLLS_MAX: usize = 200;
