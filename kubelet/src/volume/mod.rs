//! The volumes of a Pod: folders on the node that are bind-mounted into containers.
//!
//! [`PodVolumes::mount`] makes them so and is called again whenever something they show may have changed: what did
//! not change is not touched. All live below `<root>/pods/<uid>/volumes/kubernetes.io~<type>/<name>`.

mod atomic;
mod empty_dir;
mod host_path;
mod mounts;
mod payload;
pub mod sub_path;
mod token;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use api::quantity::Quantity;
use clock::Clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, Volume};
use kube::Client;

use self::{
    atomic::Payload,
    payload::{Owner, Selection},
    token::Tokens,
};
use crate::{
    downward::Place,
    pod::{ephemeral_containers, long_lived, namespace, spec},
    sources::{SourceError, Sources},
};

/// A volume that could not be made; the text is that of the event FailedMount.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {why}")]
pub struct MountError {
    pub volume: String,
    pub why: String,
}

/// What making volumes needs of the node.
pub struct Surroundings<'a> {
    pub client: &'a Client,
    pub clock: &'a Clock,
    pub sources: &'a Sources,
    pub place: &'a Place,
}

/// The volumes of one Pod.
pub struct PodVolumes {
    pod_dir: PathBuf,
    /// What was written last, by volume name.
    written: BTreeMap<String, Payload>,
    tokens: Tokens,
    renew_at: Option<Timestamp>,
}

impl PodVolumes {
    pub fn new(pod_dir: PathBuf) -> Self {
        Self { pod_dir, written: BTreeMap::new(), tokens: Tokens::default(), renew_at: None }
    }

    /// When something here goes out of date by itself (tokens).
    pub fn renew_at(&self) -> Option<Timestamp> {
        self.renew_at
    }

    /// Makes or refreshes all volumes that some container mounts.
    ///
    /// # Errors
    /// The first that could not be made.
    pub async fn mount(&mut self, around: &Surroundings<'_>, pod: &Pod) -> Result<(), MountError> {
        self.renew_at = None;
        let used = mounted_names(pod);
        for volume in spec(pod).volumes.iter().flatten().filter(|volume| used.contains(volume.name.as_str())) {
            let made = self.mount_one(around, pod, volume).await;
            made.map_err(|why| MountError { volume: volume.name.clone(), why })?;
        }
        Ok(())
    }

    async fn mount_one(&mut self, around: &Surroundings<'_>, pod: &Pod, volume: &Volume) -> Result<(), String> {
        let fs_group = spec(pod).security_context.as_ref().and_then(|context| context.fs_group);
        let folder = path(&self.pod_dir, volume);
        if let Some(source) = &volume.empty_dir {
            return empty_dir::prepare(&folder, source, fs_group);
        }
        if let Some(source) = &volume.host_path {
            return host_path::prepare(source).map(|_| ());
        }
        let owner = Owner { gid: fs_group };
        let secret = volume.secret.is_some() || volume.projected.is_some();
        let payload = match self.payload(around, pod, volume, owner).await? {
            Some(payload) => payload,
            None => return Err("this type of volume is not supported by Skiff".into()),
        };
        if self.written.get(&volume.name) == Some(&payload) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            // Secrets stay off the disk where we may mount; otherwise the folder's own rights protect them.
            if secret && let Err(error) = mounts::tmpfs(&folder, None, 0o755) {
                tracing::debug!(%error, folder = %folder.display(), "no tmpfs for a secret");
            }
            atomic::write(&folder, &payload, around.clock.now())
        };
        write().map_err(|error| error.to_string())?;
        self.written.insert(volume.name.clone(), payload);
        Ok(())
    }

    /// `None` for volumes that are not made of files.
    async fn payload(
        &mut self,
        around: &Surroundings<'_>,
        pod: &Pod,
        volume: &Volume,
        owner: Owner,
    ) -> Result<Option<Payload>, String> {
        if let Some(source) = &volume.config_map {
            let optional = source.optional.unwrap_or_default();
            let selection =
                Selection { items: source.items.as_deref(), default_mode: source.default_mode, optional, owner };
            return config_map(around, pod, &source.name, &selection).await.map(Some);
        }
        if let Some(source) = &volume.secret {
            let optional = source.optional.unwrap_or_default();
            let selection =
                Selection { items: source.items.as_deref(), default_mode: source.default_mode, optional, owner };
            let name = source.secret_name.as_deref().unwrap_or_default();
            return secret(around, pod, name, &selection).await.map(Some);
        }
        if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            return payload::of_downward(pod, items, source.default_mode, owner, around.place).map(Some);
        }
        match &volume.projected {
            Some(source) => self.projected(around, pod, source, owner).await.map(Some),
            None => Ok(None),
        }
    }

    async fn projected(
        &mut self,
        around: &Surroundings<'_>,
        pod: &Pod,
        source: &ProjectedVolumeSource,
        owner: Owner,
    ) -> Result<Payload, String> {
        let mut payload = Payload::new();
        let default_mode = source.default_mode;
        for part in source.sources.iter().flatten() {
            if let Some(part) = &part.config_map {
                let optional = part.optional.unwrap_or_default();
                let selection = Selection { items: part.items.as_deref(), default_mode, optional, owner };
                payload.extend(config_map(around, pod, &part.name, &selection).await?);
            }
            if let Some(part) = &part.secret {
                let optional = part.optional.unwrap_or_default();
                let selection = Selection { items: part.items.as_deref(), default_mode, optional, owner };
                payload.extend(secret(around, pod, &part.name, &selection).await?);
            }
            if let Some(part) = &part.downward_api {
                let items = part.items.as_deref().unwrap_or_default();
                payload.extend(payload::of_downward(pod, items, default_mode, owner, around.place)?);
            }
            if let Some(part) = &part.service_account_token {
                let (text, renew_at) = self.tokens.get(around.client, around.clock, pod, part).await?;
                self.renew_at = Some(self.renew_at.map_or(renew_at, |earlier| earlier.min(renew_at)));
                let mut file = owner.file(text.into_bytes(), default_mode.unwrap_or(payload::MODE_DEFAULT));
                let user = common_user(pod).and_then(|user| u32::try_from(user).ok());
                if user.is_some() || owner.gid.is_some() {
                    file.mode = if owner.gid.is_some() { 0o640 } else { 0o600 };
                    file.uid = user;
                }
                payload.insert(part.path.clone(), file);
            }
            if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
                return Err("clusterTrustBundle and podCertificate projections are not supported by Skiff".into());
            }
        }
        Ok(payload)
    }

    /// Removes everything of the Pod from the node's disk.
    ///
    /// # Errors
    /// Something could not be unmounted or deleted; safe to call again.
    pub async fn clean(&mut self) -> io::Result<()> {
        self.written.clear();
        clean(&self.pod_dir).await
    }
}

