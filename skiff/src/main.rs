//! `skiff`: a Kubernetes cluster on the Docker you have.

use clap::{Parser, Subcommand};
use skiff::{daemon, down, up};

/// A Kubernetes cluster on the Docker you have.
#[derive(Parser)]
#[command(name = "skiff", version)]
struct Flags {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster on this machine.
    Up(Box<up::UpFlags>),
    /// Stop it and remove its containers.
    Down(down::DownFlags),
    /// Say whether a cluster runs here.
    Status {
        #[arg(long, default_value = "/var/lib/skiff")]
        data_dir: std::path::PathBuf,
    },
}

fn main() -> std::process::ExitCode {
    match run(Flags::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            skiff::progress::Progress::to_stderr(&format!("error: {error:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        match flags.command {
            Verb::Up(flags) => up::run(*flags).await,
            Verb::Down(flags) => down::run(flags).await,
            Verb::Status { data_dir } => {
                let progress = skiff::progress::Progress::to_stdout();
                match daemon::running(&data_dir) {
                    Some(pid) => progress.done(format!("running from {} (process {pid})", data_dir.display())),
                    None => anyhow::bail!("no cluster runs from {}; start one with: skiff up", data_dir.display()),
                }
                Ok(())
            }
        }
    })
}
