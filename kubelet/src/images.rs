//! Gets the image of a container onto the machine: pull policy, credentials, few pulls at once, back-off.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use client::events::{EventRecorder, EventType};
use clock::Clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::{
    events::about_container,
    pod::{backoff::Backoff, plan::Waiting, uid},
    runtime::{ContainerRuntime, Credentials, Image},
};

/// What is pulled at the same time on one node.
const PULLS_MAX: usize = 5;

/// Why an image is not here.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageError {
    pub waiting: Waiting,
    /// Not to be tried again before.
    pub until: Timestamp,
}

pub struct Images {
    runtime: Arc<dyn ContainerRuntime>,
    clock: Clock,
    recorder: EventRecorder,
    pulls: Semaphore,
    failures: Mutex<Failures>,
    /// Whether an image that cannot be pulled may be the one that is here.
    uses_local: bool,
}

#[derive(Default)]
struct Failures {
    backoff: Backoff,
    /// What the last pull said, by the same key.
    last: BTreeMap<String, String>,
}

impl Images {
    pub fn new(runtime: Arc<dyn ContainerRuntime>, clock: Clock, recorder: EventRecorder, uses_local: bool) -> Self {
        Self { runtime, clock, recorder, pulls: Semaphore::new(PULLS_MAX), failures: Default::default(), uses_local }
    }

    /// The image, present on the machine. May be dropped at any moment, which ends the pull.
    ///
    /// # Errors
    /// The waiting reason that status shows: ErrImagePull, ImagePullBackOff, ErrImageNeverPull, ...
    pub async fn ensure(&self, pod: &Pod, container: &Container, secrets: &[Arc<Secret>]) -> Result<Image, ImageError> {
        let name = container.image.as_deref().unwrap_or_default();
        let error = |reason: &str, message: String, until| {
            let waiting = Waiting { reason: reason.into(), message };
            Err(ImageError { waiting, until })
        };
        let soon = self.clock.now() + Duration::from_secs(10);
        let Some(reference) = with_default_tag(name) else {
            let message = format!("Failed to apply default image tag \"{name}\": couldn't parse image name");
            self.event(pod, container, EventType::Warning, "InspectFailed", message.clone());
            return error("InvalidImageName", message, soon);
        };
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        if policy != "Always" {
            match self.runtime.image(&reference).await {
                Ok(Some(image)) => {
                    let message =
                        format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
                    self.event(pod, container, EventType::Normal, "Pulled", message);
                    return Ok(image);
                }
                Ok(None) if policy == "Never" => {
                    let message = format!("Container image \"{name}\" is not present with pull policy of Never");
                    self.event(pod, container, EventType::Warning, "ErrImageNeverPull", message.clone());
                    return error("ErrImageNeverPull", message, soon);
                }
                Ok(None) => {}
                Err(why) => {
                    let message = format!("Failed to inspect image \"{name}\": {why}");
                    self.event(pod, container, EventType::Warning, "InspectFailed", message.clone());
                    return error("ImageInspectError", message, soon);
                }
            }
        }
        self.pull(pod, container, &reference, secrets).await
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        reference: &str,
        secrets: &[Arc<Secret>],
    ) -> Result<Image, ImageError> {
        let name = container.image.as_deref().unwrap_or_default();
        let key = format!("{}_{name}", uid(pod));
        let began = self.clock.now();
        if let Some(until) = self.waits(pod, container, &key, began) {
            return Err(until);
        }
        self.event(pod, container, EventType::Normal, "Pulling", format!("Pulling image \"{name}\""));
        let permit = self.pulls.acquire().await;
        let pulling = self.clock.now();
        let pulled = self.pull_with_any(reference, secrets).await;
        drop(permit);
        let now = self.clock.now();
        match pulled {
            Ok(image) => {
                let span =
                    |from: Timestamp| go_millis(Duration::try_from(now.duration_since(from)).unwrap_or_default());
                let message = format!(
                    "Successfully pulled image \"{name}\" in {} ({} including waiting). Image size: {} bytes.",
                    span(pulling),
                    span(began),
                    image.size_bytes
                );
                self.event(pod, container, EventType::Normal, "Pulled", message);
                self.failures.lock().backoff.forget(&key);
                Ok(image)
            }
            Err(why) => {
                self.event(
                    pod,
                    container,
                    EventType::Warning,
                    "Failed",
                    format!("Failed to pull image \"{name}\": {why}"),
                );
                if let Some(image) = self.local(reference).await {
                    let message = format!("Container image \"{name}\" cannot be pulled; using the one on this machine");
                    self.event(pod, container, EventType::Warning, "Pulled", message);
                    return Ok(image);
                }
                let mut failures = self.failures.lock();
                failures.backoff.next(&key, now);
                failures.last.insert(key.clone(), format!("ErrImagePull: {why}"));
                // The next look shows the back-off: soon, as upstream's next sync does.
                let waiting = Waiting { reason: "ErrImagePull".into(), message: why };
                Err(ImageError { waiting, until: now + Duration::from_secs(2) })
            }
        }
    }