/// The folder that a container sees, if the volume exists.
pub fn path_of(pod_dir: &Path, pod: &Pod, name: &str) -> Option<PathBuf> {
    let volume = spec(pod).volumes.iter().flatten().find(|volume| volume.name == name)?;
    Some(match &volume.host_path {
        Some(source) => PathBuf::from(&source.path),
        None => path(pod_dir, volume),
    })
}

fn path(pod_dir: &Path, volume: &Volume) -> PathBuf {
    let r#type = match volume {
        Volume { empty_dir: Some(_), .. } => "empty-dir",
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { downward_api: Some(_), .. } => "downward-api",
        Volume { projected: Some(_), .. } => "projected",
        _ => "other",
    };
    pod_dir.join("volumes").join(format!("kubernetes.io~{type}")).join(&volume.name)
}

/// Removes the folder of a Pod, unmounting what is mounted in it.
///
/// # Errors
/// Something could not be unmounted or deleted.
pub async fn clean(pod_dir: &Path) -> io::Result<()> {
    if !pod_dir.exists() {
        return Ok(());
    }
    mounts::unmount_below(pod_dir)?;
    tokio::fs::remove_dir_all(pod_dir).await
}

/// An emptyDir on disk that holds more than its sizeLimit: upstream's sentence for the eviction.
pub fn exceeded_size_limit(pod_dir: &Path, pod: &Pod) -> Option<String> {
    spec(pod).volumes.iter().flatten().find_map(|volume| {
        let source = volume.empty_dir.as_ref().filter(|source| source.medium.as_deref() != Some("Memory"))?;
        let limit = source.size_limit.as_ref()?;
        let bytes = u64::try_from(Quantity::of(limit).value()).ok().filter(|bytes| *bytes > 0)?;
        let used = empty_dir::used_bytes(&path(pod_dir, volume)).ok()?;
        let sentence = format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, limit.0);
        (used > bytes).then_some(sentence)
    })
}

/// Whether watching sizes is worth it.
pub fn has_size_limits(pod: &Pod) -> bool {
    let volumes = spec(pod).volumes.iter().flatten();
    volumes.filter_map(|volume| volume.empty_dir.as_ref()).any(|source| source.size_limit.is_some())
}

fn mounted_names(pod: &Pod) -> BTreeSet<&str> {
    let ephemeral = ephemeral_containers(pod).iter().flat_map(|container| container.volume_mounts.iter().flatten());
    let mounts = long_lived(pod).flat_map(|(_, container)| container.volume_mounts.iter().flatten()).chain(ephemeral);
    let mut names: BTreeSet<&str> = mounts.map(|mount| mount.name.as_str()).collect();
    let variables = long_lived(pod).flat_map(|(_, container)| container.env.iter().flatten());
    let files = variables.filter_map(|variable| variable.value_from.as_ref()?.file_key_ref.as_ref());
    names.extend(files.map(|file| file.volume_name.as_str()));
    names
}

/// The user that all containers run as, if it is one.
fn common_user(pod: &Pod) -> Option<i64> {
    let of_pod = spec(pod).security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = long_lived(pod)
        .map(|(_, container)| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

async fn config_map(
    around: &Surroundings<'_>,
    pod: &Pod,
    name: &str,
    selection: &Selection<'_>,
) -> Result<Payload, String> {
    match around.sources.config_map(namespace(pod), name).await {
        Ok(map) => payload::of_config_map(&map, selection),
        Err(error) => missing(error, selection.optional),
    }
}

async fn secret(
    around: &Surroundings<'_>,
    pod: &Pod,
    name: &str,
    selection: &Selection<'_>,
) -> Result<Payload, String> {
    match around.sources.secret(namespace(pod), name).await {
        Ok(secret) => payload::of_secret(&secret, selection),
        Err(error) => missing(error, selection.optional),
    }
}

fn missing(error: SourceError, optional: bool) -> Result<Payload, String> {
    if optional && error.is_not_found() { Ok(Payload::new()) } else { Err(error.to_string()) }
}
