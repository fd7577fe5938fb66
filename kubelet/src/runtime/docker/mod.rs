//! Docker, by its API over a unix socket (bollard).
//!
//! One idea a file: what a sandbox and a container look like to Docker (pure), Docker's answers as our view,
//! streams, readings, the pause image. Here: the calls.

mod capabilities;
mod container;
mod pause;
mod sandbox;
mod stats;
mod streams;
mod view;

use std::{collections::HashMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bollard::{
    API_DEFAULT_VERSION,
    errors::Error,
    models::{ContainerCreateBody, EventMessage, EventMessageTypeEnum},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::{
    StreamExt,
    future::join_all,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use parking_lot::Mutex;

use self::{capabilities::Capabilities, view::Entry};
use super::{
    AttachOptions, ContainerConfig, ContainerRuntime, ContainerStats, Credentials, ExecOptions, ExecResult, Image,
    LogLine, LogOptions, PodView, Result, RuntimeError, RuntimeEvent, RuntimeVersion, RuntimeView, SandboxConfig,
    Session, SessionId, labels,
};

/// How long one call may take; stopping adds its grace period.
const CALL_SECONDS_MAX: u64 = 120;
/// What of Docker's events can change a Pod.
const ACTIONS: [&str; 6] = ["start", "die", "oom", "destroy", "pause", "unpause"];

#[derive(Clone)]
pub struct Docker {
    api: bollard::Docker,
    node: String,
    network: String,
    capabilities: Capabilities,
    /// Docker's image id to the reference shown in status; images never change.
    image_references: std::sync::Arc<Mutex<HashMap<String, String>>>,
}

/// Docker's errors as ours, in Docker's words.
fn failed(error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { status_code: 404, message } => RuntimeError::NotFound(message),
        Error::DockerResponseServerError { message, .. } => RuntimeError::Failed(message),
        Error::DockerStreamError { error } => RuntimeError::Failed(error),
        Error::RequestTimeoutError => RuntimeError::TimedOut { operation: "docker", seconds: CALL_SECONDS_MAX },
        Error::SocketNotFoundError(path) => RuntimeError::Unavailable(format!("{path} does not exist")),
        error @ (Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. }) => {
            RuntimeError::Unavailable(error.to_string())
        }
        other => RuntimeError::Failed(other.to_string()),
    }
}

/// True when the thing is already as wanted.
fn is_status(error: &Error, code: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == code)
}

fn already(result: std::result::Result<(), Error>, codes: &[u16]) -> Result<()> {
    match result {
        Err(error) if codes.iter().any(|code| is_status(&error, *code)) => Ok(()),
        other => other.map_err(failed),
    }
}

impl Docker {
    /// Connects to `unix:///...`; `network` is Docker's name of the bridge that Pods are put on.
    pub async fn connect(endpoint: &str, node: &str, network: &str) -> Result<Self> {
        let api = bollard::Docker::connect_with_unix(endpoint, CALL_SECONDS_MAX, API_DEFAULT_VERSION);
        let api = api.map_err(failed)?.negotiate_version().await.map_err(failed)?;
        let docker = Self {
            api,
            node: node.into(),
            network: network.into(),
            capabilities: Capabilities::of_this_machine(),
            image_references: Default::default(),
        };
        docker.ensure_pause_image().await?;
        Ok(docker)
    }

