//! Volumes that a storage system serves. Nothing here mounts them; what is wrong with one is said all the same.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, AzureFileVolumeSource, CSIVolumeSource,
    CephFSVolumeSource, CinderVolumeSource, FCVolumeSource, FlexVolumeSource, FlockerVolumeSource,
    GCEPersistentDiskVolumeSource, GitRepoVolumeSource, GlusterfsVolumeSource, ISCSIVolumeSource, LocalObjectReference,
    NFSVolumeSource, PhotonPersistentDiskVolumeSource, PortworxVolumeSource, QuobyteVolumeSource, RBDVolumeSource,
    ScaleIOVolumeSource, StorageOSVolumeSource, VsphereVirtualDiskVolumeSource,
};
use regex::Regex;

use super::volumes::validate_descending;
use crate::{
    field::{Errors, Path},
    names,
    validation::check,
};

const CSI_DRIVER_BYTES_MAX: usize = 63;
const QUOBYTE_TENANT_BYTES_MAX: usize = 64;

fn required(value: &str, path: &Path, field: &str, errors: &mut Errors) {
    if value.is_empty() {
        errors.required(&path.child(field), "");
    }
}

fn secret_name(reference: Option<&LocalObjectReference>, path: &Path, errors: &mut Errors) {
    if let Some(reference) = reference {
        required(&reference.name, &path.child("secretRef"), "name", errors);
    }
}

fn partition(partition: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(partition) = partition.filter(|partition| !(0..=255).contains(partition)) {
        errors.invalid(&path.child("partition"), partition, names::inclusive_range(1, 255));
    }
}

pub fn git_repo(source: &GitRepoVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.repository, path, "repository", errors);
    validate_descending(source.directory.as_deref().unwrap_or_default(), &path.child("directory"), errors);
}

pub fn gce_persistent_disk(source: &GCEPersistentDiskVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.pd_name, path, "pdName", errors);
    partition(source.partition, path, errors);
}

pub fn aws_elastic_block_store(source: &AWSElasticBlockStoreVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.volume_id, path, "volumeID", errors);
    partition(source.partition, path, errors);
}

pub fn nfs(source: &NFSVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.server, path, "server", errors);
    required(&source.path, path, "path", errors);
    if !source.path.starts_with('/') {
        errors.invalid(&path.child("path"), &source.path, "must be an absolute path");
    }
}

fn iscsi_name(name: &str, path: &Path, errors: &mut Errors) {
    static FORMS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
        let form = |text| Regex::new(text).expect("a constant expression");
        vec![
            ("iqn", form(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$")),
            ("eui", form(r"^eui.[[:alnum:]]{16}$")),
            ("naa", form(r"^naa.[[:alnum:]]{32}$")),
        ]
    });
    match FORMS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        None => errors.invalid(path, name, "must be valid format starting with iqn, eui, or naa"),
        Some((_, form)) if !form.is_match(name) => errors.invalid(path, name, "must be valid format"),
        Some(_) => {}
    }
}

pub fn iscsi(source: &ISCSIVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.target_portal, path, "targetPortal", errors);
    match source.iqn.as_str() {
        "" => errors.required(&path.child("iqn"), ""),
        name => iscsi_name(name, &path.child("iqn"), errors),
    }
    if !(0..=255).contains(&source.lun) {
        errors.invalid(&path.child("lun"), source.lun, names::inclusive_range(0, 255));
    }
    let needs_secret = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    if needs_secret && source.secret_ref.is_none() {
        errors.required(&path.child("secretRef"), "");
    }
    if let Some(name) = &source.initiator_name {
        iscsi_name(name, &path.child("initiatorname"), errors);
    }
}

pub fn glusterfs(source: &GlusterfsVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.endpoints, path, "endpoints", errors);
    required(&source.path, path, "path", errors);
}

