//! Containers of the three sorts.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer,
};

use super::{Surroundings, env, handlers, mounts, resources, security, validate_image_is_trimmed};
use crate::{
    field::{Errors, Path},
    kinds::core::pod::{ephemeral, is_sidecar},
    names,
    validation::{check, net, validate_choice},
};

const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

pub fn validate_containers(around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let containers = &around.spec.containers;
    if containers.is_empty() {
        return errors.required(path, "");
    }
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        validate_common(container, around, &path, errors);
        if containers[..index].iter().any(|other| other.name == container.name) {
            errors.duplicate(&path.child("name"), &container.name);
        }
        handlers::validate_lifecycle(container, around, &path.child("lifecycle"), errors);
        handlers::validate_probes(container, &path, errors);
        validate_restart_policy(container, &path, errors);
    }
    validate_host_ports_differ(containers, path, errors);
}

pub fn validate_init_containers(around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";
    let mut known: BTreeSet<&str> = around.spec.containers.iter().map(|container| container.name.as_str()).collect();
    for (index, container) in around.spec.init_containers.iter().flatten().enumerate() {
        let at = path.index(index);
        validate_common(container, around, &at, errors);
        validate_restart_policy(container, &at, errors);
        if known.contains(container.name.as_str()) {
            errors.duplicate(&at.child("name"), &container.name);
        } else if !container.name.is_empty() {
            known.insert(&container.name);
        }
        // They run one by one: only a container's own ports can clash.
        validate_host_ports_differ(std::slice::from_ref(container), path, errors);
        if is_sidecar(container) {
            handlers::validate_lifecycle(container, around, &at.child("lifecycle"), errors);
            handlers::validate_probes(container, &at, errors);
            continue;
        }
        let forbidden = [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (field, _) in forbidden.iter().filter(|(_, is_set)| *is_set) {
            errors.forbidden(&at.child(field), NOT_FOR_INIT);
        }
        for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let path = at.child("resizePolicy").index(index).child("restartPolicy");
                let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.invalid(&path, &policy.restart_policy, why);
            }
        }
    }
}

pub fn validate_ephemeral_containers(around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let others = around.spec.containers.iter().chain(around.spec.init_containers.iter().flatten());
    let others: BTreeSet<&str> = others.map(|container| container.name.as_str()).collect();
    let mut known = others.clone();
    for (index, entry) in around.spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        let container = ephemeral::as_container(entry);
        validate_common(&container, around, &path, errors);
        validate_image_is_trimmed(&container, &path, errors);
        if !known.insert(&entry.name) {
            errors.duplicate(&path.child("name"), &entry.name);
        }
        let target = entry.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        validate_only_debugs(entry, &path, errors);
    }
}

/// An ephemeral container looks at a Pod; it is no part of what the Pod does.
fn validate_only_debugs(container: &EphemeralContainer, path: &Path, errors: &mut Errors) {
    const NOT_HERE: &str = "cannot be set for an Ephemeral Container";
    let requirements = container.resources.clone().unwrap_or_default();
    let forbidden = [
        ("ports", container.ports.as_ref().is_some_and(|ports| !ports.is_empty())),
        ("resources", requirements != Default::default()),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    for (field, _) in forbidden.iter().filter(|(_, is_set)| *is_set) {
        errors.forbidden(&path.child(field), NOT_HERE);
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.child("volumeMounts").index(index);
        for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if value.as_ref().is_some_and(|value| !value.is_empty()) {
                errors.forbidden(&path.child(field), NOT_HERE);
            }
        }
    }
}

