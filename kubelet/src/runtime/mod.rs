//! What runs processes, in the words of the CRI.
//!
//! A runtime knows sandboxes, containers and images; it knows nothing of the API. Everything the kubelet needs
//! after a restart is in the labels of sandboxes and containers, so a freshly listed [`RuntimeView`] is complete.

pub mod docker;
pub mod fake;
pub mod labels;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::AsyncWrite;

/// Why the runtime did not do something. All but `NotFound` may be retried.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The container, image or exec session does not exist (any more).
    #[error("{0}")]
    NotFound(String),
    /// The runtime does not answer at all.
    #[error("container runtime is down: {0}")]
    Unavailable(String),
    /// The runtime answered that it could not; its own words.
    #[error("{0}")]
    Failed(String),
    /// A limit of time passed.
    #[error("{operation} timed out after {seconds}s")]
    TimedOut { operation: &'static str, seconds: u64 },
}

pub type Result<T> = std::result::Result<T, RuntimeError>;

impl RuntimeError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// The Pod that a sandbox or container belongs to.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct PodIdentity {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

/// Everything of ours that the runtime holds, by Pod uid.
pub type RuntimeView = BTreeMap<String, PodView>;

/// Sandboxes and containers of one Pod; the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    pub identity: PodIdentity,
    pub sandboxes: Vec<SandboxStatus>,
    pub containers: Vec<ContainerStatus>,
}

