//! Volumes that would write two files to one path.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

/// A file in a volume, and what it comes from.
#[derive(Clone, PartialEq)]
struct File {
    path: String,
    source: String,
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source.as_str() {
            "" => write!(f, "{:?}", self.path),
            source => write!(f, "{:?} ({source})", self.path),
        }
    }
}

impl File {
    fn new(path: &str, source: &str) -> Self {
        Self { path: path.trim_end_matches('/').into(), source: source.into() }
    }

    /// One of the paths is the other, or lies below it.
    fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs) = (format!("{}/", self.path), format!("{}/", other.path));
        !self.path.is_empty() && !other.path.is_empty() && (mine.starts_with(&theirs) || theirs.starts_with(&mine))
    }
}

pub fn overlapping(volumes: &[Volume]) -> Vec<String> {
    let mut warnings = Vec::new();
    for volume in volumes {
        let mut warn = |about: &str, files: Vec<File>| {
            for (index, file) in files.iter().enumerate() {
                for other in files[..index].iter().filter(|other| file.overlaps(other)) {
                    let name = &volume.name;
                    warnings.push(format!("volume {name:?} ({about}): overlapping paths: {file} with {other}"));
                }
            }
        };
        if let Some(source) = &volume.config_map {
            warn(&format!("ConfigMap {:?}", source.name), items(source.items.as_deref(), ""));
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            warn(&format!("Secret {name:?}"), items(source.items.as_deref(), ""));
        }
        if let Some(source) = &volume.downward_api {
            warn("DownwardAPI", downward(source.items.as_deref(), ""));
        }
        if let Some(projected) = &volume.projected {
            let sources = projected.sources.as_deref().unwrap_or_default();
            warn("Projected", sources.iter().flat_map(files_of).collect());
            for _ in sources.iter().filter(|source| **source == VolumeProjection::default()) {
                warnings.push(format!("volume {:?} (Projected) has no sources provided", volume.name));
            }
        }
    }
    warnings
}

fn items(items: Option<&[KeyToPath]>, source: &str) -> Vec<File> {
    items.unwrap_or_default().iter().map(|item| File::new(&item.path, source)).collect()
}

fn downward(items: Option<&[DownwardAPIVolumeFile]>, source: &str) -> Vec<File> {
    items.unwrap_or_default().iter().map(|item| File::new(&item.path, source)).collect()
}

fn files_of(source: &VolumeProjection) -> Vec<File> {
    if let Some(map) = &source.config_map {
        items(map.items.as_deref(), &format!("ConfigMap {:?}", map.name))
    } else if let Some(secret) = &source.secret {
        items(secret.items.as_deref(), &format!("Secret {:?}", secret.name))
    } else if let Some(fields) = &source.downward_api {
        downward(fields.items.as_deref(), "DownwardAPI")
    } else if let Some(token) = &source.service_account_token {
        vec![File::new(&token.path, "ServiceAccountToken")]
    } else if let Some(bundle) = &source.cluster_trust_bundle {
        let name = bundle.name.as_ref().or(bundle.signer_name.as_ref()).cloned().unwrap_or_default();
        vec![File::new(&bundle.path, &format!("ClusterTrustBundle {name:?}"))]
    } else {
        Vec::new()
    }
}
