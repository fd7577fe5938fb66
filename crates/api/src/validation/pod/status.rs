//! What a status may say, and how it may change.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus,
};

use super::{security::validate_id, update::validate_annotations};
use crate::{
    field::{Errors, Path},
    names,
    quantity::Quantity as Amount,
    validation::check,
};

const IMAGE_REFERENCE_BYTES_MAX: usize = 256;
const HEALTH_MESSAGE_BYTES_MAX: usize = 1024;
const GENERATION: &str = "must be a non-negative integer";

pub fn validate_pod_status_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    validate_annotations(new, old, errors);
    let (spec, old_spec) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let (status, old_status) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let path = Path::new("status");
    validate_conditions(status.conditions.as_deref().unwrap_or_default(), &path.child("conditions"), errors);
    if spec.node_name != old_spec.node_name {
        errors.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    validate_nomination(&status, &old_status, &old_spec, &path.child("nominatedNodeName"), errors);
    if let Some(generation) = status.observed_generation.filter(|generation| *generation < 0) {
        errors.invalid(&path.child("observedGeneration"), generation, GENERATION);
    }
    errors.immutable(&path.child("qosClass"), &status.qos_class, &old_status.qos_class);
    validate_restarts(&status, &old_status, &old_spec, &path, errors);
    validate_claims(&status, &spec, &path, errors);
    validate_addresses(&status, &old_status, &path, errors);
    let lists = [
        ("containerStatuses", &status.container_statuses, Some(&spec.containers)),
        ("initContainerStatuses", &status.init_container_statuses, spec.init_containers.as_ref()),
        ("ephemeralContainerStatuses", &status.ephemeral_container_statuses, None),
    ];
    let os = spec.os.as_ref().map_or("linux", |os| os.name.as_str());
    for (list, statuses, containers) in lists {
        for (index, status) in statuses.iter().flatten().enumerate() {
            let path = path.child(list).index(index);
            validate_user(status, os, &path.child("user").child("linux"), errors);
            let container = containers.into_iter().flatten().find(|container| container.name == status.name);
            let is_ephemeral = list.starts_with("ephemeral");
            validate_devices(status, container, is_ephemeral, &path.child("allocatedResourcesStatus"), errors);
            validate_image_volumes(status, &path.child("volumeMounts"), errors);
        }
    }
}

fn validate_conditions(conditions: &[PodCondition], path: &Path, errors: &mut Errors) {
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
            errors.invalid(&path.child("observedGeneration"), generation, GENERATION);
        }
        if !["PodScheduled", "Ready", "Initialized"].contains(&condition.type_.as_str()) {
            check(names::is_qualified_name(&condition.type_), &condition.type_, &path.child("Type"), errors);
        }
    }
}

fn validate_nomination(new: &PodStatus, old: &PodStatus, old_spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    let (name, before) = (text(&new.nominated_node_name), text(&old.nominated_node_name));
    if name.is_empty() || name == before {
        return;
    }
    check(names::is_dns1123_subdomain(&name), &name, path, errors);
    if !text(&old_spec.node_name).is_empty() {
        errors.forbidden(path, "may not be set on pods that are already bound to a node");
    }
}

/// A container that ended and may not be restarted stays ended.
fn validate_restarts(new: &PodStatus, old: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let init_containers = spec.init_containers.as_deref().unwrap_or_default();
    let restarts_all = |rule: &ContainerRestartRule| rule.action == "RestartAllContainers";
    let rules = spec.containers.iter().chain(init_containers).flat_map(|c| c.restart_policy_rules.iter().flatten());
    let all_may_restart = rules.into_iter().any(restarts_all);
    let pod_policy = spec.restart_policy.as_deref().unwrap_or_default();
    let mut look = |list: &str,
                    new: &Option<Vec<ContainerStatus>>,
                    old: &Option<Vec<ContainerStatus>>,
                    may: &dyn Fn(&str, i32) -> bool| {
        for (index, old) in old.iter().flatten().enumerate() {
            let Some(ended) = old.state.as_ref().and_then(|state| state.terminated.as_ref()) else { continue };
            let Some(new) = new.iter().flatten().find(|new| new.name == old.name) else { continue };
            let is_ended = new.state.as_ref().is_some_and(|state| state.terminated.is_some());
            if !is_ended && !may(&old.name, ended.exit_code) {
                let path = path.child(list).index(index).child("state");
                errors.forbidden(&path, "may not be transitioned to non-terminated state");
            }
        }
    };
    let may_restart = |containers: &[Container], name: &str, code: i32| {
        let container = containers.iter().find(|container| container.name == name);
        all_may_restart || container.is_some_and(|container| should_restart(container, pod_policy, code))
    };
    look("containerStatuses", &new.container_statuses, &old.container_statuses, &|name, code| {
        may_restart(&spec.containers, name, code)
    });
    look("initContainerStatuses", &new.init_container_statuses, &old.init_container_statuses, &|name, code| {
        may_restart(init_containers, name, code)
    });
    let (new, old) = (&new.ephemeral_container_statuses, &old.ephemeral_container_statuses);
    look("ephemeralContainerStatuses", new, old, &|_, _| false);
}

