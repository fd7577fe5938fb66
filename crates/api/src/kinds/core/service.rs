//! Service: one address for a set of Pods.
//!
//! Cluster IPs and node ports come from the API server's allocator, between preparation and validation.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{ClientIPConfig, LoadBalancerStatus, Service, ServicePort, ServiceSpec, SessionAffinityConfig},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use crate::{
    field::Errors,
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, NameRule, Subresource, column, status_of, wide},
};

mod change;
mod validate;

/// How long a client sticks to an endpoint, in seconds, if the Service does not say.
const AFFINITY_SECONDS: i32 = 10_800;
/// The cluster IP of a Service that wants none.
pub const HEADLESS: &str = "None";

const PROXY: Subresource = Subresource {
    name: "proxy",
    group: "",
    version: "",
    kind: "ServiceProxyOptions",
    verbs: &["create", "delete", "get", "patch", "update"],
};

impl Kind for Service {
    const SHORT_NAMES: &'static [&'static str] = &["svc"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[PROXY, status_of("Service")];
    const NAME_RULE: NameRule = NameRule::DnsLabel;
    const CREATE_ON_UPDATE: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_text(&mut spec.session_affinity, "None");
        default_text(&mut spec.type_, "ClusterIP");
        default_affinity(spec);
        spec.ports.iter_mut().flatten().for_each(default_port);
        if is_externally_accessible(spec) {
            default_text(&mut spec.external_traffic_policy, "Cluster");
        }
        if type_of(spec) != "ExternalName" && spec.internal_traffic_policy.is_none() {
            spec.internal_traffic_policy = Some("Cluster".into());
        }
        if is_load_balancer(spec) && spec.allocate_load_balancer_node_ports.is_none() {
            spec.allocate_load_balancer_node_ports = Some(true);
        }
        let load_balancer = is_load_balancer(spec);
        let status = self.status.get_or_insert_default().load_balancer.get_or_insert_default();
        for ingress in status.ingress.iter_mut().flatten().filter(|_| load_balancer) {
            if !text(&ingress.ip).is_empty() && ingress.ip_mode.is_none() {
                ingress.ip_mode = Some("VIP".into());
            }
        }
    }

    fn prepare_for_create(&mut self) {
        self.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus::default());
        let spec = self.spec.get_or_insert_default();
        change::pluralize_cluster_ip(spec, None);
    }

    fn prepare_for_update(&mut self, old: &Self) {
        let (spec, old) = (self.spec.get_or_insert_default(), old.spec.clone().unwrap_or_default());
        change::keep_allocated(spec, &old);
        change::pluralize_cluster_ip(spec, Some(&old));
        change::drop_what_the_type_lacks(spec, &old);
        if !is_load_balancer(spec) {
            self.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus::default());
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        change::validate(spec, old, errors);
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        validate::validate_status(self, errors);
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        validate::warnings(self)
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            column("Type", "How the Service is exposed: ClusterIP, NodePort, LoadBalancer or ExternalName."),
            column("Cluster-IP", "The address of the Service inside the cluster."),
            column("External-IP", "Addresses outside the cluster that lead to the Service."),
            column("Port(s)", "The ports that the Service exposes."),
            AGE_COLUMN,
            wide("Selector", "Labels of the Pods that traffic goes to."),
        ]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let cluster_ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first());
        vec![
            self.metadata.name.clone().into(),
            type_of(&spec).into(),
            cluster_ip.map_or("<none>", String::as_str).into(),
            external_ip_cell(self, &spec).into(),
            ports_cell(spec.ports.as_deref().unwrap_or_default()).into(),
            kind::age(&self.metadata, now).into(),
            kind::labels_cell(spec.selector.as_ref()).into(),
        ]
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        let spec = self.spec.clone().unwrap_or_default();
        let (cluster_ip, r#type) = (spec.cluster_ip.unwrap_or_default(), spec.type_.unwrap_or_default());
        vec![("spec.clusterIP", cluster_ip), ("spec.type", r#type)]
    }
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

fn default_text(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.into());
    }
}

fn type_of(spec: &ServiceSpec) -> &str {
    text(&spec.type_)
}

fn is_load_balancer(spec: &ServiceSpec) -> bool {
    type_of(spec) == "LoadBalancer"
}

/// Whether the Service asks for no cluster IP.
pub fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(spec.cluster_ips.as_deref(), Some([only]) if only == HEADLESS)
}

/// Whether traffic from outside the cluster can reach it.
fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    match type_of(spec) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

/// Whether its type gives every port a port on the nodes.
pub fn needs_node_ports(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "NodePort" | "LoadBalancer")
}

/// Whether its type has a cluster IP.
pub fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    type_of(spec) != "ExternalName"
}

/// Whether load balancers must ask each node if it has endpoints.
pub fn needs_health_check_node_port(spec: &ServiceSpec) -> bool {
    is_load_balancer(spec) && text(&spec.external_traffic_policy) == "Local"
}

fn default_affinity(spec: &mut ServiceSpec) {
    match text(&spec.session_affinity) {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            if config.is_none_or(|config| config.timeout_seconds.is_none()) {
                let client_ip = Some(ClientIPConfig { timeout_seconds: Some(AFFINITY_SECONDS) });
                spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
            }
        }
        _ => {}
    }
}

fn default_port(port: &mut ServicePort) {
    default_text(&mut port.protocol, "TCP");
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.target_port = Some(IntOrString::Int(port.port)),
        Some(IntOrString::String(name)) if name.is_empty() => port.target_port = Some(IntOrString::Int(port.port)),
        Some(_) => {}
    }
}

fn external_ip_cell(service: &Service, spec: &ServiceSpec) -> String {
    let external = spec.external_ips.clone().unwrap_or_default();
    match type_of(spec) {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
            let address = |ip: &Option<String>, hostname: &Option<String>| match text(ip) {
                "" => text(hostname).to_owned(),
                ip => ip.to_owned(),
            };
            let balanced: BTreeSet<_> = ingress.iter().map(|ingress| address(&ingress.ip, &ingress.hostname)).collect();
            let all: Vec<_> = balanced.into_iter().filter(|address| !address.is_empty()).chain(external).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => text(&spec.external_name).into(),
        _ => "<unknown>".into(),
    }
}

/// `80/TCP,443:30443/TCP`
fn ports_cell(ports: &[ServicePort]) -> String {
    let piece = |port: &ServicePort| match port.node_port.unwrap_or(0) {
        0 => format!("{}/{}", port.port, text(&port.protocol)),
        node_port => format!("{}:{node_port}/{}", port.port, text(&port.protocol)),
    };
    if ports.is_empty() { "<none>".into() } else { ports.iter().map(piece).collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests;