    async fn ensure_pause_image(&self) -> Result<()> {
        if self.find_image(pause::IMAGE).await?.is_some() {
            return Ok(());
        }
        let architecture = self.api.version().await.map_err(failed)?.arch.unwrap_or_default();
        let architecture = match architecture.as_str() {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        let program = pause::program(architecture)
            .ok_or_else(|| RuntimeError::Failed(format!("no pause program for {architecture}")))?;
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(pause::REPOSITORY)
            .tag(pause::TAG)
            .message("holds the namespaces of a Pod")
            .build();
        let archive = bollard::body_full(Bytes::from(pause::archive(&program)));
        let mut progress = std::pin::pin!(self.api.create_image(Some(options), Some(archive), None));
        while let Some(step) = progress.next().await {
            step.map_err(failed)?;
        }
        Ok(())
    }

    async fn find_image(&self, reference: &str) -> Result<Option<Image>> {
        match self.api.inspect_image(reference).await {
            Ok(image) => Ok(Some(Image {
                id: image.id.unwrap_or_default(),
                tags: image.repo_tags.unwrap_or_default(),
                digests: image.repo_digests.unwrap_or_default(),
                size_bytes: image.size.unwrap_or_default(),
                user: image.config.and_then(|config| config.user).unwrap_or_default(),
            })),
            Err(error) if is_status(&error, 404) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// What status shows for an image id; remembered, as the id is its content.
    async fn image_reference(&self, id: &str) -> String {
        if let Some(known) = self.image_references.lock().get(id) {
            return known.clone();
        }
        let reference = match self.find_image(id).await {
            Ok(Some(image)) => image.reference(),
            _ => return format!("docker://{id}"),
        };
        self.image_references.lock().insert(id.into(), reference.clone());
        reference
    }

    /// Creates under a name; a remnant of an attempt that was cut off before it was seen is replaced.
    async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        match self.api.create_container(Some(options.clone()), body.clone()).await {
            Ok(created) => Ok(created.id),
            Err(error) if is_status(&error, 409) => {
                let there = self.api.inspect_container(name, None).await.map_err(failed)?;
                if there.state.and_then(|state| state.running).unwrap_or_default() {
                    return Err(failed(error));
                }
                self.remove(&there.id.unwrap_or_else(|| name.into())).await?;
                self.api.create_container(Some(options), body).await.map(|created| created.id).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        already(self.api.remove_container(id, Some(options)).await, &[404, 409])
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let patient = self.api.clone().with_timeout(grace + Duration::from_secs(CALL_SECONDS_MAX));
        already(patient.stop_container(id, Some(options)).await, &[304, 404])
    }

    async fn wait_for_exit(&self, id: &str) -> Result<i32> {
        let mut exits = std::pin::pin!(self.api.wait_container(id, None));
        match exits.next().await {
            Some(Ok(exit)) => Ok(exit.status_code as i32),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code as i32),
            Some(Err(error)) => Err(failed(error)),
            None => Err(RuntimeError::NotFound(format!("container {id} is gone"))),
        }
    }

    async fn list_pods(&self) -> Result<RuntimeView> {
        let summaries = self.summaries(None).await?;
        Ok(view::by_pod(summaries.into_iter().filter_map(view::of_summary)))
    }

    async fn summaries(&self, uid: Option<&str>) -> Result<Vec<bollard::models::ContainerSummary>> {
        let mut wanted = vec![format!("{}={}", labels::NODE, self.node)];
        wanted.extend(uid.map(|uid| format!("{}={uid}", labels::POD_UID)));
        let filters = HashMap::from([("label", wanted)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.api.list_containers(Some(options)).await.map_err(failed)
    }

    async fn inspect_entry(&self, id: &str) -> Result<Option<Entry>> {
        let inspect = match self.api.inspect_container(id, None).await {
            Ok(inspect) => inspect,
            Err(error) if is_status(&error, 404) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let reference = self.image_reference(inspect.image.as_deref().unwrap_or_default()).await;
        Ok(view::of_inspect(inspect, |_| reference.clone()))
    }
}

#[async_trait]
impl ContainerRuntime for Docker {
    async fn version(&self) -> Result<RuntimeVersion> {
        let (version, info) = tokio::try_join!(self.api.version(), self.api.info()).map_err(failed)?;
        Ok(RuntimeVersion {
            name: "docker".into(),
            version: version.version.unwrap_or_default(),
            operating_system: info.operating_system.unwrap_or_default(),
            kernel: version.kernel_version.unwrap_or_default(),
            architecture: version.arch.unwrap_or_default(),
            root_dir: PathBuf::from(info.docker_root_dir.unwrap_or_default()),
        })
    }

    async fn list(&self) -> Result<RuntimeView> {
        self.list_pods().await
    }

    async fn pod(&self, uid: &str) -> Result<PodView> {
        let summaries = self.summaries(Some(uid)).await?;
        let ids: Vec<String> = summaries.into_iter().filter_map(|summary| summary.id).collect();
        let mut entries = Vec::new();
        for entry in join_all(ids.iter().map(|id| self.inspect_entry(id))).await {
            entries.extend(entry?);
        }
        Ok(view::by_pod(entries).remove(uid).unwrap_or_default())
    }

    async fn events(&self) -> Result<BoxStream<'static, RuntimeEvent>> {
        let filters = HashMap::from([
            ("type", vec!["container".to_string()]),
            ("label", vec![format!("{}={}", labels::NODE, self.node)]),
            ("event", ACTIONS.map(str::to_string).to_vec()),
        ]);
        // The stream is asked for when it is first polled; by Docker's own clock nothing since now is missed.
        let now = self.api.info().await.map_err(failed)?.system_time.and_then(|time| time.parse::<Timestamp>().ok());
        let now = now.unwrap_or_default();
        let since = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
        let options = EventsOptionsBuilder::default().filters(&filters).since(&since).build();
        let events = self.api.events(Some(options));
        let events = events.take_while(|event| std::future::ready(event.is_ok()));
        Ok(events.filter_map(|event| std::future::ready(event.ok().and_then(event_of))).boxed())
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        let name = labels::container_name(labels::SANDBOX_NAME, &config.pod, config.attempt);
        let may_lower = self.capabilities.may_lower_oom_score();
        let body = sandbox::create_body(config, &self.node, &self.network, may_lower);
        let id = match self.create(&name, body.clone()).await {
            // Somebody removed the pause image: make it again.
            Err(RuntimeError::NotFound(_)) => {
                self.ensure_pause_image().await?;
                self.create(&name, body).await?
            }
            other => other?,
        };
        match self.start_container(&id).await {
            Ok(()) => Ok(id),
            Err(error) => {
                self.remove(&id).await?;
                Err(error)
            }
        }
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.stop(id, Duration::from_secs(1)).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.remove(id).await
    }

    async fn create_container(&self, config: &ContainerConfig) -> Result<String> {
        let name = labels::container_name(&config.name, &config.pod, config.attempt);
        self.create(&name, container::create_body(config, &self.node, &self.capabilities)).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        already(self.api.start_container(id, None).await, &[304])
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        self.stop(id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.remove(id).await
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        self.find_image(reference).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let options = bollard::query_parameters::ListImagesOptionsBuilder::default().build();
        let images = self.api.list_images(Some(options)).await.map_err(failed)?;
        let real = |names: Vec<String>| names.into_iter().filter(|name| !name.contains("<none>")).collect();
        Ok(images
            .into_iter()
            .map(|image| Image {
                id: image.id,
                tags: real(image.repo_tags),
                digests: real(image.repo_digests),
                size_bytes: image.size,
                user: String::new(),
            })
            .collect())
    }

    async fn pull_image(&self, reference: &str, credentials: Option<Credentials>) -> Result<Image> {
        let options = CreateImageOptionsBuilder::default().from_image(reference).build();
        let credentials = credentials.map(|credentials| bollard::auth::DockerCredentials {
            username: Some(credentials.username),
            password: Some(credentials.password),
            identitytoken: credentials.identity_token,
            serveraddress: Some(credentials.server),
            ..Default::default()
        });
        let mut progress = std::pin::pin!(self.api.create_image(Some(options), None, credentials));
        while let Some(step) = progress.next().await {
            step.map_err(failed)?;
        }
        let image = self.find_image(reference).await?;
        image.ok_or_else(|| RuntimeError::Failed(format!("image {reference} was pulled but is not there")))
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        let options = bollard::query_parameters::RemoveImageOptionsBuilder::default().build();
        let removed = self.api.remove_image(id, Some(options), None).await;
        already(removed.map(|_| ()), &[404])
    }

    async fn exec_sync(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecResult> {
        self.exec_to_end(id, command, limit).await
    }

    async fn exec(&self, id: &str, options: ExecOptions) -> Result<Session> {
        self.exec_session(id, options).await
    }

    async fn attach(&self, id: &str, options: AttachOptions) -> Result<Session> {
        self.attach_session(id, options).await
    }

    async fn resize(&self, session: &SessionId, width: u16, height: u16) -> Result<()> {
        self.resize_session(session, width, height).await
    }

    async fn exit_code(&self, session: &SessionId) -> Result<i32> {
        self.session_exit_code(session).await
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        if self.api.inspect_container(id, None).await.map_err(failed)?.id.is_none() {
            return Ok(stream::empty().boxed());
        }
        self.log_lines(id, options).await
    }

    async fn stats(&self) -> Result<Vec<ContainerStats>> {
        self.readings().await
    }
}

fn event_of(event: EventMessage) -> Option<RuntimeEvent> {
    if event.typ != Some(EventMessageTypeEnum::CONTAINER) {
        return None;
    }
    let actor = event.actor?;
    let mut attributes = actor.attributes?;
    Some(RuntimeEvent {
        pod_uid: attributes.remove(labels::POD_UID)?,
        container_id: actor.id.unwrap_or_default(),
        action: event.action.unwrap_or_default(),
    })
}
