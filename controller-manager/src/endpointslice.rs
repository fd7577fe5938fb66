//! Publishes for each Service with a selector where its Pods are, in EndpointSlices of at most 100 endpoints.
//!
//! Guarantees: every Pod with an address is in exactly one slice per address family and set of ports; a change of
//! one Pod rewrites one slice; slices of other managers are never touched.
//! Relies on:  nobody else writes slices that carry its managed-by label.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness},
    informer::{Change, Informer},
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use crate::{
    caches::{BY_NODE, BY_SERVICE, Caches, SERVICE_NAME_LABEL},
    ownership::{self, labels_of},
    pod::PodFacts,
    service,
};

pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Endpoints in one slice.
const ENDPOINTS_MAX: usize = 100;

/// What there is about one Service.
pub struct Observed {
    service: Arc<Service>,
    pods: Vec<Arc<Pod>>,
    /// The nodes of these Pods, by name.
    nodes: BTreeMap<String, Arc<Node>>,
    /// The slices that we manage.
    slices: Vec<Arc<EndpointSlice>>,
}

pub(crate) struct EndpointSlices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

impl EndpointSlices {
    fn observe(&self, key: &Key) -> Option<Observed> {
        let service = self.services.get(&key.namespace, &key.name)?;
        service::selector(&service)?;
        let pods = service::pods_of(&service, &self.pods);
        let names: BTreeSet<&str> = pods.iter().map(|pod| pod.node_name()).collect();
        let nodes = names.into_iter().filter_map(|name| Some((name.to_owned(), self.nodes.get("", name)?))).collect();
        let slices = self.slices.indexed(BY_SERVICE, &key.to_string());
        let slices = slices.into_iter().filter(|slice| is_managed(slice)).collect();
        Some(Observed { service, pods, nodes, slices })
    }

    /// A node matters when it comes, goes or changes its zone.
    fn of_node(&self, change: &Change<Node>) -> Vec<Key> {
        let zone = |node: &Node| labels_of(&node.metadata).get(ZONE_LABEL).cloned();
        let node = change.object();
        let is_same = match change {
            Change::Applied { old: Some(old), new } => zone(old) == zone(new),
            _ => false,
        };
        if is_same {
            return Vec::new();
        }
        let pods = self.pods.indexed(BY_NODE, &node.name_any());
        pods.iter().flat_map(|pod| service::services_of_one(&self.services, pod)).collect()
    }
}

fn is_managed(slice: &EndpointSlice) -> bool {
    labels_of(&slice.metadata).get(MANAGED_BY_LABEL).is_some_and(|manager| manager == MANAGER)
}

fn of_slice(change: &Change<EndpointSlice>) -> Vec<Key> {
    let managed = change.both().filter(|slice| is_managed(slice));
    let key = |slice: &Arc<EndpointSlice>| {
        let service = labels_of(&slice.metadata).get(SERVICE_NAME_LABEL)?;
        Some(Key::new(slice.namespace()?, service))
    };
    managed.filter_map(key).collect()
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpoint_slice";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        Ok(self.observe(key))
    }

    fn decide(&self, observed: &Observed, _: Timestamp) -> Decision {
        decide(observed)
    }
}

pub(crate) fn run(caches: &Caches, context: Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let controller = EndpointSlices {
        services: caches.services(),
        pods: caches.pods(),
        nodes: caches.nodes(),
        slices: caches.endpoint_slices(),
    };
    let (services, pods) = (controller.services.clone(), controller.pods.clone());
    let (nodes, slices) = (controller.nodes.clone(), controller.slices.clone());
    Harness::new(controller)
        .watch(&services, |_, change| [Key::of(&**change.object())])
        .watch(&pods, |this: &EndpointSlices, change| service::services_of(&this.services, change))
        .watch(&nodes, EndpointSlices::of_node)
        .watch(&slices, |_, change| of_slice(change))
        .run(context, stop)
        .boxed()
}

/// A set of ports, as text: slices hold endpoints that share one.
type PortSet = String;

