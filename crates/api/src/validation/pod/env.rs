//! Environment variables, and references into the Pod itself.

use k8s_openapi::{
    api::core::v1::{Container, EnvVar, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};

use super::volumes::validate_no_backsteps;
use crate::{
    field::{Errors, Path},
    kinds::core::pod::warnings::containers,
    names,
    quantity::Quantity as Amount,
    validation::check,
};

/// Fields of a Pod that a variable may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of a Pod that a file in a volume may show.
pub const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields that the downward API has known at any time.
const DOWNWARD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const SIZES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `env` and `envFrom` of a container; `path` leads to the container.
pub fn validate(container: &Container, path: &Path, errors: &mut Errors) {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let path = path.child("env").index(index);
        match variable.name.as_str() {
            "" => errors.required(&path.child("name"), ""),
            name => check(names::is_env_var_name(name), name, &path.child("name"), errors),
        }
        validate_source(variable, &path.child("valueFrom"), errors);
    }
    let at = path.child("envFrom");
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let path = at.index(index);
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            check(names::is_env_var_name(prefix), prefix, &path.child("prefix"), errors);
        }
        let mut name_of = |name: Option<&String>, field: &str| match name.map(String::as_str) {
            None => {}
            Some("") => errors.required(&path.child(field).child("name"), ""),
            Some(name) => {
                let wrong = names::is_dns1123_subdomain(&names::masked_trailing_dash(name));
                check(wrong, name, &path.child(field).child("name"), errors);
            }
        };
        name_of(source.config_map_ref.as_ref().map(|map| &map.name), "configMapRef");
        name_of(source.secret_ref.as_ref().map(|secret| &secret.name), "secretRef");
        match (&source.config_map_ref, &source.secret_ref) {
            (None, None) => errors.invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`"),
            (Some(_), Some(_)) => errors.invalid(&at, "", "may not have more than one field specified at a time"),
            _ => {}
        }
    }
}

fn validate_source(variable: &EnvVar, path: &Path, errors: &mut Errors) {
    let Some(source) = &variable.value_from else { return };
    let mut count = 0;
    if let Some(field) = &source.field_ref {
        count += 1;
        validate_field(field, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        count += 1;
        validate_resource(resource, false, &path.child("resourceFieldRef"), errors);
    }
    if let Some(map) = &source.config_map_key_ref {
        count += 1;
        validate_key(&map.name, &map.key, &path.child("configMapKeyRef"), errors);
    }
    if let Some(secret) = &source.secret_key_ref {
        count += 1;
        validate_key(&secret.name, &secret.key, &path.child("secretKeyRef"), errors);
    }
    if let Some(file) = &source.file_key_ref {
        count += 1;
        validate_file_key(file, &path.child("fileKeyRef"), errors);
    }
    let has_value = variable.value.as_ref().is_some_and(|value| !value.is_empty());
    let wrong = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid(path, "", wrong);
}

fn validate_key(name: &str, key: &str, path: &Path, errors: &mut Errors) {
    check(names::is_dns1123_subdomain(name), name, &path.child("name"), errors);
    match key {
        "" => errors.required(&path.child("key"), ""),
        key => check(names::is_config_map_key(key), key, &path.child("key"), errors),
    }
}

fn validate_file_key(file: &FileKeySelector, path: &Path, errors: &mut Errors) {
    match file.key.as_str() {
        "" => errors.required(&path.child("key"), ""),
        key => check(names::is_env_var_name(key), key, &path.child("key"), errors),
    }
    match file.volume_name.as_str() {
        "" => errors.required(&path.child("volumeName"), ""),
        name => check(names::is_dns1123_label(name), name, &path.child("volumeName"), errors),
    }
    match file.path.as_str() {
        "" => errors.required(&path.child("path"), ""),
        file => validate_no_backsteps(file, &path.child("path"), errors),
    }
}

/// The volume of a `fileKeyRef` must exist and be an emptyDir.
pub fn validate_file_keys(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (container, path) in containers(spec, path) {
        for (index, variable) in container.env.iter().flatten().enumerate() {
            let Some(file) = variable.value_from.as_ref().and_then(|source| source.file_key_ref.as_ref()) else {
                continue;
            };
            let path = path.child("env").index(index).child("valueFrom").child("fileKeyRef").child("volumeName");
            match spec.volumes.iter().flatten().find(|volume| volume.name == file.volume_name) {
                None => errors.not_found(&path, &file.volume_name),
                Some(volume) if volume.empty_dir.is_none() => {
                    errors.invalid(&path, &file.volume_name, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    }
}

/// `metadata.labels['key']` as (path, key).
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(path, _)| !path.is_empty())
}

/// A reference to a field of the Pod.
pub fn validate_field(field: &ObjectFieldSelector, allowed: &[&str], path: &Path, errors: &mut Errors) {
    let version = field.api_version.as_deref().unwrap_or_default();
    let at = path.child("fieldPath");
    if version.is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    if field.field_path.is_empty() {
        return errors.required(&at, "");
    }
    let label = field.field_path.as_str();
    let mut cannot_convert = |why: String| errors.invalid(&at, label, format!("error converting fieldPath: {why}"));
    if version != "v1" {
        return cannot_convert(format!("unsupported pod version: {version}"));
    }
    match subscript(label) {
        Some(("metadata.annotations", key)) => {
            check(names::is_qualified_name(&key.to_lowercase()), &key.to_lowercase(), path, errors);
        }
        Some(("metadata.labels", key)) => check(names::is_qualified_name(key), key, path, errors),
        Some(_) => cannot_convert(format!("field label does not support subscript: {label}")),
        None if !DOWNWARD_FIELDS.contains(&label) => cannot_convert(format!("field label not supported: {label}")),
        None => {
            let label = if label == "spec.host" { "spec.nodeName" } else { label };
            if !allowed.contains(&label) {
                errors.not_supported(&at, label, allowed);
            }
        }
    }
}

/// A reference to a container's resource; in a volume it must say which container.
pub fn validate_resource(resource: &ResourceFieldSelector, in_volume: bool, path: &Path, errors: &mut Errors) {
    let name = resource.resource.as_str();
    let is_huge_pages = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if in_volume && resource.container_name.as_deref().unwrap_or_default().is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if name.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&name) && !is_huge_pages {
        errors.not_supported(&path.child("resource"), name, RESOURCES);
    }
    validate_divisor(name, resource.divisor.as_ref(), &path.child("divisor"), errors);
}

fn validate_divisor(name: &str, divisor: Option<&Quantity>, path: &Path, errors: &mut Errors) {
    let Some(divisor) = divisor.map(Amount::of).filter(|divisor| !divisor.is_zero()) else { return };
    let divisor = divisor.to_string();
    let (what, allowed) = match name.split_once('.').map_or("", |(_, resource)| resource) {
        "cpu" => ("cpu", &["1m", "1"][..]),
        "memory" => ("memory", SIZES),
        "ephemeral-storage" => ("local ephemeral storage", SIZES),
        pages if pages.starts_with("hugepages-") => ("hugepages", SIZES),
        _ => return,
    };
    if allowed.contains(&divisor.as_str()) {
        return;
    }
    let list = if what == "cpu" { "1m and 1".to_owned() } else { SIZES.join(", ") };
    errors.invalid(path, name, format!("only divisor's values {list} are supported with the {what} resource"));
}