    fn waits(&self, pod: &Pod, container: &Container, key: &str, now: Timestamp) -> Option<ImageError> {
        let (until, last) = {
            let mut failures = self.failures.lock();
            let Some((until, _)) = failures.backoff.until_since_update(key, now) else {
                failures.last.remove(key);
                return None;
            };
            (until, failures.last.get(key).cloned())
        };
        let name = container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{name}\"");
        self.event(pod, container, EventType::Normal, "BackOff", message.clone());
        let message = last.map_or(message.clone(), |last| format!("{message}: {last}"));
        Some(ImageError { waiting: Waiting { reason: "ImagePullBackOff".into(), message }, until })
    }

    /// The image on this machine, where that may stand in for one that cannot be pulled.
    async fn local(&self, reference: &str) -> Option<Image> {
        match self.uses_local {
            true => self.runtime.image(reference).await.ok().flatten(),
            false => None,
        }
    }

    /// With each credential that fits, the most specific first; without any where none fits.
    async fn pull_with_any(&self, reference: &str, secrets: &[Arc<Secret>]) -> Result<Image, String> {
        let mut keys: Vec<Option<Credentials>> = credentials(secrets, reference).into_iter().map(Some).collect();
        if keys.is_empty() {
            keys.push(None);
        }
        let mut why = String::new();
        for key in keys {
            match self.runtime.pull_image(reference, key).await {
                Ok(image) => return Ok(image),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    fn event(&self, pod: &Pod, container: &Container, r#type: EventType, reason: &str, message: String) {
        self.recorder.event(about_container(pod, &container.name), r#type, reason, message);
    }
}

/// `nginx` means `nginx:latest`; `None` for what is no image name.
pub fn with_default_tag(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if name.is_empty() || !name.chars().all(allowed) || name.contains("//") || name.starts_with(['/', ':', '@']) {
        return None;
    }
    let (path, digest) = name.split_once('@').map_or((name, None), |(path, digest)| (path, Some(digest)));
    let repository = path.rsplit('/').next().unwrap_or(path);
    let lower = path.split(':').next().unwrap_or(path);
    if lower.rsplit('/').next().is_some_and(|last| last.chars().any(|c| c.is_ascii_uppercase())) {
        return None;
    }
    Some(if digest.is_some() || repository.contains(':') { name.into() } else { format!("{name}:latest") })
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, Auth>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Auth {
    username: String,
    password: String,
    auth: String,
    identitytoken: Option<String>,
}

/// What the pull secrets offer for an image, the longest matching place first.
fn credentials(secrets: &[Arc<Secret>], image: &str) -> Vec<Credentials> {
    let first = image.split('/').next().unwrap_or_default();
    let has_registry = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let place = if has_registry { image.to_string() } else { format!("docker.io/{image}") };
    let mut found: Vec<(usize, Credentials)> = Vec::new();
    for (server, auth) in secrets.iter().flat_map(|secret| auths(secret)) {
        let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
        let bare = if bare == "index.docker.io" || bare == "registry-1.docker.io" { "docker.io" } else { bare };
        let matches = place.strip_prefix(bare).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
        if matches {
            found.push((bare.len(), to_credentials(&server, auth)));
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, credentials)| credentials).collect()
}

fn auths(secret: &Secret) -> BTreeMap<String, Auth> {
    let get = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    if let Some(json) = get(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(&json.0).map(|config| config.auths).unwrap_or_default();
    }
    get(".dockercfg").and_then(|json| serde_json::from_slice(&json.0).ok()).unwrap_or_default()
}

fn to_credentials(server: &str, auth: Auth) -> Credentials {
    let joined = STANDARD.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match joined.as_deref().and_then(|joined| joined.split_once(':')) {
        Some((username, password)) => (username.to_string(), password.to_string()),
        None => (auth.username, auth.password),
    };
    Credentials { username, password, identity_token: auth.identitytoken, server: server.into() }
}

/// As Go prints a duration cut to milliseconds.
fn go_millis(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = |millis: u128| {
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    match millis {
        0 => "0s".into(),
        1..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{}s", seconds(millis)),
        _ => format!("{}m{}s", millis / 60_000, seconds(millis % 60_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag() {
        for (name, expected) in [
            ("nginx", Some("nginx:latest")),
            ("nginx:1.8", Some("nginx:1.8")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            ("a@sha256:00", Some("a@sha256:00")),
            ("NGINX", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(with_default_tag(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn credentials_match_by_registry_and_path() {
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:1")},
            "reg.example.com": {"username": "all", "password": "2"},
            "reg.example.com/team": {"username": "team", "password": "3"}}});
        let secret = serde_json::json!({"data": {".dockerconfigjson": STANDARD.encode(config.to_string())}});
        let secret = Arc::new(serde_json::from_value::<Secret>(secret).unwrap());
        let users = |image: &str| -> Vec<String> {
            credentials(std::slice::from_ref(&secret), image)
                .into_iter()
                .map(|credentials| credentials.username)
                .collect()
        };
        assert_eq!(users("nginx:latest"), ["hub"]);
        assert_eq!(users("reg.example.com/team/app:1"), ["team", "all"]);
        assert_eq!(users("reg.example.com/teamwork/app:1"), ["all"]);
        assert!(users("other.example.com/app:1").is_empty());
    }

    #[test]
    fn durations_read_as_in_go() {
        let text = |millis| go_millis(Duration::from_millis(millis));
        assert_eq!([text(0), text(850), text(1200), text(61_050)], ["0s", "850ms", "1.2s", "1m1.05s"]);
    }
}
