//! Publishes where each Service's Pods are, in the old form: one Endpoints object of at most 1000 addresses.
//!
//! Guarantees: the object of a Service with a selector says what its Pods are; others' objects stay as they are.
//! Relies on:  Endpoints of deleted Services go by this controller seeing the deletion, as upstream's.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness, Note},
    informer::Informer,
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use crate::{caches::Caches, ownership::labels_of, pod::PodFacts, service};

const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses in one object, over all its subsets.
const ADDRESSES_MAX: usize = 1000;

/// What there is about one Service.
pub struct Observed {
    /// `None`: it is gone, its Endpoints are not.
    service: Option<Arc<Service>>,
    pods: Vec<Arc<Pod>>,
    endpoints: Option<Arc<Endpoints>>,
}

pub(crate) struct AllEndpoints {
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

impl AllEndpoints {
    fn observe(&self, key: &Key) -> Option<Observed> {
        let service = self.services.get(&key.namespace, &key.name);
        let endpoints = self.endpoints.get(&key.namespace, &key.name);
        let pods = match &service {
            None => Vec::new(),
            Some(service) => {
                service::selector(service)?;
                service::pods_of(service, &self.pods)
            }
        };
        Some(Observed { service, pods, endpoints })
    }
}

impl Controller for AllEndpoints {
    const NAME: &'static str = "endpoint";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        Ok(self.observe(key))
    }

    fn decide(&self, observed: &Observed, _: Timestamp) -> Decision {
        decide(observed)
    }
}

pub(crate) fn run(caches: &Caches, context: Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let controller = AllEndpoints { services: caches.services(), pods: caches.pods(), endpoints: caches.endpoints() };
    let (services, pods, endpoints) =
        (controller.services.clone(), controller.pods.clone(), controller.endpoints.clone());
    Harness::new(controller)
        .watch(&services, |_, change| [Key::of(&**change.object())])
        .watch(&pods, |this: &AllEndpoints, change| service::services_of(&this.services, change))
        .watch(&endpoints, |_, change| Some(change.object()).filter(|one| is_managed(one)).map(|one| Key::of(&**one)))
        .run(context, stop)
        .boxed()
}

fn is_managed(endpoints: &Endpoints) -> bool {
    labels_of(&endpoints.metadata).get(MANAGED_BY_LABEL).is_some_and(|manager| manager == MANAGER)
}

fn decide(observed: &Observed) -> Decision {
    let mut decision = Decision::default();
    let Some(service) = &observed.service else {
        let orphan = observed.endpoints.as_ref().filter(|endpoints| is_managed(endpoints));
        decision.actions.extend(orphan.map(|endpoints| Action::delete(&**endpoints)));
        return decision;
    };
    let mut subsets = subsets(service, &observed.pods);
    let is_over = truncate(&mut subsets);
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let action = match &observed.endpoints {
        None => {
            let annotations = is_over.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into());
            let metadata = ObjectMeta {
                name: Some(service.name_any()),
                namespace: service.namespace(),
                labels: Some(labels(service)),
                annotations,
                ..ObjectMeta::default()
            };
            let message = format!("Failed to create endpoint for service {}: ", Key::of(&**service));
            Action::create(&Endpoints { metadata, subsets }).failing(Note::warning(
                &**service,
                "FailedToCreateEndpoint",
                message,
            ))
        }
        Some(old) => {
            let mut new = Endpoints { subsets, ..Endpoints::clone(old) };
            new.metadata.labels = Some(labels(service));
            match is_over {
                true => drop(
                    new.metadata.annotations.get_or_insert_default().insert(OVER_CAPACITY.into(), "truncated".into()),
                ),
                false => drop(new.metadata.annotations.as_mut().and_then(|all| all.remove(OVER_CAPACITY))),
            }
            if new == **old {
                return decision;
            }
            let message = format!("Failed to update endpoint {}: ", Key::of(&**service));
            Action::replace(&new).failing(Note::warning(&**service, "FailedToUpdateEndpoint", message))
        }
    };
    decision.actions.push(action);
    decision
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = labels_of(&service.metadata).clone();
    labels.remove(service::HEADLESS_LABEL);
    if service::is_headless(service) {
        labels.insert(service::HEADLESS_LABEL.into(), String::new());
    }
    labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
    labels
}

/// One subset for each distinct set of ports, with ready and other addresses apart; all in a fixed order.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let mut by_ports: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| service::can_serve(pod, service::publishes_unready(service))) {
        let Some(address) = address(pod, service) else { continue };
        let ports = ports(service, pod);
        let is_portless = ports.is_empty() && service::ports(service).is_empty() && service::is_headless(service);
        if ports.is_empty() && !is_portless {
            continue;
        }
        let key = format!("{ports:?}");
        let subset = by_ports.entry(key).or_insert_with(|| EndpointSubset {
            ports: Some(ports).filter(|ports| !ports.is_empty()),
            ..EndpointSubset::default()
        });
        let is_ready = service::publishes_unready(service) || pod.is_ready();
        let side = if is_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        side.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<EndpointSubset> = by_ports.into_values().collect();
    for subset in &mut subsets {
        for side in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            side.sort_by_key(|address| address.ip.parse::<IpAddr>().ok());
        }
    }
    subsets
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let resolved = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: service::target_port(port, pod)?,
            protocol: Some(service::protocol(port).into()),
            app_protocol: port.app_protocol.clone(),
        })
    };
    let mut ports: Vec<EndpointPort> = service::ports(service).iter().filter_map(resolved).collect();
    ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
    ports
}

/// The Pod's address of the Service's first family.
fn address(pod: &Pod, service: &Service) -> Option<EndpointAddress> {
    let family = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref()?.first());
    let is_ipv6 = family.is_some_and(|family| family == "IPv6");
    let ip = service::addresses(pod).into_iter().find(|address| address.is_ipv6() == is_ipv6)?;
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: service::hostname(pod, service),
        node_name: Some(pod.node_name().to_owned()).filter(|name| !name.is_empty()),
        target_ref: Some(service::reference(pod)),
    })
}

/// Cuts to the limit, ready addresses last; whether anything was cut.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let mut left = ADDRESSES_MAX;
    let mut is_cut = false;
    let mut keep = |side: &mut Option<Vec<EndpointAddress>>| {
        let Some(addresses) = side else { return };
        is_cut |= addresses.len() > left;
        addresses.truncate(left);
        left -= addresses.len();
        if addresses.is_empty() {
            *side = None;
        }
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| keep(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    is_cut
}
