//! Volumes: one source each, and what each kind of source needs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, EphemeralVolumeSource,
    HostPathVolumeSource, ImageVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume,
};

use super::{Surroundings, claim, containers::PULL_POLICIES, env, projected, storage};
use crate::{
    field::{Errors, Path},
    names,
    quantity::Quantity as Amount,
    validation::{check, validate_choice},
};

const FILE_MODE_MAX: i32 = 0o777;
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// A kind of volume: its field as errors about a second source name it, its field as its own errors name it (upstream
/// spells some of them differently), whether a volume is of it, and its rules.
struct Source {
    name: &'static str,
    at: &'static str,
    is_used: fn(&Volume) -> bool,
    validate: fn(&Volume, &Path, &mut Errors),
}

macro_rules! source {
    ($name:literal, $field:ident, $rule:path) => {
        source!($name, $name, $field, $rule)
    };
    ($name:literal, $at:literal, $field:ident, $rule:path) => {
        Source {
            name: $name,
            at: $at,
            is_used: |volume| volume.$field.is_some(),
            validate: |volume, path, errors| {
                if let Some(source) = &volume.$field {
                    $rule(source, path, errors);
                }
            },
        }
    };
}

const SOURCES: &[Source] = &[
    source!("emptyDir", empty_dir, empty_dir),
    source!("hostPath", host_path, host_path),
    source!("gitRepo", git_repo, storage::git_repo),
    source!("gcePersistentDisk", "persistentDisk", gce_persistent_disk, storage::gce_persistent_disk),
    source!("awsElasticBlockStore", aws_elastic_block_store, storage::aws_elastic_block_store),
    source!("secret", secret, secret),
    source!("nfs", nfs, storage::nfs),
    source!("iscsi", iscsi, storage::iscsi),
    source!("glusterfs", glusterfs, storage::glusterfs),
    source!("flocker", flocker, storage::flocker),
    source!("persistentVolumeClaim", persistent_volume_claim, persistent_volume_claim),
    source!("rbd", rbd, storage::rbd),
    source!("cinder", cinder, storage::cinder),
    source!("cephFS", "cephfs", cephfs, storage::cephfs),
    source!("quobyte", quobyte, storage::quobyte),
    source!("downwarAPI", "downwardAPI", downward_api, downward_api),
    source!("fc", fc, storage::fc),
    source!("flexVolume", flex_volume, storage::flex_volume),
    source!("configMap", config_map, config_map),
    source!("azureFile", azure_file, storage::azure_file),
    source!("vsphereVolume", vsphere_volume, storage::vsphere_volume),
    source!("photonPersistentDisk", photon_persistent_disk, storage::photon_persistent_disk),
    source!("portworxVolume", portworx_volume, storage::portworx_volume),
    source!("azureDisk", azure_disk, storage::azure_disk),
    source!("storageos", storageos, storage::storageos),
    source!("projected", projected, projected::validate),
    source!("scaleIO", scale_io, storage::scale_io),
    source!("csi", csi, storage::csi),
    source!("ephemeral", ephemeral, ephemeral),
    source!("image", image, image),
];

/// Judges all volumes and returns the valid ones by name.
pub fn validate<'a>(around: &Surroundings<'a>, path: &Path, errors: &mut Errors) -> BTreeMap<&'a str, &'a Volume> {
    let volumes = around.spec.volumes.as_deref().unwrap_or_default();
    let pod_name = around.meta.and_then(|meta| meta.name.as_deref()).filter(|name| !name.is_empty());
    let created: Vec<String> = volumes
        .iter()
        .filter(|volume| volume.ephemeral.is_some())
        .filter_map(|volume| Some(format!("{}-{}", pod_name?, volume.name)))
        .collect();
    let mut valid = BTreeMap::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let mut wrong = Errors::default();
        validate_source(volume, around.is_pod(), pod_name, &path, &mut wrong);
        match volume.name.as_str() {
            "" => wrong.required(&path.child("name"), ""),
            name => check(names::is_dns1123_label(name), name, &path.child("name"), &mut wrong),
        }
        if valid.contains_key(volume.name.as_str()) {
            wrong.duplicate(&path.child("name"), &volume.name);
        }
        if wrong.is_empty() {
            valid.insert(volume.name.as_str(), volume);
        }
        errors.extend(wrong);
        if let Some(claim) = &volume.persistent_volume_claim
            && created.contains(&claim.claim_name)
        {
            let path = path.child("persistentVolumeClaim").child("claimName");
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&path, &claim.claim_name, why);
        }
    }
    valid
}

