//! Carries out what was planned. What fails here becomes a waiting reason and an event, and is planned again later.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use client::events::EventType;
use k8s_openapi::api::core::v1::{Container, Secret};

use super::{
    ContainerKind,
    container_config::{Parts, container_config},
    find_container, full_name, is_host_network,
    kill::Order,
    lifecycle::{self, Desired, Lifecycle},
    name, namespace,
    plan::{Blocked, Plan, PodAction, Waiting, backoff_key},
    sandbox_config::{etc_hosts, resolv_conf, resolve, sandbox_config},
    spec, termination_message, uid,
    worker::{RoundError, Worker},
};
use crate::{
    devices,
    environment::{Facts, environment},
    events::{about_container, about_pod},
    hooks,
    runtime::{ContainerState, Image, PodView, labels},
    volume,
};

/// Before a container whose configuration or creation failed is tried again.
const CONTAINER_RETRY: Duration = Duration::from_secs(5);
/// The first wait after a failed sandbox or volume; doubled each time.
const SANDBOX_RETRY_MIN: Duration = Duration::from_millis(500);
const SANDBOX_RETRY_MAX: Duration = Duration::from_secs(60);

/// A container that could not be started, and why.
struct StartFailure {
    reason: &'static str,
    message: String,
}

impl Worker {
    /// True when something was done after which the Pod should be looked at again.
    pub(super) async fn act(&mut self, plan: &Plan, view: &PodView) -> Result<bool, RoundError> {
        self.tell_backoffs(plan);
        if self.lifecycle == Lifecycle::Running && view.ready_sandbox().is_some() {
            self.refresh_volumes(view).await;
        }
        let mut acted = false;
        for action in &plan.actions {
            match action {
                PodAction::KillContainer { id, name, message, probe_grace_seconds } => {
                    self.kill(view, id, name, message.as_deref(), *probe_grace_seconds);
                }
                PodAction::RemoveContainer { id } => {
                    self.kubelet.runtime.remove_container(id).await?;
                    acted = true;
                }
                PodAction::RemoveSandbox { id } => {
                    self.kubelet.runtime.remove_pod_sandbox(id).await?;
                    acted = true;
                }
                PodAction::CreateSandbox { attempt } => {
                    self.create_sandbox(*attempt).await;
                    return Ok(true);
                }
                // One at a time: the status shows each, and what follows is decided on what is then.
                PodAction::StartContainer { name, kind, attempt } => {
                    self.start_container(view, name, *kind, *attempt).await;
                    return Ok(true);
                }
            }
        }
        Ok(acted)
    }