/// Whether a container that ended with `exit_code` runs again: its rules, its policy, the Pod's policy, in this order.
pub fn should_restart(container: &Container, pod_policy: &str, exit_code: i32) -> bool {
    let applies = |rule: &&ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let is_listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            is_listed == (codes.operator == "In")
        })
    };
    let own = container.restart_policy.as_deref();
    if own.is_some() && container.restart_policy_rules.iter().flatten().any(|rule| applies(&rule)) {
        return true;
    }
    match own.unwrap_or(pod_policy) {
        "OnFailure" => exit_code != 0,
        "Never" => false,
        _ => true,
    }
}

fn validate_claims(status: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let claims = spec.resource_claims.as_deref().unwrap_or_default();
    let statuses = status.resource_claim_statuses.as_deref().unwrap_or_default();
    for (index, status) in statuses.iter().enumerate() {
        let path = path.child("resourceClaimStatuses").index(index);
        if !claims.iter().any(|claim| claim.name == status.name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(&path.child("name"), &status.name, why);
        }
        if statuses[..index].iter().any(|other| other.name == status.name) {
            errors.duplicate(&path.child("name"), &status.name);
        }
        if let Some(name) = &status.resource_claim_name {
            check(names::is_dns1123_subdomain(name), name, &path.child("resourceClaimName"), errors);
        }
    }
    validate_extended_claim(status, spec, &path.child("extendedResourceClaimStatus"), errors);
    for (index, taken) in status.node_allocatable_resource_claim_statuses.iter().flatten().enumerate() {
        let path = path.child("nodeAllocatableResourceClaimStatuses").index(index);
        let at = path.child("resourceClaimName");
        let name = &taken.resource_claim_name;
        if name.is_empty() {
            errors.required(&at, "must not be empty");
        }
        let direct = claims.iter().any(|claim| claim.resource_claim_name.as_ref() == Some(name));
        if !direct && !statuses.iter().any(|status| status.resource_claim_name.as_ref() == Some(name)) {
            errors.invalid(&at, name, "no mapping found in pod reference");
        }
        if taken.containers.as_ref().is_none_or(|containers| containers.is_empty()) {
            errors.required(&path.child("containers"), "must not be empty");
        }
        let at = path.child("resources");
        if taken.resources.is_empty() {
            errors.required(&at, "must not be empty");
        }
        for (name, quantity) in &taken.resources {
            if name.contains('/') && !name.contains("kubernetes.io/") {
                errors.invalid(&at.key(name), name, "must be a node allocatable resource name");
            }
            if Amount::of(quantity).sign() < 0 {
                errors.invalid(&at.key(name), &quantity.0, "must be non-negative");
            }
        }
    }
}

fn validate_extended_claim(status: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(status) = &status.extended_resource_claim_status else { return };
    let at = path.child("requestMappings");
    if status.request_mappings.is_empty() {
        errors.required(&at, "at least one request mapping is required");
    }
    let containers: Vec<_> = spec.init_containers.iter().flatten().chain(&spec.containers).collect();
    for (index, mapping) in status.request_mappings.iter().enumerate() {
        let at = at.index(index);
        match containers.iter().find(|container| container.name == mapping.container_name) {
            None => {
                let why = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                errors.invalid(&at.child("containerName"), &mapping.container_name, why);
            }
            Some(container) => {
                let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
                if !requests.is_some_and(|requests| requests.contains_key(&mapping.resource_name)) {
                    let why = "must match the extended resource name of an entry in \
                               spec.initContainers.resources.requests or spec.containers.resources.requests";
                    errors.invalid(&at.child("resourceName"), &mapping.resource_name, why);
                }
            }
        }
        let name = &mapping.request_name;
        check(names::is_dns1123_label(name), name, &path.child("requestName"), errors);
        if status.request_mappings[..index].contains(mapping) {
            errors.duplicate(&at.child("containerName"), &mapping.container_name);
            errors.duplicate(&at.child("resourceName"), &mapping.resource_name);
            errors.duplicate(&at.child("requestName"), name);
        }
    }
    match status.resource_claim_name.as_str() {
        "" => errors.required(&path.child("resourceClaimName"), ""),
        name => check(names::is_dns1123_subdomain(name), name, &path.child("resourceClaimName"), errors),
    }
}

