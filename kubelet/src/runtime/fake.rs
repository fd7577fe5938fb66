//! A runtime without processes: deterministic, for tests, simulation and hollow nodes.
//!
//! Containers start at once and run until their [`Script`] ends them, somebody stops them, or [`Fake::crash`] does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use clock::Clock;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{
    AttachOptions, ContainerConfig, ContainerRuntime, ContainerState, ContainerStats, ContainerStatus, Credentials,
    ExecOptions, ExecResult, Image, LogLine, LogOptions, PodIdentity, PodView, Result, RuntimeError, RuntimeEvent,
    RuntimeVersion, RuntimeView, SandboxConfig, SandboxStatus, Session, SessionId, Stream, labels,
};

/// How the containers of an image behave. The default runs for ever and ends on SIGTERM with 0.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Ends by itself after this time; runs for ever when absent.
    pub run_for: Option<Duration>,
    /// Of the end by itself.
    pub exit_code: i32,
    pub pull_error: Option<String>,
    pub create_error: Option<String>,
    pub start_error: Option<String>,
    /// Every exec answers with this code.
    pub exec_exit_code: i32,
    /// Only SIGKILL, after the whole grace period, ends it.
    pub ignores_term: bool,
    /// What it prints when it starts.
    pub prints: String,
}

#[derive(Default)]
struct State {
    next_id: u64,
    next_ip: u32,
    pods: RuntimeView,
    /// Container id to image.
    images_of: BTreeMap<String, String>,
    logs: BTreeMap<String, Vec<LogLine>>,
    present: BTreeSet<String>,
    scripts: BTreeMap<String, Script>,
}

#[derive(Clone)]
pub struct Fake {
    clock: Clock,
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<RuntimeEvent>,
}

/// Events that a slow listener may fall behind by; it relists then.
const EVENTS_MAX: usize = 4096;

impl Fake {
    /// Pods get the addresses that follow `first_ip`.
    pub fn new(clock: Clock, first_ip: Ipv4Addr) -> Self {
        let state = State { next_ip: first_ip.into(), ..Default::default() };
        Self { clock, state: Arc::new(Mutex::new(state)), events: broadcast::channel(EVENTS_MAX).0 }
    }

    /// Says how containers of `image` behave from now on.
    pub fn script(&self, image: &str, script: Script) {
        self.state.lock().scripts.insert(image.into(), script);
    }

    /// Ends a container, as if its process had exited.
    pub fn crash(&self, id: &str, exit_code: i32) {
        self.end(id, exit_code);
    }

    /// Ends all sandboxes and containers at once, as a reboot does.
    pub fn reboot(&self) {
        let ids: Vec<String> = {
            let mut state = self.state.lock();
            state.pods.values_mut().flat_map(|pod| &mut pod.sandboxes).for_each(|sandbox| sandbox.ready = false);
            let containers = state.pods.values().flat_map(|pod| pod.running());
            containers.map(|container| container.id.clone()).collect()
        };
        ids.iter().for_each(|id| self.end(id, 137));
    }

    fn end(&self, id: &str, exit_code: i32) {
        let now = self.clock.now();
        let ended = self.with_container(id, |container| {
            if container.state != ContainerState::Running {
                return false;
            }
            container.state = ContainerState::Exited;
            container.finished_at = Some(now);
            container.exit_code = exit_code;
            container.reason = if exit_code == 0 { "Completed".into() } else { "Error".into() };
            true
        });
        if ended == Some(true) {
            self.announce(id, "die");
        }
    }

    fn with_container<T>(&self, id: &str, change: impl FnOnce(&mut ContainerStatus) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let mut containers = state.pods.values_mut().flat_map(|pod| &mut pod.containers);
        containers.find(|container| container.id == id).map(change)
    }

    fn announce(&self, id: &str, action: &str) {
        let state = self.state.lock();
        let owner = state.pods.iter().find(|(_, pod)| {
            pod.containers.iter().any(|container| container.id == id)
                || pod.sandboxes.iter().any(|sandbox| sandbox.id == id)
        });
        if let Some((uid, _)) = owner {
            let event = RuntimeEvent { pod_uid: uid.clone(), container_id: id.into(), action: action.into() };
            // Nobody listening is fine.
            let _ = self.events.send(event);
        }
    }

