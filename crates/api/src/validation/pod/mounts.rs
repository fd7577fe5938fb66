//! Where a container sees the Pod's volumes.

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{
    Surroundings,
    volumes::{has_backsteps, validate_descending},
};
use crate::field::{Errors, Path};

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];

fn has_text(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

pub fn validate_mounts(container: &Container, around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    for (index, mount) in mounts.iter().enumerate() {
        let at = path.index(index);
        if mount.name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        if !around.volumes.contains_key(mount.name.as_str()) {
            errors.not_found(&at.child("name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            errors.required(&at.child("mountPath"), "");
        }
        if mounts[..index].iter().any(|other| other.mount_path == mount.mount_path) {
            errors.invalid(&at.child("mountPath"), &mount.mount_path, "must be unique");
        }
        if devices.iter().any(|device| device.name == mount.name) {
            errors.invalid(&at.child("name"), &mount.name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.device_path == mount.mount_path) {
            let why = "must not already exist as a path in volumeDevices";
            errors.invalid(&at.child("mountPath"), &mount.mount_path, why);
        }
        // Upstream leaves the index out of these paths.
        if let Some(sub_path) = has_text(&mount.sub_path) {
            validate_descending(sub_path, &path.child("subPath"), errors);
        }
        if let Some(expression) = has_text(&mount.sub_path_expr) {
            if has_text(&mount.sub_path).is_some() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(&at.child("subPathExpr"), expression, why);
            }
            validate_descending(expression, &path.child("subPathExpr"), errors);
        }
        validate_propagation(mount, container, &path.child("mountPropagation"), errors);
        validate_recursive_read_only(mount, &path.child("recursiveReadOnly"), errors);
    }
}

fn validate_propagation(mount: &VolumeMount, container: &Container, path: &Path, errors: &mut Errors) {
    let Some(propagation) = mount.mount_propagation.as_deref() else { return };
    if !PROPAGATIONS.contains(&propagation) {
        errors.not_supported(path, propagation, PROPAGATIONS);
    }
    let is_privileged = container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true));
    if propagation == "Bidirectional" && !is_privileged {
        errors.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn validate_recursive_read_only(mount: &VolumeMount, path: &Path, errors: &mut Errors) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_ref().is_some_and(|propagation| propagation != "None") {
                errors.forbidden(path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errors.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

pub fn validate_devices(container: &Container, around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    for (index, device) in devices.iter().enumerate() {
        let path = path.index(index);
        let (name_path, device_path) = (path.child("name"), path.child("devicePath"));
        let others = &devices[..index];
        if device.name.is_empty() {
            errors.required(&name_path, "");
        } else if others.iter().any(|other| other.name == device.name) {
            errors.invalid(&name_path, &device.name, "must be unique");
        }
        match around.volumes.get(device.name.as_str()) {
            None => errors.not_found(&name_path, &device.name),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name_path, &device.name, why);
            }
            Some(_) => {}
        }
        if device.device_path.is_empty() {
            errors.required(&device_path, "");
        }
        if others.iter().any(|other| other.device_path == device.device_path && !has_backsteps(&other.device_path)) {
            errors.invalid(&device_path, &device.device_path, "must be unique");
        }
        if has_backsteps(&device.device_path) {
            errors.invalid(&device_path, &device.device_path, "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|mount| mount.name == device.name) {
            errors.invalid(&name_path, &device.name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.mount_path == device.device_path) {
            let why = "must not already exist as a path in volumeMounts";
            errors.invalid(&device_path, &device.device_path, why);
        }
    }
}
