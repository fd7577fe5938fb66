//! From a Service and its Pods to what may receive its traffic: shared by EndpointSlices and Endpoints.

use std::{net::IpAddr, sync::Arc};

use api::selector::Selector;
use client::{
    Key,
    informer::{Change, Informer},
};
use k8s_openapi::{
    api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{ownership::labels_of, pod::PodFacts};

/// Marks what belongs to a Service without a cluster IP.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The Services whose selector matches a Pod before or after a change.
pub fn services_of(services: &Informer<Service>, change: &Change<Pod>) -> Vec<Key> {
    let mut keys: Vec<Key> = change.both().flat_map(|pod| services_of_one(services, pod)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

pub fn services_of_one(services: &Informer<Service>, pod: &Pod) -> Vec<Key> {
    let in_namespace = services.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
    let matching = in_namespace.iter().filter(|service| selects(service, pod));
    matching.map(|service| Key::of(&**service)).collect()
}

fn selects(service: &Service, pod: &Pod) -> bool {
    selector(service).is_some_and(|selector| selector.matches(labels_of(&pod.metadata)))
}

/// `None` for Services whose endpoints somebody else keeps: without selector, or names elsewhere.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then(|| Selector::from_labels(selector))
}

/// The Pods that a Service selects, by name.
pub fn pods_of(service: &Service, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let mut all = pods.in_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|pod| selects(service, pod));
    all
}

/// A Pod has an address and has not ended; of leaving ones only EndpointSlices want to know.
pub fn can_serve(pod: &Pod, with_leaving: bool) -> bool {
    !pod.is_terminal() && !addresses(pod).is_empty() && (with_leaving || !pod.is_leaving())
}

pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let listed = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = listed.filter_map(|ip| ip.parse().ok()).collect();
    if addresses.is_empty() {
        let only = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        addresses.extend(only.and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    addresses
}

/// The number that a Service's port has in a Pod; `None` where no container has a port of that name.
pub fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
            spec.containers.iter().chain(sidecars).find_map(|container| named(container, name, protocol(port)))
        }
    }
}

fn named(container: &Container, name: &str, protocol: &str) -> Option<i32> {
    let mut ports = container.ports.iter().flatten();
    let matches = |port: &&k8s_openapi::api::core::v1::ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.find(matches).map(|port| port.container_port)
}

pub fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

pub fn is_headless(service: &Service) -> bool {
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    matches!(cluster_ip, "" | "None")
}

pub fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

pub fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// The host name under which cluster DNS knows a Pod of this Service.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_subdomain = spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|name| is_subdomain && !name.is_empty())
}

/// A reference to a Pod without its resourceVersion, which would change for nothing.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