    fn script_of(&self, id: &str) -> Script {
        let state = self.state.lock();
        state.images_of.get(id).and_then(|image| state.scripts.get(image)).cloned().unwrap_or_default()
    }

    fn new_id(state: &mut State) -> String {
        state.next_id += 1;
        format!("{:064x}", state.next_id)
    }

    fn forget_if_empty(state: &mut State) {
        state.pods.retain(|_, pod| !pod.is_empty());
    }
}

fn missing(id: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("No such container: {id}"))
}

fn entry<'a>(state: &'a mut State, identity: &PodIdentity) -> &'a mut PodView {
    let new = || PodView { identity: identity.clone(), ..Default::default() };
    state.pods.entry(identity.uid.clone()).or_insert_with(new)
}

#[async_trait]
impl ContainerRuntime for Fake {
    async fn version(&self) -> Result<RuntimeVersion> {
        Ok(RuntimeVersion {
            name: "docker".into(),
            version: "20.10.24".into(),
            operating_system: "Skiff hollow node".into(),
            kernel: "6.1.0".into(),
            architecture: "amd64".into(),
            root_dir: "/var/lib/docker".into(),
        })
    }

    async fn list(&self) -> Result<RuntimeView> {
        Ok(self.state.lock().pods.clone())
    }

    async fn pod(&self, uid: &str) -> Result<PodView> {
        Ok(self.state.lock().pods.get(uid).cloned().unwrap_or_default())
    }

