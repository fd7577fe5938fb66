//! What a Pod asks of its node, summed over its containers.

use std::{cmp::Ordering, collections::BTreeMap};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::is_sidecar;
use crate::quantity::Quantity as Amount;

/// Quantities by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// How `a` compares with `b`.
pub fn compare(a: &Quantity, b: &Quantity) -> Ordering {
    Amount::of(a).cmp(&Amount::of(b))
}

fn add(sum: &mut ResourceList, more: &ResourceList) {
    for (name, quantity) in more {
        let total = match sum.get(name) {
            Some(so_far) => (Amount::of(so_far) + Amount::of(quantity)).to_text(),
            None => quantity.clone(),
        };
        sum.insert(name.clone(), total);
    }
}

fn raise(highest: &mut ResourceList, other: &ResourceList) {
    for (name, quantity) in other {
        if highest.get(name).is_none_or(|so_far| compare(so_far, quantity) == Ordering::Less) {
            highest.insert(name.clone(), quantity.clone());
        }
    }
}

/// What the Pod's containers need at the worst moment of its life: all containers and sidecars at once, or an init
/// container beside the sidecars before it.
fn aggregate(spec: &PodSpec, list_of: impl Fn(&ResourceRequirements) -> Option<&ResourceList>) -> ResourceList {
    let nothing = ResourceList::new();
    let needs = |container: &Container| container.resources.as_ref().and_then(&list_of).unwrap_or(&nothing).clone();
    let mut together = ResourceList::new();
    spec.containers.iter().for_each(|container| add(&mut together, &needs(container)));
    let (mut sidecars, mut worst) = (ResourceList::new(), ResourceList::new());
    for container in spec.init_containers.iter().flatten() {
        let mut beside = sidecars.clone();
        add(&mut beside, &needs(container));
        if is_sidecar(container) {
            add(&mut together, &needs(container));
            sidecars.clone_from(&beside);
        }
        raise(&mut worst, &beside);
    }
    raise(&mut together, &worst);
    together
}

/// The containers' requests together, without the Pod's own and its overhead.
pub fn container_requests(spec: &PodSpec) -> ResourceList {
    aggregate(spec, |resources| resources.requests.as_ref())
}

/// The containers' limits together.
pub fn container_limits(spec: &PodSpec) -> ResourceList {
    aggregate(spec, |resources| resources.limits.as_ref())
}

/// What the Pod takes from its node: the Pod's own requests where it has them, else its containers', plus overhead.
pub fn pod_requests(spec: &PodSpec) -> ResourceList {
    let mut requests = container_requests(spec);
    for (name, quantity) in spec.resources.iter().filter_map(|own| own.requests.as_ref()).flatten() {
        if is_pod_level(name) {
            requests.insert(name.clone(), quantity.clone());
        }
    }
    if let Some(overhead) = &spec.overhead {
        add(&mut requests, overhead);
    }
    requests
}

/// Whether a Pod as a whole may ask for it.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Where the Pod as a whole has limits or requests: the rest of them.
pub fn set_pod_level_defaults(spec: &mut PodSpec) {
    let Some(mut own) = spec.resources.clone() else { return };
    let (limits, requests) = (own.limits.get_or_insert_default(), own.requests.get_or_insert_default());
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    for (name, limit) in container_limits(spec) {
        if name.starts_with("hugepages-") && !requests.contains_key(&name) {
            limits.entry(name).or_insert(limit);
        }
    }
    if !limits.is_empty() {
        for (name, request) in container_requests(spec) {
            if matches!(name.as_str(), "cpu" | "memory") {
                requests.entry(name).or_insert(request);
            }
        }
        for (name, limit) in limits.iter().filter(|(name, _)| is_pod_level(name)) {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    own.limits = own.limits.filter(|list| !list.is_empty());
    own.requests = own.requests.filter(|list| !list.is_empty());
    spec.resources = Some(own);
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let computed = |list: Option<&ResourceList>| -> ResourceList {
        let counts =
            |name: &str, quantity: &Quantity| matches!(name, "cpu" | "memory") && Amount::of(quantity).sign() > 0;
        let list = list.into_iter().flatten().filter(|(name, quantity)| counts(name, quantity));
        list.map(|(name, quantity)| (name.clone(), quantity.clone())).collect()
    };
    let (mut requests, mut limits) = (ResourceList::new(), ResourceList::new());
    let mut is_guaranteed = true;
    let mut look_at = |resources: &ResourceRequirements, limits_needed: bool| {
        let own_limits = computed(resources.limits.as_ref());
        is_guaranteed &= own_limits.len() == 2 || !limits_needed;
        add(&mut requests, &computed(resources.requests.as_ref()));
        add(&mut limits, &own_limits);
    };
    match &spec.resources {
        Some(own) => look_at(own, own.limits.as_ref().is_some_and(|limits| !limits.is_empty())),
        None => {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                look_at(container.resources.as_ref().unwrap_or(&ResourceRequirements::default()), true);
            }
        }
    }
    let is_same = |(name, request): (&String, &Quantity)| {
        limits.get(name).is_some_and(|limit| compare(limit, request) == Ordering::Equal)
    };
    match () {
        () if requests.is_empty() && limits.is_empty() => "BestEffort",
        () if is_guaranteed && requests.len() == limits.len() && requests.iter().all(is_same) => "Guaranteed",
        () => "Burstable",
    }
}