fn validate_addresses(new: &PodStatus, old: &PodStatus, path: &Path, errors: &mut Errors) {
    let pod_ips = |status: &PodStatus| -> Vec<String> {
        status.pod_ips.iter().flatten().map(|address| address.ip.clone()).collect()
    };
    let host_ips = |status: &PodStatus| -> Vec<String> {
        status.host_ips.iter().flatten().map(|address| address.ip.clone()).collect()
    };
    validate_families(&pod_ips(new), &pod_ips(old), &path.child("podIPs"), errors);
    let (hosts, path) = (host_ips(new), path.child("hostIPs"));
    if let Some(first) = hosts.first().filter(|first| new.host_ip.as_ref() != Some(first)) {
        errors.invalid(&path.index(0).child("ip"), first, "must be equal to `hostIP`");
    }
    validate_families(&hosts, &host_ips(old), &path, errors);
}

/// At most one address a family. An address that was there before is not judged again.
fn validate_families(new: &[String], old: &[String], path: &Path, errors: &mut Errors) {
    for (index, ip) in new.iter().enumerate().filter(|(_, ip)| !old.contains(ip)) {
        check(names::is_ip_for_legacy_field(ip), ip, &path.index(index), errors);
    }
    let families: BTreeSet<bool> =
        new.iter().filter_map(|ip| names::parse_ip_sloppy(ip)).map(|ip| IpAddr::is_ipv4(&ip)).collect();
    if new.len() > 1 && families.len() != new.len() {
        errors.invalid(path, new, "may specify no more than one IP for each IP family");
    }
}

fn validate_user(status: &ContainerStatus, os: &str, path: &Path, errors: &mut Errors) {
    let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) else { return };
    if os == "windows" {
        return errors.forbidden(path, "cannot be set for a windows pod");
    }
    validate_id(Some(user.uid), &path.child("uid"), errors);
    validate_id(Some(user.gid), &path.child("gid"), errors);
    for (index, group) in user.supplemental_groups.iter().flatten().enumerate() {
        validate_id(Some(*group), &path.child("supplementalGroups").index(index), errors);
    }
}

/// The health of the devices that a container has.
fn validate_devices(
    status: &ContainerStatus,
    container: Option<&Container>,
    is_ephemeral: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let Some(devices) = &status.allocated_resources_status else { return };
    if is_ephemeral {
        return errors.forbidden(path, "must not be specified in container status");
    }
    for (index, device) in devices.iter().enumerate() {
        let path = path.index(index);
        if let Some(container) = container {
            validate_device_name(&device.name, container, &path.child("name"), errors);
        }
        let all = device.resources.as_deref().unwrap_or_default();
        for (index, health) in all.iter().enumerate() {
            let path = path.child("resources").index(index);
            let state = health.health.as_deref().unwrap_or_default();
            if !["Healthy", "Unhealthy", "Unknown"].contains(&state) {
                errors.not_supported(&path.child("health"), state, &["Healthy", "Unhealthy", "Unknown"]);
            }
            match health.message.as_deref() {
                Some("") => errors.required(&path.child("message"), "must be non-empty if specified"),
                Some(message) if message.len() > HEALTH_MESSAGE_BYTES_MAX => {
                    errors.too_long(&path.child("message"), HEALTH_MESSAGE_BYTES_MAX);
                }
                _ => {}
            }
            if all[..index].iter().any(|other| other.resource_id == health.resource_id) {
                errors.duplicate(&path.child("resourceID"), &health.resource_id);
            }
        }
    }
}

fn validate_device_name(name: &str, container: &Container, path: &Path, errors: &mut Errors) {
    let resources = container.resources.clone().unwrap_or_default();
    if let Some(wanted) = name.strip_prefix("claim:") {
        let is_claim = |claim: &k8s_openapi::api::core::v1::ResourceClaim| match claim.request.as_deref() {
            None | Some("") => claim.name == wanted,
            Some(request) => format!("{}/{request}", claim.name) == wanted,
        };
        if !resources.claims.iter().flatten().any(is_claim) {
            let why = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
                       'claim:<claimName>' if request is empty";
            errors.invalid(path, name, why);
        }
    } else if !resources.requests.is_some_and(|requests| requests.contains_key(name)) {
        errors.invalid(path, name, "must match one of the container's resource requests");
    }
}

fn validate_image_volumes(status: &ContainerStatus, path: &Path, errors: &mut Errors) {
    for (index, mount) in status.volume_mounts.iter().flatten().enumerate() {
        let Some(image) = mount.volume_status.as_ref().and_then(|status| status.image.as_ref()) else { continue };
        let path = path.index(index).child("volumeStatus").child("imageVolumeStatus").child("imageRef");
        match image.image_ref.len() {
            0 => errors.required(&path, "imageRef must not be empty"),
            size if size > IMAGE_REFERENCE_BYTES_MAX => errors.too_long(&path, IMAGE_REFERENCE_BYTES_MAX),
            _ => {}
        }
    }
}
