//! Updates through `ephemeralcontainers` and `resize`: each may change its own part of the spec and no other.

use k8s_openapi::api::core::v1::{Container, Pod};

/// Keeps of `pod` only its ephemeral containers; the rest is `old`'s.
pub fn prepare_ephemeral_containers(pod: &mut Pod, old: &Pod) {
    let ephemeral_containers = pod.spec.take().and_then(|spec| spec.ephemeral_containers);
    pod.spec.clone_from(&old.spec);
    pod.status.clone_from(&old.status);
    pod.spec.get_or_insert_default().ephemeral_containers = ephemeral_containers;
    keep_metadata(pod, old);
}

/// Keeps of `pod` only the containers' resources and resize policies, and the Pod's own resources. Where containers were
/// added, removed, renamed or moved, everything stays for validation to refuse.
pub fn prepare_resize(pod: &mut Pod, old: &Pod) {
    let mut spec = pod.spec.clone().unwrap_or_default();
    let mut next = old.spec.clone().unwrap_or_default();
    let init_containers = spec.init_containers.take().unwrap_or_default();
    let old_init_containers = next.init_containers.take().unwrap_or_default();
    let merged = (resized(&spec.containers, &next.containers), resized(&init_containers, &old_init_containers));
    let (Some(containers), Some(init_containers)) = merged else { return };
    next.containers = containers;
    next.init_containers = Some(init_containers).filter(|containers| !containers.is_empty());
    next.resources = spec.resources;
    pod.spec = Some(next);
    pod.status.clone_from(&old.status);
    keep_metadata(pod, old);
}

fn resized(new: &[Container], old: &[Container]) -> Option<Vec<Container>> {
    let is_same = new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new.name == old.name);
    let merge = |(new, old): (&Container, &Container)| Container {
        resources: new.resources.clone(),
        resize_policy: new.resize_policy.clone(),
        ..old.clone()
    };
    is_same.then(|| new.iter().zip(old).map(merge).collect())
}

/// What a status update keeps of the metadata, these keep as well.
fn keep_metadata(pod: &mut Pod, old: &Pod) {
    let (new, old) = (&mut pod.metadata, &old.metadata);
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.generation = old.generation;
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
}
