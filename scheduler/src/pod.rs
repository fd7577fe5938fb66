//! A Pod with everything the plugins ask for computed once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::selector::Selector;
use k8s_openapi::{
    api::core::v1::{Affinity, Pod, PodAffinityTerm, PodSpec, Toleration},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::resources::{Resources, requested, requested_or_usual};

/// A port of the node that a Pod occupies.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    pub protocol: String,
    pub port: i32,
    /// `0.0.0.0` for all addresses.
    pub ip: String,
}

impl HostPort {
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
        self.protocol == other.protocol
            && self.port == other.port
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

/// One term of Pod affinity or anti-affinity, ready to be matched.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    pub topology_key: String,
    selector: Selector,
    namespaces: BTreeSet<String>,
    /// `namespaceSelector: {}`: every namespace. Other namespace selectors need Namespace labels.
    namespace_selector: Option<Selector>,
    /// For preferred terms; negative for anti-affinity.
    pub weight: i64,
}

impl AffinityTerm {
    fn new(term: &PodAffinityTerm, own_namespace: &str, own_labels: &BTreeMap<String, String>, weight: i64) -> Self {
        let named: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        let namespaces = match (named.is_empty(), &term.namespace_selector) {
            (true, None) => BTreeSet::from([own_namespace.to_owned()]),
            _ => named,
        };
        let mut selector = term.label_selector.clone();
        if let Some(selector) = &mut selector {
            let labels = selector.match_labels.get_or_insert_default();
            for key in term.match_label_keys.iter().flatten() {
                if let Some(value) = own_labels.get(key) {
                    labels.insert(key.clone(), value.clone());
                }
            }
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector: selector_of(selector.as_ref()),
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|selector| selector_of(Some(selector))),
            weight,
        }
    }

    /// Whether `pod` is one that this term speaks of. `namespace_labels` are those of the Pod's namespace.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: &BTreeMap<String, String>) -> bool {
        let is_in_namespace = self.namespaces.contains(pod.namespace())
            || self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(namespace_labels));
        is_in_namespace && self.selector.matches(pod.labels())
    }
}

/// A selector as affinity and spread use it: absent selects nothing, empty selects everything.
pub fn selector_of(selector: Option<&LabelSelector>) -> Selector {
    Selector::from_api(selector).or_else(|_| Selector::from_api(None)).expect("no selector at all is a valid one")
}

/// A Pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Resources,
    /// For scoring: with usual amounts where nothing is requested.
    pub usual_requests: Resources,
    pub host_ports: Vec<HostPort>,
    pub required_affinity: Vec<AffinityTerm>,
    pub required_anti_affinity: Vec<AffinityTerm>,
    /// Preferred terms of both kinds; anti-affinity has a negative weight.
    pub preferred: Vec<AffinityTerm>,
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let (requests, usual_requests) = (requested(&pod), requested_or_usual(&pod));
        let spec = pod.spec.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let Affinity { pod_affinity, pod_anti_affinity, .. } = spec.affinity.clone().unwrap_or_default();
        let (affinity, anti) = (pod_affinity.unwrap_or_default(), pod_anti_affinity.unwrap_or_default());
        let term = |term: &PodAffinityTerm| AffinityTerm::new(term, &namespace, &labels, 0);
        let terms = |list: Option<Vec<PodAffinityTerm>>| list.iter().flatten().map(term).collect();
        let mut preferred = Vec::new();
        for weighted in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            let weight = i64::from(weighted.weight);
            preferred.push(AffinityTerm::new(&weighted.pod_affinity_term, &namespace, &labels, weight));
        }
        for weighted in anti.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            let weight = -i64::from(weighted.weight);
            preferred.push(AffinityTerm::new(&weighted.pod_affinity_term, &namespace, &labels, weight));
        }
        Self {
            requests,
            usual_requests,
            host_ports: host_ports(&spec),
            required_affinity: terms(affinity.required_during_scheduling_ignored_during_execution),
            required_anti_affinity: terms(anti.required_during_scheduling_ignored_during_execution),
            preferred,
            pod,
        }
    }

    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
    }

    pub fn priority(&self) -> i32 {
        self.spec().priority.unwrap_or(0)
    }

    pub fn node_name(&self) -> Option<&str> {
        self.spec().node_name.as_deref().filter(|name| !name.is_empty())
    }

    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().tolerations.as_deref().unwrap_or_default()
    }

    pub fn is_deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Succeeded or Failed: it occupies nothing any more.
    pub fn is_finished(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// The controller that owns it, by uid.
    pub fn owner_uid(&self) -> Option<&str> {
        let owners = self.pod.metadata.owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|port| *port > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            Some(HostPort { protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()), port: number, ip })
        })
        .collect()
}