    async fn events(&self) -> Result<BoxStream<'static, RuntimeEvent>> {
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        Ok(events.filter_map(|event| std::future::ready(event.ok())).boxed())
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        let id = {
            let mut state = self.state.lock();
            let id = Self::new_id(&mut state);
            state.next_ip += 1;
            let ip = Ipv4Addr::from(state.next_ip);
            let sandbox = SandboxStatus {
                id: id.clone(),
                attempt: config.attempt,
                ready: true,
                created_at: self.clock.now(),
                ips: if config.host_network { Vec::new() } else { vec![ip.into()] },
                host_network: config.host_network,
                pid: None,
            };
            entry(&mut state, &config.pod).sandboxes.insert(0, sandbox);
            id
        };
        self.announce(&id, "start");
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut state = self.state.lock();
        let mut sandboxes = state.pods.values_mut().flat_map(|pod| &mut pod.sandboxes);
        if let Some(sandbox) = sandboxes.find(|sandbox| sandbox.id == id) {
            sandbox.ready = false;
        }
        drop(state);
        self.announce(id, "die");
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.announce(id, "destroy");
        let mut state = self.state.lock();
        state.pods.values_mut().for_each(|pod| pod.sandboxes.retain(|sandbox| sandbox.id != id));
        Self::forget_if_empty(&mut state);
        Ok(())
    }

    async fn create_container(&self, config: &ContainerConfig) -> Result<String> {
        let mut state = self.state.lock();
        if let Some(error) = state.scripts.get(&config.image).and_then(|script| script.create_error.clone()) {
            return Err(RuntimeError::Failed(error));
        }
        let id = Self::new_id(&mut state);
        state.images_of.insert(id.clone(), config.image.clone());
        let status = ContainerStatus {
            id: id.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            hash: config.labels.get(labels::HASH).cloned().unwrap_or_default(),
            sandbox_id: config.sandbox_id.clone(),
            state: ContainerState::Created,
            created_at: self.clock.now(),
            image: config.labels.get(labels::IMAGE).cloned().unwrap_or_else(|| config.image.clone()),
            image_id: format!("docker://sha256:{}", config.image),
            labels: config.labels.clone(),
            ..Default::default()
        };
        entry(&mut state, &config.pod).containers.insert(0, status);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let script = self.script_of(id);
        let now = self.clock.now();
        let error = script.start_error.clone();
        self.with_container(id, |container| match &error {
            None => {
                container.state = ContainerState::Running;
                container.started_at = Some(now);
            }
            Some(error) => {
                container.state = ContainerState::Exited;
                container.exit_code = 128;
                container.reason = "ContainerCannotRun".into();
                container.message = error.clone();
                container.finished_at = Some(now);
            }
        })
        .ok_or_else(|| missing(id))?;
        if let Some(error) = error {
            return Err(RuntimeError::Failed(error));
        }
        if !script.prints.is_empty() {
            let content = Bytes::from(format!("{}\n", script.prints));
            let line = LogLine { stream: Stream::Stdout, timestamp: Some(now), content };
            self.state.lock().logs.entry(id.into()).or_default().push(line);
        }
        self.announce(id, "start");
        if let Some(run_for) = script.run_for {
            let (fake, id) = (self.clone(), id.to_string());
            tokio::spawn(async move {
                tokio::time::sleep(run_for).await;
                fake.end(&id, script.exit_code);
            });
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        if self.script_of(id).ignores_term {
            tokio::time::sleep(grace).await;
            self.end(id, 137);
        } else {
            self.end(id, if grace.is_zero() { 137 } else { 0 });
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.announce(id, "destroy");
        let mut state = self.state.lock();
        state.pods.values_mut().for_each(|pod| pod.containers.retain(|container| container.id != id));
        state.images_of.remove(id);
        state.logs.remove(id);
        Self::forget_if_empty(&mut state);
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let present = self.state.lock().present.contains(reference);
        Ok(present.then(|| image_of(reference)))
    }

    async fn images(&self) -> Result<Vec<Image>> {
        Ok(self.state.lock().present.iter().map(|reference| image_of(reference)).collect())
    }

    async fn pull_image(&self, reference: &str, _: Option<Credentials>) -> Result<Image> {
        let mut state = self.state.lock();
        if let Some(error) = state.scripts.get(reference).and_then(|script| script.pull_error.clone()) {
            return Err(RuntimeError::Failed(error));
        }
        state.present.insert(reference.into());
        Ok(image_of(reference))
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        self.state.lock().present.retain(|reference| image_of(reference).id != id);
        Ok(())
    }

    async fn exec_sync(&self, id: &str, command: &[String], _: Duration) -> Result<ExecResult> {
        self.with_container(id, |_| ()).ok_or_else(|| missing(id))?;
        let exit_code = self.script_of(id).exec_exit_code;
        Ok(ExecResult { exit_code, output: command.join(" ").into_bytes() })
    }

    async fn exec(&self, id: &str, options: ExecOptions) -> Result<Session> {
        self.with_container(id, |_| ()).ok_or_else(|| missing(id))?;
        let output = Bytes::from(format!("{}\n", options.command.join(" ")));
        Ok(Session {
            id: SessionId::Exec(id.into()),
            output: stream::iter([Ok((Stream::Stdout, output))]).boxed(),
            stdin: Box::pin(tokio::io::sink()),
        })
    }

    async fn attach(&self, id: &str, _: AttachOptions) -> Result<Session> {
        self.with_container(id, |_| ()).ok_or_else(|| missing(id))?;
        Ok(Session {
            id: SessionId::Container(id.into()),
            output: stream::empty().boxed(),
            stdin: Box::pin(tokio::io::sink()),
        })
    }

    async fn resize(&self, _: &SessionId, _: u16, _: u16) -> Result<()> {
        Ok(())
    }

    async fn exit_code(&self, session: &SessionId) -> Result<i32> {
        match session {
            SessionId::Exec(id) => Ok(self.script_of(id).exec_exit_code),
            SessionId::Container(id) => self.with_container(id, |c| c.exit_code).ok_or_else(|| missing(id)),
        }
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.with_container(id, |_| ()).ok_or_else(|| missing(id))?;
        let mut lines = self.state.lock().logs.get(id).cloned().unwrap_or_default();
        lines.retain(|line| options.since.is_none_or(|since| line.timestamp >= Some(since)));
        let tail = options.tail.map_or(lines.len(), |tail| tail as usize);
        let lines = lines.split_off(lines.len().saturating_sub(tail));
        Ok(stream::iter(lines.into_iter().map(Ok)).boxed())
    }

    async fn stats(&self) -> Result<Vec<ContainerStats>> {
        let state = self.state.lock();
        let of = |pod: &PodView, container: &ContainerStatus| ContainerStats {
            pod: pod.identity.clone(),
            container: container.name.clone(),
            id: container.id.clone(),
            at: self.clock.now(),
            ..Default::default()
        };
        Ok(state.pods.values().flat_map(|pod| pod.running().map(|container| of(pod, container))).collect())
    }
}

fn image_of(reference: &str) -> Image {
    Image { id: format!("sha256:{reference}"), tags: vec![reference.into()], size_bytes: 1024, ..Default::default() }
}