impl PodView {
    /// The newest sandbox when it is alive.
    pub fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest incarnation of a container.
    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// All incarnations of a container, the newest first.
    pub fn incarnations<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerStatus> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|container| container.state == ContainerState::Running)
    }

    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxStatus {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Timestamp,
    /// Empty for the node's own network.
    pub ips: Vec<IpAddr>,
    pub host_network: bool,
    /// Process that holds the namespaces, as the node sees it; `/proc/<pid>/ns/net` is the Pod's network.
    pub pid: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStatus {
    pub id: String,
    pub name: String,
    /// How many incarnations came before this one.
    pub attempt: u32,
    /// Of the container's spec when it was created; a change means restart.
    pub hash: String,
    pub sandbox_id: String,
    pub state: ContainerState,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`; empty while it runs.
    pub reason: String,
    /// What the runtime itself says about the end, mostly nothing.
    pub message: String,
    /// As the Pod names it.
    pub image: String,
    /// Digest reference, or the runtime's image id where it has no digest.
    pub image_id: String,
    pub labels: BTreeMap<String, String>,
}

/// How the sandbox is made: one per Pod, it owns network, IPC and (perhaps) PID namespaces.
#[derive(Clone, Debug, Default)]
pub struct SandboxConfig {
    pub pod: PodIdentity,
    pub attempt: u32,
    /// At most 63 characters.
    pub hostname: String,
    pub dns: Dns,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub ports: Vec<PortMapping>,
    pub sysctls: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// Content of resolv.conf.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortMapping {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MountPropagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: String,
    pub read_only: bool,
    pub propagation: MountPropagation,
}

/// Whose processes a container sees.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum PidNamespace {
    #[default]
    Container,
    /// shareProcessNamespace: the sandbox's.
    Pod,
    Node,
    /// Of another container, by id (kubectl debug --target).
    Target(String),
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Resources {
    pub cpu_shares: Option<i64>,
    /// Billionths of a core.
    pub nano_cpus: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub pids: Option<i64>,
    pub oom_score_adj: i64,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Profile {
    #[default]
    RuntimeDefault,
    Unconfined,
    /// File on the node, under the kubelet's seccomp folder, or the name of a loaded profile.
    Localhost(String),
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Security {
    /// `uid[:gid]`; the image's user when absent.
    pub user: Option<String>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub seccomp: Profile,
    pub apparmor: Profile,
    pub selinux: Vec<String>,
    pub unmasked_proc: bool,
}

/// Devices that the scheduler chose for one container.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Devices {
    pub uuids: Vec<String>,
    /// False for simulated ones: they appear in the environment only.
    pub real: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ContainerConfig {
    pub pod: PodIdentity,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    /// What to run; already on the machine.
    pub image: String,
    /// Entry point; the image's own when empty.
    pub command: Vec<String>,
    /// Arguments; the image's own when both are empty.
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub labels: BTreeMap<String, String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub resources: Resources,
    pub security: Security,
    pub host_network: bool,
    pub host_ipc: bool,
    pub pid_namespace: PidNamespace,
    pub devices: Option<Devices>,
    /// Signal that asks the container to end; the image's own when absent.
    pub stop_signal: Option<String>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Image {
    /// The runtime's id, `sha256:...`.
    pub id: String,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size_bytes: i64,
    /// User that the image asks for; empty means root.
    pub user: String,
}

impl Image {
    /// What status.containerStatuses.imageID shows.
    pub fn reference(&self) -> String {
        match self.digests.first() {
            Some(digest) => format!("docker-pullable://{digest}"),
            None => format!("docker://{}", self.id),
        }
    }
}

/// One entry of a dockerconfigjson.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub identity_token: Option<String>,
    pub server: String,
}

#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// What [`ContainerRuntime::resize`] and [`ContainerRuntime::exit_code`] talk about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionId {
    Exec(String),
    Container(String),
}

/// Which stream a piece of output belongs to; a terminal has only `Stdout`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A running exec or attach. The output ends when the process does; then ask for the exit code.
pub struct Session {
    pub id: SessionId,
    pub output: BoxStream<'static, Result<(Stream, Bytes)>>,
    /// Shut it down to send the end of input.
    pub stdin: Pin<Box<dyn AsyncWrite + Send>>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExecResult {
    pub exit_code: i32,
    /// Both streams as they came, at most [`EXEC_OUTPUT_BYTES_MAX`].
    pub output: Vec<u8>,
}

/// How much of a probe's or hook's output is kept.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 10 * 1024;

#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub follow: bool,
    /// Lines before this moment are left out.
    pub since: Option<Timestamp>,
    /// Only so many of the last lines.
    pub tail: Option<u64>,
    pub stdout: bool,
    pub stderr: bool,
}

/// A piece of log: a line, or a part of a very long one (then `content` does not end with a newline).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    pub stream: Stream,
    /// Absent for the further parts of a line.
    pub timestamp: Option<Timestamp>,
    pub content: Bytes,
}

/// Something happened to a sandbox or container of this Pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuntimeEvent {
    pub pod_uid: String,
    pub container_id: String,
    /// The runtime's word: `start`, `die`, `oom`, ...
    pub action: String,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RuntimeVersion {
    /// `docker`
    pub name: String,
    pub version: String,
    pub operating_system: String,
    pub kernel: String,
    pub architecture: String,
    pub root_dir: PathBuf,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStats {
    pub pod: PodIdentity,
    pub container: String,
    pub sandbox: bool,
    pub id: String,
    pub at: Timestamp,
    pub cpu_usage_nanos: u64,
    /// Usage less what the kernel could reclaim at once.
    pub memory_working_set_bytes: u64,
    pub memory_usage_bytes: u64,
    pub memory_rss_bytes: u64,
    pub network_rx_bytes: u64,
    pub network_tx_bytes: u64,
    pub pids: u64,
}

/// A container runtime. Calls are safe to repeat: what is already so is no error.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + 'static {
    async fn version(&self) -> Result<RuntimeVersion>;

    /// Everything with our labels on this node, in one call; cheap fields only (no ips, times may be coarse).
    async fn list(&self) -> Result<RuntimeView>;
    /// One Pod in full.
    async fn pod(&self, uid: &str) -> Result<PodView>;
    /// What happens from now on; the stream ends when the runtime goes away.
    async fn events(&self) -> Result<BoxStream<'static, RuntimeEvent>>;

    /// Returns the sandbox's id, running.
    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String>;
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;

    async fn create_container(&self, config: &ContainerConfig) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Asks it to end, waits for `grace`, then kills it. Zero kills at once. Returns when it has ended.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;

    async fn image(&self, reference: &str) -> Result<Option<Image>>;
    async fn images(&self) -> Result<Vec<Image>>;
    async fn pull_image(&self, reference: &str, credentials: Option<Credentials>) -> Result<Image>;
    async fn remove_image(&self, id: &str) -> Result<()>;

    async fn exec_sync(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecResult>;
    async fn exec(&self, id: &str, options: ExecOptions) -> Result<Session>;
    async fn attach(&self, id: &str, options: AttachOptions) -> Result<Session>;
    /// Sets the size of the terminal, in characters.
    async fn resize(&self, session: &SessionId, width: u16, height: u16) -> Result<()>;
    /// Of an exec whose output has ended, or of a container (waits for its end).
    async fn exit_code(&self, session: &SessionId) -> Result<i32>;
    async fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>>;

    async fn stats(&self) -> Result<Vec<ContainerStats>>;
}