fn port_set(ports: &[EndpointPort]) -> PortSet {
    let mut lines: Vec<String> = ports.iter().map(|port| format!("{port:?}")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// What identifies an endpoint while its conditions change.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    format!("{}/{}", uid.unwrap_or_default(), endpoint.addresses.join(","))
}

fn decide(observed: &Observed) -> Decision {
    let mut decision = Decision::default();
    if observed.service.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let families = families(&observed.service);
    let foreign = observed.slices.iter().filter(|slice| !families.contains(&slice.address_type.as_str()));
    decision.actions.extend(foreign.map(|slice| Action::delete(&**slice)));
    for family in families {
        decision.actions.extend(plan(observed, family));
    }
    decision
}

/// `IPv4`, `IPv6` or both.
fn families(service: &Service) -> Vec<&str> {
    let listed: Vec<&str> =
        service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten()).map(String::as_str).collect();
    if listed.is_empty() { vec!["IPv4"] } else { listed }
}

fn plan(observed: &Observed, family: &str) -> Vec<Action> {
    let service = &*observed.service;
    let mut wanted = wanted(observed, family);
    let (own, foreign): (Vec<_>, Vec<_>) = observed
        .slices
        .iter()
        .filter(|slice| slice.address_type == family && slice.metadata.deletion_timestamp.is_none())
        .partition(|slice| {
            ownership::is_controlled_by(&slice.metadata, service.metadata.uid.as_deref().unwrap_or_default())
        });
    let mut actions: Vec<Action> = foreign.into_iter().map(|slice| Action::delete(&**slice)).collect();
    if wanted.is_empty() {
        wanted.insert(PortSet::new(), (Vec::new(), BTreeMap::new()));
    }
    let mut spare: Vec<&Arc<EndpointSlice>> = Vec::new();
    let mut by_ports: BTreeMap<PortSet, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in own {
        let ports = port_set(slice.ports.as_deref().unwrap_or_default());
        if wanted.contains_key(&ports) { by_ports.entry(ports).or_default().push(slice) } else { spare.push(slice) }
    }
    for (ports, (port_list, endpoints)) in wanted {
        let existing = by_ports.remove(&ports).unwrap_or_default();
        let slices = fill(existing, endpoints, &mut spare);
        actions.extend(
            slices.into_iter().filter_map(|(slice, endpoints)| write(service, family, slice, &port_list, endpoints)),
        );
    }
    actions.extend(spare.into_iter().map(|slice| Action::delete(&**slice)));
    actions
}

/// The ports in Pod terms, and the endpoints by identity, for each distinct set of ports.
fn wanted(observed: &Observed, family: &str) -> BTreeMap<PortSet, (Vec<EndpointPort>, BTreeMap<String, Endpoint>)> {
    let mut groups: BTreeMap<PortSet, (Vec<EndpointPort>, BTreeMap<String, Endpoint>)> = BTreeMap::new();
    for pod in observed.pods.iter().filter(|pod| service::can_serve(pod, true)) {
        let node = observed.nodes.get(pod.node_name());
        if node.is_none() && !service::publishes_unready(&observed.service) {
            continue;
        }
        let Some(endpoint) = endpoint(pod, node.map(|node| &**node), &observed.service, family) else { continue };
        let ports = ports(&observed.service, pod);
        let group = groups.entry(port_set(&ports)).or_insert_with(|| (ports, BTreeMap::new()));
        group.1.insert(identity(&endpoint), endpoint);
    }
    groups
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let resolved = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(service::target_port(port, pod)?),
            protocol: Some(service::protocol(port).into()),
            app_protocol: port.app_protocol.clone(),
        })
    };
    service::ports(service).iter().filter_map(resolved).collect()
}