fn validate_common(container: &Container, around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    match container.name.as_str() {
        "" => errors.required(&path.child("name"), ""),
        name => check(names::is_dns1123_label(name), name, &path.child("name"), errors),
    }
    if container.image.as_deref().unwrap_or_default().is_empty() {
        errors.required(&path.child("image"), "");
    }
    let policy = container.termination_message_policy.as_deref();
    validate_choice(policy, &["File", "FallbackToLogsOnError"], &path.child("terminationMessagePolicy"), errors);
    validate_ports(container, &path.child("ports"), errors);
    env::validate(container, path, errors);
    mounts::validate_mounts(container, around, &path.child("volumeMounts"), errors);
    mounts::validate_devices(container, around, &path.child("volumeDevices"), errors);
    let policy = container.image_pull_policy.as_deref();
    validate_choice(policy, PULL_POLICIES, &path.child("imagePullPolicy"), errors);
    resources::validate_container(container, around, &path.child("resources"), errors);
    let pod_policy = around.spec.restart_policy.as_deref().unwrap_or_default();
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    validate_resize_policy(policies, pod_policy, &path.child("resizePolicy"), errors);
    let context = container.security_context.as_ref();
    security::validate_container(context, around.host_users(), &path.child("securityContext"), errors);
}

pub const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

fn validate_ports(container: &Container, path: &Path, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let wrong = names::is_port_name(name);
            if wrong.is_empty() && !known.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
            check(wrong, name, &path.child("name"), errors);
        }
        match port.container_port {
            0 => errors.required(&path.child("containerPort"), ""),
            number => net::validate_port(number, &path.child("containerPort"), errors),
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            net::validate_port(number, &path.child("hostPort"), errors);
        }
        validate_choice(port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], &path.child("protocol"), errors);
    }
}

fn validate_host_ports_differ(containers: &[Container], path: &Path, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index).child("ports");
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let ContainerPort { host_ip, host_port, protocol, .. } = port;
            let Some(number) = host_port.filter(|number| *number != 0) else { continue };
            let (protocol, ip) = (protocol.as_deref().unwrap_or_default(), host_ip.as_deref().unwrap_or_default());
            let socket = format!("{protocol}/{ip}/{number}");
            if known.contains(&socket) {
                errors.duplicate(&path.index(index).child("hostPort"), &socket);
            }
            known.insert(socket);
        }
    }
}

fn validate_resize_policy(policies: &[ContainerResizePolicy], pod_policy: &str, path: &Path, errors: &mut Errors) {
    for (index, policy) in policies.iter().enumerate() {
        if policies[..index].iter().any(|other| other.resource_name == policy.resource_name) {
            errors.duplicate(&path.index(index), &policy.resource_name);
        }
        validate_choice(Some(&policy.resource_name), &["cpu", "memory"], path, errors);
        validate_choice(Some(&policy.restart_policy), &["NotRequired", "RestartContainer"], path, errors);
        if pod_policy == "Never" && policy.restart_policy != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(path, &policy.restart_policy, why);
        }
    }
}

fn validate_restart_policy(container: &Container, path: &Path, errors: &mut Errors) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let at = path.child("restartPolicy");
    match container.restart_policy.as_deref() {
        None if rules.is_empty() => return,
        None => errors.required(&at, "must specify restartPolicy when restart rules are used"),
        Some("Always" | "Never" | "OnFailure") => {}
        Some(other) => errors.not_supported(&at, other, &["Always", "Never", "OnFailure"]),
    }
    let at = path.child("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errors.too_many(&at, rules.len(), RESTART_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        validate_restart_rule(rule, &at.index(index), errors);
    }
}

fn validate_restart_rule(rule: &ContainerRestartRule, path: &Path, errors: &mut Errors) {
    let actions = ["Restart", "RestartAllContainers"];
    if !actions.contains(&rule.action.as_str()) {
        errors.not_supported(&path.child("action"), &rule.action, &actions);
    }
    let path = path.child("exitCodes");
    let Some(codes) = &rule.exit_codes else { return errors.required(&path, "must be specified") };
    let operators = ["In", "NotIn"];
    if !operators.contains(&codes.operator.as_str()) {
        errors.not_supported(&path.child("operator"), &codes.operator, &operators);
    }
    let count = codes.values.as_ref().map_or(0, Vec::len);
    if count > EXIT_CODES_MAX {
        errors.too_many(&path.child("values"), count, EXIT_CODES_MAX);
    }
}