    fn event(&self, container: Option<&str>, r#type: EventType, reason: &str, message: String) {
        let about = match container {
            Some(container) => about_container(&self.pod, container),
            None => about_pod(&self.pod),
        };
        self.kubelet.recorder.event(about, r#type, reason, message);
    }

    /// Each wait is told once.
    fn tell_backoffs(&mut self, plan: &Plan) {
        let waits = plan.waiting.iter().filter(|(_, waiting)| waiting.reason == "CrashLoopBackOff");
        let waits: BTreeSet<String> = waits.map(|(name, _)| name.clone()).collect();
        for container in waits {
            let Some(until) = plan.check_again_at else { continue };
            if self.told.insert(container.clone(), until) != Some(until) {
                let pod = full_name(&self.pod);
                let message = format!("Back-off restarting failed container {container} in pod {pod}");
                self.event(Some(&container), EventType::Warning, "BackOff", message);
            }
        }
    }

    fn pod_ips(&self, view: &PodView) -> Vec<String> {
        let host = || self.kubelet.host_ips().iter().map(ToString::to_string).collect();
        if is_host_network(&self.pod) {
            return host();
        }
        let ips = view.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        ips.iter().map(ToString::to_string).collect()
    }

    fn kill(&mut self, view: &PodView, id: &str, name: &str, message: Option<&str>, probe_grace: Option<i64>) {
        let message = message.map_or_else(|| format!("Stopping container {name}"), str::to_string);
        self.event(Some(name), EventType::Normal, "Killing", message);
        let now = self.kubelet.clock.now();
        let deadline = match (&self.lifecycle, probe_grace) {
            (Lifecycle::Terminating { deadline }, _) => *deadline,
            (_, Some(seconds)) => now + Duration::from_secs(seconds.max(0) as u64),
            (_, None) => now + lifecycle::grace(&self.pod, Desired::Present),
        };
        let container = find_container(&self.pod, name).map(|(_, container)| container);
        // Labels remember the hook of a container whose Pod is gone.
        let of_labels = || {
            let status = view.containers.iter().find(|status| status.id == id)?;
            serde_json::from_str(status.labels.get(labels::PRE_STOP)?).ok()
        };
        let of_spec = container.as_ref().and_then(|container| container.lifecycle.as_ref()?.pre_stop.clone());
        self.kills.start(Order {
            id: id.into(),
            pre_stop: of_spec.or_else(of_labels),
            container: container.unwrap_or_else(|| Container { name: name.into(), ..Default::default() }),
            about: about_container(&self.pod, name),
            pod: full_name(&self.pod),
            ip: self.pod_ips(view).first().cloned().unwrap_or_default(),
            deadline,
        });
    }

    async fn mount_volumes(&mut self, view: &PodView) -> Result<(), volume::MountError> {
        if self.kubelet.config.hollow {
            return Ok(());
        }
        let place = self.kubelet.place(self.pod_ips(view));
        let around = volume::Surroundings {
            client: &self.kubelet.client,
            clock: &self.kubelet.clock,
            sources: &self.kubelet.sources,
            place: &place,
        };
        self.volumes.mount(&around, &self.pod).await
    }

    /// Live updates. What cannot be refreshed keeps its old content.
    async fn refresh_volumes(&mut self, view: &PodView) {
        if let Err(error) = self.mount_volumes(view).await {
            tracing::debug!(pod = name(&self.pod), %error, "volumes not refreshed");
        }
    }

    async fn create_sandbox(&mut self, attempt: u32) {
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_string();
            self.event(None, EventType::Normal, "SandboxChanged", message);
        }
        let made = self.try_sandbox(attempt).await;
        match made {
            Ok(()) => {
                self.sandbox_failures = 0;
                self.blocked.remove(labels::SANDBOX_NAME);
            }
            Err((reason, message)) => {
                self.event(None, EventType::Warning, reason, message);
                let wait = (SANDBOX_RETRY_MIN * 2u32.pow(self.sandbox_failures.min(8))).min(SANDBOX_RETRY_MAX);
                self.sandbox_failures += 1;
                let until = self.kubelet.clock.now() + wait;
                let blocked = Blocked { waiting: Waiting::default(), until };
                self.blocked.insert(labels::SANDBOX_NAME.into(), blocked);
            }
        }
    }

    async fn try_sandbox(&mut self, attempt: u32) -> Result<(), (&'static str, String)> {
        let mounted = self.mount_volumes(&PodView::default()).await;
        mounted.map_err(|error| ("FailedMount", error.to_string()))?;
        let config = sandbox_config(&self.pod, attempt, &self.kubelet.dns);
        let made = self.kubelet.runtime.run_pod_sandbox(&config).await;
        made.map(|_| ()).map_err(|error| ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}")))
    }