fn endpoint(pod: &Pod, node: Option<&Node>, service: &Service, family: &str) -> Option<Endpoint> {
    let is_of_family = |address: &IpAddr| address.is_ipv6() == (family == "IPv6");
    let addresses: Vec<String> =
        service::addresses(pod).into_iter().filter(is_of_family).map(|address| address.to_string()).collect();
    if addresses.is_empty() {
        return None;
    }
    let (serving, terminating) = (pod.is_ready(), pod.is_leaving());
    let ready = service::publishes_unready(service) || (serving && !terminating);
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        target_ref: Some(service::reference(pod)),
        node_name: Some(pod.node_name().to_owned()).filter(|name| !name.is_empty()),
        zone: node.and_then(|node| labels_of(&node.metadata).get(ZONE_LABEL).cloned()).filter(|zone| !zone.is_empty()),
        hostname: service::hostname(pod, service),
        ..Endpoint::default()
    })
}

/// Which endpoints each slice holds: those that are in one stay there, the others fill what has room, then
/// slices that nobody needs any more, then new ones.
fn fill<'a>(
    existing: Vec<&'a Arc<EndpointSlice>>,
    mut endpoints: BTreeMap<String, Endpoint>,
    spare: &mut Vec<&'a Arc<EndpointSlice>>,
) -> Vec<(Option<&'a Arc<EndpointSlice>>, Vec<Endpoint>)> {
    let mut slices: Vec<(Option<&Arc<EndpointSlice>>, Vec<Endpoint>)> = Vec::new();
    for slice in existing {
        let known = slice.endpoints.iter().flatten();
        slices.push((Some(slice), known.filter_map(|endpoint| endpoints.remove(&identity(endpoint))).collect()));
    }
    // The fullest with room first, so that few slices change.
    slices.sort_by_key(|(_, held)| std::cmp::Reverse(held.len()));
    let mut rest = endpoints.into_values();
    for (_, held) in &mut slices {
        held.extend(rest.by_ref().take(ENDPOINTS_MAX.saturating_sub(held.len())));
    }
    loop {
        let held: Vec<Endpoint> = rest.by_ref().take(ENDPOINTS_MAX).collect();
        if held.is_empty() {
            break;
        }
        slices.push((spare.pop(), held));
    }
    // Empty slices go, but one slice must say that there is nothing.
    let is_empty = slices.iter().all(|(_, held)| held.is_empty());
    let keep = if is_empty { slices.first().map(|(slice, _)| *slice).unwrap_or_else(|| spare.pop()) } else { None };
    let emptied = slices.iter().filter(|(_, held)| held.is_empty()).filter_map(|(slice, _)| *slice);
    spare.extend(emptied.filter(|slice| !keep.is_some_and(|keep| Arc::ptr_eq(keep, slice))));
    slices.retain(|(_, held)| !held.is_empty());
    if is_empty {
        slices.push((keep, Vec::new()));
    }
    slices
}

fn write(
    service: &Service,
    family: &str,
    slice: Option<&Arc<EndpointSlice>>,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> Option<Action> {
    let labels = Some(labels(service));
    let (endpoints, ports) = (Some(endpoints), Some(ports.to_vec()));
    let Some(old) = slice else {
        let metadata = ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels,
            owner_references: Some(vec![ownership::reference_to(service)]),
            ..ObjectMeta::default()
        };
        let slice = EndpointSlice { metadata, address_type: family.into(), endpoints, ports };
        return Some(Action::create(&slice));
    };
    let mut new = EndpointSlice { endpoints, ports, ..EndpointSlice::clone(old) };
    new.metadata.labels = labels;
    let is_same = new.metadata.labels == old.metadata.labels
        && new.endpoints.as_deref().unwrap_or_default() == old.endpoints.as_deref().unwrap_or_default()
        && port_set(new.ports.as_deref().unwrap_or_default()) == port_set(old.ports.as_deref().unwrap_or_default());
    (!is_same).then(|| Action::replace(&new))
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = labels_of(&service.metadata).clone();
    labels.remove(service::HEADLESS_LABEL);
    if service::is_headless(service) {
        labels.insert(service::HEADLESS_LABEL.into(), String::new());
    }
    labels.insert(SERVICE_NAME_LABEL.into(), service.name_any());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
    labels
}

#[cfg(test)]
mod tests;
