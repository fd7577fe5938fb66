//! Changes through `ephemeralcontainers` and `resize`.

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{MIRROR_POD, update, validate_pod};
use crate::{
    field::{Errors, Path},
    kinds::core::pod::{
        is_sidecar,
        resources::{self, ResourceList},
    },
};

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR_POD))
}

/// Ephemeral containers may be added, and stay as they are.
pub fn validate_ephemeral_containers_update(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::default();
    if is_mirror(old) {
        errors.forbidden(&Path::default(), "static pods do not support ephemeral containers");
        return errors;
    }
    validate_pod(new, &mut errors);
    update::validate_annotations(new, old, &mut errors);
    let path = Path::new("spec").child("ephemeralContainers");
    let all = |pod: &Pod| pod.spec.clone().unwrap_or_default().ephemeral_containers.unwrap_or_default();
    let now = all(new);
    for old in all(old) {
        let name = &old.name;
        match now.iter().find(|new| new.name == old.name) {
            None => errors.forbidden(&path, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(new) => {
                let changes = update::changes(&old, new);
                if !changes.is_empty() {
                    let why = format!("existing ephemeral containers {name:?} may not be changed\n{changes}");
                    errors.forbidden(&path, why);
                }
            }
        }
    }
    errors
}

/// CPU and memory may change, within the Pod's QoS class.
pub fn validate_resize(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::default();
    if is_mirror(old) {
        errors.forbidden(&Path::default(), "static pods cannot be resized");
        return errors;
    }
    let (new_spec, old_spec) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    if old_spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.forbidden(&Path::default(), "windows pods cannot be resized");
        return errors;
    }
    validate_pod(new, &mut errors);
    let path = Path::new("spec");
    let class = old.status.as_ref().and_then(|status| status.qos_class.as_deref());
    if class.unwrap_or_else(|| resources::qos_class(&old_spec)) != resources::qos_class(&new_spec) {
        let class = new.status.as_ref().and_then(|status| status.qos_class.clone());
        errors.invalid(&path, class, "Pod QOS Class may not change as a result of resizing");
    }
    if !is_node_able(old) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    validate_own_resources(&new_spec, &old_spec, &path, &mut errors);
    if !validate_order(&new_spec, &old_spec, &path, &mut errors) {
        return errors;
    }
    let (new_init, old_init) = (init_containers(&new_spec), init_containers(&old_spec));
    validate_not_removed(&new_init, &old_init, &path.child("initContainers"), &mut errors);
    validate_not_removed(&new_spec.containers, &old_spec.containers, &path.child("containers"), &mut errors);
    for (new, old) in new_spec.containers.iter().zip(&old_spec.containers) {
        if !update::changes(old, &without_cpu_and_memory_of(new, old)).is_empty() {
            errors.forbidden(&path, "only cpu and memory resources are mutable");
        }
    }
    for (index, (new, old)) in new_init.iter().zip(&old_init).enumerate() {
        let path = path.child("initContainers").index(index);
        if !update::changes(old, &without_cpu_and_memory_of(new, old)).is_empty() {
            errors.forbidden(&path, "only cpu and memory resources for init or sidecar containers are mutable");
        }
        let restarts = new.resize_policy.iter().flatten().any(|policy| policy.restart_policy == "RestartContainer");
        if restarts && !is_sidecar(new) && !update::changes(old, new).is_empty() {
            let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.forbidden(&path, why);
        }
    }
    errors
}

fn init_containers(spec: &PodSpec) -> Vec<Container> {
    spec.init_containers.clone().unwrap_or_default()
}

/// A kubelet that can resize reports the resources of what runs.
fn is_node_able(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut running = statuses.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.next().is_none_or(|status| status.resources.is_some())
}

fn validate_order(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) -> bool {
    let mut is_same = true;
    let lists = [
        ("containers", new.containers.clone(), old.containers.clone()),
        ("initContainers", init_containers(new), init_containers(old)),
    ];
    for (list, new, old) in lists {
        let path = path.child(list);
        if new.len() != old.len() {
            errors.forbidden(&path, format!("{list} may not be added or removed on resize"));
            is_same = false;
            continue;
        }
        for (index, _) in new.iter().zip(&old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
            let why = format!("{list} may not be renamed or reordered on resize");
            errors.forbidden(&path.index(index).child("name"), why);
            is_same = false;
        }
    }
    is_same
}

type List = Option<ResourceList>;

/// Whether something that was there is not there now.
fn is_removed(new: &List, old: &List) -> bool {
    old.iter().flat_map(|list| list.keys()).any(|name| !new.as_ref().is_some_and(|list| list.contains_key(name)))
}

fn validate_not_removed(new: &[Container], old: &[Container], path: &Path, errors: &mut Errors) {
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        let path = path.index(index).child("resources");
        let (new, old) = (new.resources.clone().unwrap_or_default(), old.resources.clone().unwrap_or_default());
        if is_removed(&new.requests, &old.requests) {
            errors.forbidden(&path.child("requests"), "resource requests cannot be removed");
        }
        if is_removed(&new.limits, &old.limits) {
            errors.forbidden(&path.child("limits"), "resource limits cannot be removed");
        }
    }
}

fn with_cpu_and_memory_of(new: &List, old: &List) -> List {
    let mut list = new.clone().unwrap_or_default();
    list.retain(|name, _| name != "cpu" && name != "memory");
    let of_old = |(name, _): &(&String, &Quantity)| matches!(name.as_str(), "cpu" | "memory");
    list.extend(old.iter().flatten().filter(of_old).map(|(name, quantity)| (name.clone(), quantity.clone())));
    Some(list)
}

fn masked(new: &ResourceRequirements, old: &ResourceRequirements) -> ResourceRequirements {
    ResourceRequirements {
        limits: with_cpu_and_memory_of(&new.limits, &old.limits),
        requests: with_cpu_and_memory_of(&new.requests, &old.requests),
        claims: new.claims.clone(),
    }
}

fn without_cpu_and_memory_of(new: &Container, old: &Container) -> Container {
    let (own, before) = (new.resources.clone().unwrap_or_default(), old.resources.clone().unwrap_or_default());
    Container { resources: Some(masked(&own, &before)), resize_policy: old.resize_policy.clone(), ..new.clone() }
}

/// The resources of the Pod as a whole.
fn validate_own_resources(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let before = old.resources.clone().unwrap_or_default();
    let at = path.child("resources");
    let Some(own) = &new.resources else {
        if old.resources.is_some() {
            errors.forbidden(&at, "pod-level resources cannot be removed");
        }
        return;
    };
    if is_removed(&own.requests, &before.requests) {
        errors.forbidden(&at.child("requests"), "pod-level resource requests cannot be removed");
    }
    if is_removed(&own.limits, &before.limits) {
        errors.forbidden(&at.child("limits"), "pod-level resource limits cannot be removed");
    }
    if !update::changes(&before, &masked(own, &before)).is_empty() {
        errors.forbidden(path, "only cpu and memory resources are mutable at pod-level");
    }
}