    async fn start_container(&mut self, view: &PodView, name: &str, kind: ContainerKind, attempt: u32) {
        let Some((_, container)) = find_container(&self.pod, name) else { return };
        let Some(sandbox) = view.ready_sandbox().map(|sandbox| sandbox.id.clone()) else { return };
        let key = backoff_key(&self.pod, &container);
        if let Some(last) = view.container(name).filter(|last| last.state == ContainerState::Exited) {
            self.backoff.next(&key, last.finished_at.unwrap_or(last.created_at));
        }
        let image = match self.image(&container).await {
            Ok(Some(image)) => image,
            // The Pod has to stop: the pull was dropped.
            Ok(None) => return,
            Err(error) => {
                let message = format!("Error: {}", error.waiting.reason);
                self.event(Some(name), EventType::Warning, "Failed", message);
                self.blocked.insert(name.into(), Blocked { waiting: error.waiting, until: error.until });
                return;
            }
        };
        let start = Start { container: &container, kind, attempt, sandbox: &sandbox, image: &image };
        match self.try_start(view, &start).await {
            Ok(()) => {
                self.blocked.remove(name);
            }
            Err(StartFailure { reason, message }) => {
                let event = if reason == "PostStartHookError" { None } else { Some(format!("Error: {message}")) };
                if let Some(message) = event {
                    self.event(Some(name), EventType::Warning, "Failed", message);
                }
                let until = self.kubelet.clock.now() + CONTAINER_RETRY;
                let waiting = Waiting { reason: reason.into(), message };
                self.blocked.insert(name.into(), Blocked { waiting, until });
            }
        }
    }

    async fn image(&self, container: &Container) -> Result<Option<Image>, crate::images::ImageError> {
        let mut secrets: Vec<Arc<Secret>> = Vec::new();
        for reference in spec(&self.pod).image_pull_secrets.iter().flatten() {
            match self.kubelet.sources.secret(namespace(&self.pod), &reference.name).await {
                Ok(secret) => secrets.push(secret),
                // As upstream: a missing pull secret is told, and the pull is tried without it.
                Err(_) => {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    self.event(None, EventType::Warning, "FailedToRetrieveImagePullSecret", message);
                }
            }
        }
        tokio::select! {
            image = self.kubelet.images.ensure(&self.pod, container, &secrets) => image.map(Some),
            () = self.has_to_stop() => Ok(None),
        }
    }

    async fn try_start(&mut self, view: &PodView, start: &Start<'_>) -> Result<(), StartFailure> {
        let fail = |reason| move |message: String| StartFailure { reason, message };
        let invalid = fail("CreateContainerConfigError");
        self.mount_volumes(view).await.map_err(|error| invalid(error.to_string()))?;
        let facts = self.facts(view, start.container).await.map_err(invalid)?;
        let environment = environment(&self.pod, start.container, &facts).map_err(invalid)?;
        let devices = devices::assigned(&self.pod, start.container, &*self.kubelet.inventory).map_err(invalid)?;
        let pod_dir = self.kubelet.pod_dir(uid(&self.pod));
        self.write_files(&pod_dir, view, start).map_err(|error| invalid(error.to_string()))?;
        let config = container_config(&Parts {
            pod: &self.pod,
            kind: start.kind,
            container: start.container,
            attempt: start.attempt,
            view,
            sandbox_id: start.sandbox,
            image: start.image,
            environment,
            devices,
            pod_dir: &pod_dir,
            machine_memory_bytes: self.kubelet.facts.machine.memory_bytes as i64,
            pids: self.kubelet.config.pod_pids_max,
            seccomp_dir: &self.kubelet.config.root_dir.join("seccomp"),
        })
        .map_err(invalid)?;
        let runtime = self.kubelet.runtime.clone();
        let name = Some(start.container.name.as_str());
        let created = runtime.create_container(&config).await;
        let id = created.map_err(|error| fail("CreateContainerError")(error.to_string()))?;
        self.event(name, EventType::Normal, "Created", "Container created".into());
        let started = runtime.start_container(&id).await;
        started.map_err(|error| fail("RunContainerError")(error.to_string()))?;
        self.event(name, EventType::Normal, "Started", "Container started".into());
        self.post_start(view, start.container, &id).await
    }