pub fn flocker(source: &FlockerVolumeSource, path: &Path, errors: &mut Errors) {
    let name = source.dataset_name.as_deref().unwrap_or_default();
    match (name, source.dataset_uuid.as_deref().unwrap_or_default()) {
        ("", "") => errors.required(path, "one of datasetName and datasetUUID is required"),
        (_, "") | ("", _) => {}
        _ => errors.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"),
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

pub fn rbd(source: &RBDVolumeSource, path: &Path, errors: &mut Errors) {
    if source.monitors.is_empty() {
        errors.required(&path.child("monitors"), "");
    }
    required(&source.image, path, "image", errors);
}

pub fn cinder(source: &CinderVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.volume_id, path, "volumeID", errors);
    secret_name(source.secret_ref.as_ref(), path, errors);
}

pub fn cephfs(source: &CephFSVolumeSource, path: &Path, errors: &mut Errors) {
    if source.monitors.is_empty() {
        errors.required(&path.child("monitors"), "");
    }
}

pub fn quobyte(source: &QuobyteVolumeSource, path: &Path, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let is_pair =
        |pair: &str| pair.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    if source.registry.is_empty() {
        errors.required(&path.child("registry"), PAIRS);
    } else if source.tenant.as_deref().unwrap_or_default().len() > QUOBYTE_TENANT_BYTES_MAX {
        errors.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for _ in source.registry.split(',').filter(|pair| !is_pair(pair)) {
            errors.invalid(&path.child("registry"), &source.registry, PAIRS);
        }
    }
    required(&source.volume, path, "volume", errors);
}

pub fn fc(source: &FCVolumeSource, path: &Path, errors: &mut Errors) {
    let names_given = source.target_wwns.as_ref().is_some_and(|names| !names.is_empty());
    let ids_given = source.wwids.as_ref().is_some_and(|ids| !ids.is_empty());
    let at = path.child("targetWWNs");
    match (names_given, ids_given) {
        (false, false) => errors.required(&at, "must specify either targetWWNs or wwids, but not both"),
        (true, true) => {
            errors.invalid(&at, &source.target_wwns, "targetWWNs and wwids can not be specified simultaneously");
        }
        _ => {}
    }
    let at = path.child("lun");
    match source.lun {
        None if names_given => errors.required(&at, "lun is required if targetWWNs is specified"),
        Some(lun) if names_given && !(0..=255).contains(&lun) => {
            errors.invalid(&at, lun, names::inclusive_range(0, 255));
        }
        _ => {}
    }
}

pub fn flex_volume(source: &FlexVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.driver, path, "driver", errors);
    for key in source.options.iter().flat_map(|options| options.keys()) {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let path = path.child("options").key(key);
            errors.invalid(&path, key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

pub fn azure_file(source: &AzureFileVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.secret_name, path, "secretName", errors);
    required(&source.share_name, path, "shareName", errors);
}

pub fn azure_disk(source: &AzureDiskVolumeSource, path: &Path, errors: &mut Errors) {
    const CACHING: &[&str] = &["None", "ReadOnly", "ReadWrite"];
    const KINDS: &[&str] = &["Dedicated", "Managed", "Shared"];
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    required(&source.disk_name, path, "diskName", errors);
    required(&source.disk_uri, path, "diskURI", errors);
    if let Some(mode) = source.caching_mode.as_deref().filter(|mode| !CACHING.contains(mode)) {
        errors.not_supported(&path.child("cachingMode"), mode, CACHING);
    }
    let Some(kind) = source.kind.as_deref() else { return };
    if !KINDS.contains(&kind) {
        errors.not_supported(&path.child("kind"), kind, KINDS);
    }
    let (form, prefix) = if kind == "Managed" { (MANAGED, "/subscriptions/") } else { (BLOB, "https://") };
    if !source.disk_uri.starts_with(prefix) {
        errors.not_supported(&path.child("diskURI"), &source.disk_uri, &[form]);
    }
}

pub fn vsphere_volume(source: &VsphereVirtualDiskVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.volume_path, path, "volumePath", errors);
}

pub fn photon_persistent_disk(source: &PhotonPersistentDiskVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.pd_id, path, "pdID", errors);
}

pub fn portworx_volume(source: &PortworxVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.volume_id, path, "volumeID", errors);
}

pub fn scale_io(source: &ScaleIOVolumeSource, path: &Path, errors: &mut Errors) {
    required(&source.gateway, path, "gateway", errors);
    required(&source.system, path, "system", errors);
    required(source.volume_name.as_deref().unwrap_or_default(), path, "volumeName", errors);
}

pub fn storageos(source: &StorageOSVolumeSource, path: &Path, errors: &mut Errors) {
    match source.volume_name.as_deref().unwrap_or_default() {
        "" => errors.required(&path.child("volumeName"), ""),
        name => check(names::is_dns1123_label(name), name, &path.child("volumeName"), errors),
    }
    if let Some(namespace) = source.volume_namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        check(names::is_dns1123_label(namespace), namespace, &path.child("volumeNamespace"), errors);
    }
    secret_name(source.secret_ref.as_ref(), path, errors);
}

pub fn csi(source: &CSIVolumeSource, path: &Path, errors: &mut Errors) {
    let at = path.child("driver");
    match source.driver.as_str() {
        "" => errors.required(&at, ""),
        driver => {
            if driver.len() > CSI_DRIVER_BYTES_MAX {
                errors.too_long(&at, CSI_DRIVER_BYTES_MAX);
            }
            check(names::is_dns1123_subdomain(&driver.to_lowercase()), driver, &at, errors);
        }
    }
    match source.node_publish_secret_ref.as_ref().map(|secret| secret.name.as_str()) {
        None => {}
        Some("") => errors.required(&path.child("nodePublishSecretRef").child("name"), ""),
        Some(name) => check(names::is_dns1123_subdomain(name), name, &path.child("name"), errors),
    }
}