fn validate_source(volume: &Volume, is_pod: bool, pod_name: Option<&str>, path: &Path, errors: &mut Errors) {
    let mut used = SOURCES.iter().filter(|source| (source.is_used)(volume));
    let Some(source) = used.next() else { return errors.required(path, "must specify a volume type") };
    (source.validate)(volume, &path.child(source.at), errors);
    for other in used {
        errors.forbidden(&path.child(other.name), "may not specify more than 1 volume type");
    }
    if let Some(iscsi) = &volume.iscsi
        && iscsi.initiator_name.is_some()
        && volume.name.len() + 1 + iscsi.target_portal.len() > 64
    {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName \
                   is specified.";
        errors.invalid(&path.child("name"), &volume.name, why);
    }
    // A template may leave the image to who makes Pods of it.
    if is_pod && volume.image.as_ref().is_some_and(|image| image.reference.as_deref().unwrap_or_default().is_empty()) {
        errors.required(&path.child("image").child("reference"), "");
    }
    if let (Some(_), Some(pod_name), false) = (&volume.ephemeral, pod_name, volume.name.is_empty()) {
        let claim = format!("{pod_name}-{}", volume.name);
        for message in names::is_dns1123_subdomain(&claim) {
            errors.invalid(&path.child("name"), &volume.name, format!("PVC name {claim:?}: {message}"));
        }
    }
}

/// The permission bits of files.
pub fn validate_mode(mode: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=FILE_MODE_MAX).contains(mode)) {
        errors.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

pub fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

pub fn validate_no_backsteps(target: &str, path: &Path, errors: &mut Errors) {
    if has_backsteps(target) {
        errors.invalid(path, target, "must not contain '..'");
    }
}

/// A relative path that stays below where it starts.
pub fn validate_descending(target: &str, path: &Path, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.invalid(path, target, "must be a relative path");
    }
    validate_no_backsteps(target, path, errors);
}

/// The same for a file in a volume, where names with `..` in front are the kubelet's own.
pub fn validate_not_reserved(target: &str, path: &Path, errors: &mut Errors) {
    validate_descending(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.invalid(path, target, "must not start with '..'");
    }
}

/// Keys of a ConfigMap or Secret that become files.
pub fn validate_items(items: Option<&[KeyToPath]>, path: &Path, errors: &mut Errors) {
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let path = path.child("items").index(index);
        if item.key.is_empty() {
            errors.required(&path.child("key"), "");
        }
        if item.path.is_empty() {
            errors.required(&path.child("path"), "");
        }
        validate_not_reserved(&item.path, &path.child("path"), errors);
        validate_mode(item.mode, &path.child("mode"), errors);
    }
}

fn empty_dir(source: &EmptyDirVolumeSource, path: &Path, errors: &mut Errors) {
    if source.size_limit.as_ref().is_some_and(|limit| Amount::of(limit).sign() < 0) {
        errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(source: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    if source.path.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    validate_no_backsteps(&source.path, &path.child("path"), errors);
    if let Some(kind) = source.type_.as_deref().filter(|kind| !HOST_PATH_TYPES.contains(kind)) {
        errors.not_supported(&path.child("type"), kind, HOST_PATH_TYPES);
    }
}

fn secret(source: &SecretVolumeSource, path: &Path, errors: &mut Errors) {
    if source.secret_name.as_deref().unwrap_or_default().is_empty() {
        errors.required(&path.child("secretName"), "");
    }
    validate_mode(source.default_mode, &path.child("defaultMode"), errors);
    validate_items(source.items.as_deref(), path, errors);
}

fn config_map(source: &ConfigMapVolumeSource, path: &Path, errors: &mut Errors) {
    if source.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    validate_mode(source.default_mode, &path.child("defaultMode"), errors);
    validate_items(source.items.as_deref(), path, errors);
}

fn persistent_volume_claim(source: &PersistentVolumeClaimVolumeSource, path: &Path, errors: &mut Errors) {
    if source.claim_name.is_empty() {
        errors.required(&path.child("claimName"), "");
    }
}

fn downward_api(source: &DownwardAPIVolumeSource, path: &Path, errors: &mut Errors) {
    validate_mode(source.default_mode, &path.child("defaultMode"), errors);
    for file in source.items.iter().flatten() {
        validate_downward_file(file, path, errors);
    }
}

/// A field of the Pod that becomes a file. Upstream's paths do not say which file.
pub fn validate_downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut Errors) {
    if file.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    validate_not_reserved(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::validate_field(field, env::VOLUME_FIELDS, &path.child("fieldRef"), errors);
            if other.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", why);
            }
        }
        (None, Some(resource)) => env::validate_resource(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    validate_mode(file.mode, &path.child("mode"), errors);
}

fn ephemeral(source: &EphemeralVolumeSource, path: &Path, errors: &mut Errors) {
    let path = path.child("volumeClaimTemplate");
    let Some(template) = &source.volume_claim_template else { return errors.required(&path, "") };
    claim::validate_template_meta(template.metadata.as_ref(), &path.child("metadata"), errors);
    claim::validate_claim_spec(&template.spec, &path.child("spec"), errors);
}

fn image(source: &ImageVolumeSource, path: &Path, errors: &mut Errors) {
    validate_choice(source.pull_policy.as_deref(), PULL_POLICIES, &path.child("pullPolicy"), errors);
}
