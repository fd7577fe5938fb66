//! One Pod on this node: what it should be, what it is, what to do, who does it.
//!
//! - [`lifecycle`]: where it stands; moves only to the right.
//! - [`plan`]: spec and runtime view to actions, pure.
//! - [`status`]: the same to PodStatus, pure.
//! - [`worker`]: the task that owns a Pod; [`act`] carries out what was planned.

pub mod act;
pub mod backoff;
pub mod container_config;
pub mod kill;
pub mod lifecycle;
pub mod plan;
pub mod sandbox_config;
pub mod status;
pub mod status_patch;
pub mod termination_message;
pub mod worker;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use sha2::{Digest, Sha256};

use crate::runtime::PodIdentity;

/// What part of a Pod a container is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ContainerKind {
    Init,
    /// An init container with restartPolicy Always.
    Sidecar,
    Regular,
    Ephemeral,
}

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

pub fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&EMPTY_SPEC)
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

pub fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity { uid: uid(pod).into(), namespace: namespace(pod).into(), name: name(pod).into() }
}

/// `name_namespace(uid)`, as in upstream's messages.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

pub fn is_host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or_default()
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Succeeded and Failed are final.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Init containers, in order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// Every container that is not ephemeral, with its kind.
pub fn long_lived(pod: &Pod) -> impl Iterator<Item = (ContainerKind, &Container)> {
    let init = init_containers(pod)
        .iter()
        .map(|container| (if is_sidecar(container) { ContainerKind::Sidecar } else { ContainerKind::Init }, container));
    init.chain(spec(pod).containers.iter().map(|container| (ContainerKind::Regular, container)))
}

/// A container by name, ephemeral ones as plain containers.
pub fn find_container(pod: &Pod, name: &str) -> Option<(ContainerKind, Container)> {
    let known = long_lived(pod).find(|(_, container)| container.name == name);
    known.map(|(kind, container)| (kind, container.clone())).or_else(|| {
        let ephemeral = ephemeral_containers(pod).iter().find(|container| container.name == name)?;
        Some((ContainerKind::Ephemeral, as_container(ephemeral)))
    })
}

/// The common part of an ephemeral container.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let of = ephemeral.clone();
    Container {
        name: of.name,
        image: of.image,
        command: of.command,
        args: of.args,
        working_dir: of.working_dir,
        ports: of.ports,
        env_from: of.env_from,
        env: of.env,
        resources: of.resources,
        volume_mounts: of.volume_mounts,
        volume_devices: of.volume_devices,
        lifecycle: of.lifecycle,
        termination_message_path: of.termination_message_path,
        termination_message_policy: of.termination_message_policy,
        image_pull_policy: of.image_pull_policy,
        security_context: of.security_context,
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        tty: of.tty,
        ..Default::default()
    }
}

/// Where events about a container point: `spec.containers{web}`.
pub fn field_path(kind: ContainerKind, container: &str) -> String {
    match kind {
        ContainerKind::Init | ContainerKind::Sidecar => format!("spec.initContainers{{{container}}}"),
        ContainerKind::Regular => format!("spec.containers{{{container}}}"),
        ContainerKind::Ephemeral => format!("spec.ephemeralContainers{{{container}}}"),
    }
}

/// Of what makes a container another one: name and image, as upstream. Everything else is immutable or live.
pub fn container_hash(container: &Container) -> String {
    let mut hash = Sha256::new();
    hash.update(container.name.as_bytes());
    hash.update([0]);
    hash.update(container.image.as_deref().unwrap_or_default().as_bytes());
    hash.finalize()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Restart policy in force for one container.
pub fn container_restart_policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod))
}

/// Whether a container that ended with `exit_code` is started again.
pub fn restarts(pod: &Pod, kind: ContainerKind, container: &Container, exit_code: i32) -> bool {
    if kind == ContainerKind::Ephemeral {
        return false;
    }
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let matching = rules.iter().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
            if codes.operator == "In" { listed } else { !listed }
        })
    });
    if matching.is_some_and(|rule| rule.action == "Restart") && exit_code != 0 {
        return true;
    }
    match container_restart_policy(pod, container) {
        "Always" if kind != ContainerKind::Init => true,
        // An init container has ended well once and for all.
        "Always" | "OnFailure" => exit_code != 0,
        _ => false,
    }
}