    /// The container counts as started only when its hook has succeeded; otherwise it is ended.
    async fn post_start(&mut self, view: &PodView, container: &Container, id: &str) -> Result<(), StartFailure> {
        let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let ip = self.pod_ips(view).first().cloned().unwrap_or_default();
        let pod = full_name(&self.pod);
        let done = tokio::select! {
            done = hooks::run(&*self.kubelet.runtime, id, container, handler, &pod, &ip) => done,
            () = self.has_to_stop() => Ok(()),
        };
        let Err(message) = done else { return Ok(()) };
        tracing::info!(pod, container = container.name, message, "postStart hook failed");
        let name = Some(container.name.as_str());
        self.event(name, EventType::Warning, "FailedPostStartHook", "PostStartHook failed".into());
        self.kill(view, id, &container.name, Some("FailedPostStartHook"), None);
        Err(StartFailure { reason: "PostStartHookError", message })
    }

    /// Looks up everything that the environment names.
    async fn facts(&self, view: &PodView, container: &Container) -> Result<Facts, String> {
        let kubelet = &self.kubelet;
        if tokio::time::timeout(CONTAINER_RETRY, kubelet.services.synced()).await.is_err() {
            return Err("services have not yet been read at least once, cannot construct envvars".into());
        }
        let of = namespace(&self.pod);
        let mut services = kubelet.services.in_namespace(of);
        services.extend(kubelet.services.get("default", "kubernetes").filter(|_| of != "default"));
        let mut facts = Facts { place: kubelet.place(self.pod_ips(view)), services, ..Default::default() };
        let variables = || container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
        let from = || container.env_from.iter().flatten();
        let maps = variables().filter_map(|source| Some(source.config_map_key_ref.as_ref()?.name.clone()));
        let maps = maps.chain(from().filter_map(|from| Some(from.config_map_ref.as_ref()?.name.clone())));
        for name in maps.collect::<BTreeSet<_>>() {
            let found = kubelet.sources.config_map(of, &name).await;
            facts.config_maps.insert(name, found);
        }
        let secrets = variables().filter_map(|source| Some(source.secret_key_ref.as_ref()?.name.clone()));
        let secrets = secrets.chain(from().filter_map(|from| Some(from.secret_ref.as_ref()?.name.clone())));
        for name in secrets.collect::<BTreeSet<_>>() {
            let found = kubelet.sources.secret(of, &name).await;
            facts.secrets.insert(name, found);
        }
        facts.files = self.env_files(variables().filter_map(|source| source.file_key_ref.as_ref()));
        Ok(facts)
    }

    fn env_files<'a>(
        &self,
        references: impl Iterator<Item = &'a k8s_openapi::api::core::v1::FileKeySelector>,
    ) -> BTreeMap<(String, String), String> {
        let pod_dir = self.kubelet.pod_dir(uid(&self.pod));
        references
            .filter_map(|file| {
                let folder = volume::path_of(&pod_dir, &self.pod, &file.volume_name)?;
                let relative = file.path.trim_start_matches('/');
                let path = volume::sub_path::resolve_existing(&folder, relative).ok()?;
                let content = std::fs::read_to_string(path).ok()?;
                Some(((file.volume_name.clone(), file.path.clone()), content))
            })
            .collect()
    }

    /// hosts, resolv.conf and the file for the termination message.
    fn write_files(&self, pod_dir: &Path, view: &PodView, start: &Start<'_>) -> io::Result<()> {
        if self.kubelet.config.hollow {
            return Ok(());
        }
        std::fs::create_dir_all(pod_dir)?;
        let node_hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        // In place: running containers hold these files by bind mounts.
        for (name, text) in [
            ("etc-hosts", etc_hosts(&self.pod, &self.pod_ips(view), &node_hosts)),
            ("resolv.conf", resolv_conf(&resolve(&self.pod, &self.kubelet.dns))),
        ] {
            let path = pod_dir.join(name);
            if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
                std::fs::write(&path, text)?;
            }
        }
        let message = termination_message::file(pod_dir, &start.container.name, start.attempt);
        if let Some(folder) = message.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&message, [])?;
        // Whatever user the container runs as may write it.
        std::fs::set_permissions(&message, std::fs::Permissions::from_mode(0o666))
    }
}

/// One container to start.
struct Start<'a> {
    container: &'a Container,
    kind: ContainerKind,
    attempt: u32,
    sandbox: &'a str,
    image: &'a Image,
}
