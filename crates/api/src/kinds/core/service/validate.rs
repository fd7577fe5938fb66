//! Whether a Service makes sense by itself.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort, ServiceSpec, SessionAffinityConfig};
use serde_json::json;

use super::{
    HEADLESS, is_externally_accessible, is_headless, is_load_balancer, needs_cluster_ip, needs_health_check_node_port,
    text, type_of,
};
use crate::{
    field::{Errors, Path},
    names::{self, parse_ip_sloppy},
    validation::{
        meta::validate_labels, net, validate_choice, validate_dns_label, validate_dns_subdomain,
        validate_qualified_name,
    },
};

/// A client sticks to an endpoint for a day at most, in seconds.
const AFFINITY_SECONDS_MAX: i32 = 86_400;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const TRAFFIC_POLICIES: &[&str] = &["Cluster", "Local"];
const IP_FAMILIES: &[&str] = &["IPv4", "IPv6"];
const IP_FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub fn validate(service: &Service, errors: &mut Errors) {
    let Some(spec) = &service.spec else { return };
    let path = Path::new("spec");
    let empty = BTreeMap::new();
    let annotations = service.metadata.annotations.as_ref().unwrap_or(&empty);
    validate_topology_annotations(annotations, errors);
    validate_type(spec, &path, errors);
    validate_ports(spec, &path, errors);
    validate_labels(spec.selector.as_ref(), &path.child("selector"), errors);
    validate_affinity(spec, &path, errors);
    if needs_cluster_ip(spec) {
        validate_cluster_ips(spec, &path, errors);
    }
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let path = path.child("externalIPs").index(index);
        if net::validate_ip(ip, &path, errors) {
            net::validate_endpoint_ip(ip, &path, errors);
        }
    }
    validate_source_ranges(spec, annotations, &path, errors);
    validate_load_balancer(spec, &path, errors);
    validate_traffic(spec, &path, errors);
}

fn validate_topology_annotations(annotations: &BTreeMap<String, String>, errors: &mut Errors) {
    if let (Some(mode), Some(hints)) = (annotations.get(TOPOLOGY_MODE), annotations.get(TOPOLOGY_HINTS))
        && mode != hints
    {
        let path = Path::new("metadata").child("annotations").key(TOPOLOGY_MODE);
        errors.invalid(&path, mode, format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"));
    }
}

fn validate_type(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    validate_choice(spec.type_.as_deref(), TYPES, &path.child("type"), errors);
    let r#type = type_of(spec);
    match r#type {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let why = format!("may not be set to 'None' for {type} services");
            errors.invalid(&path.child("clusterIPs").index(0), HEADLESS, why);
        }
        "ExternalName" => validate_external_name(spec, path, errors),
        _ => {}
    }
}

fn validate_external_name(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let why = "may not be set for ExternalName services";
    let present = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if present(&spec.cluster_ips) {
        errors.forbidden(&path.child("clusterIPs"), why);
    }
    if present(&spec.ip_families) {
        errors.forbidden(&path.child("ipFamilies"), why);
    }
    if spec.ip_family_policy.is_some() {
        errors.forbidden(&path.child("ipFamilyPolicy"), why);
    }
    let name = text(&spec.external_name);
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.required(&path.child("externalName"), ""),
        name => validate_dns_subdomain(name, &path.child("externalName"), errors),
    }
}

fn validate_ports(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("ports");
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !is_headless(spec) && needs_cluster_ip(spec) {
        errors.required(&path, "");
    }
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        match text(&port.name) {
            "" if ports.len() > 1 => errors.required(&path.child("name"), ""),
            "" => {}
            name => {
                validate_dns_label(name, &path.child("name"), errors);
                if !names.insert(name) {
                    errors.duplicate(&path.child("name"), name);
                }
            }
        }
        validate_port(port, &path, errors);
    }
    let (mut node_ports, mut numbers) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let node_port = port.node_port.unwrap_or(0);
        if node_port != 0 && type_of(spec) == "ClusterIP" {
            errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        if node_port != 0 && !node_ports.insert((text(&port.protocol), node_port)) {
            errors.duplicate(&path.child("nodePort"), node_port);
        }
        if !numbers.insert((text(&port.protocol), port.port)) {
            let key = json!({"Name": "", "Protocol": port.protocol, "AppProtocol": null, "Port": port.port,
                "TargetPort": 0, "NodePort": 0});
            errors.duplicate(&path, key);
        }
    }
}

fn validate_port(port: &ServicePort, path: &Path, errors: &mut Errors) {
    net::validate_port(port.port, &path.child("port"), errors);
    net::validate_protocol(port.protocol.as_deref(), &path.child("protocol"), errors);
    if let Some(target) = &port.target_port {
        net::validate_port_or_name(target, &path.child("targetPort"), errors);
    }
    if let Some(protocol) = &port.app_protocol {
        validate_qualified_name(protocol, &path.child("appProtocol"), errors);
    }
}

fn validate_affinity(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    validate_choice(spec.session_affinity.as_deref(), &["ClientIP", "None"], &path.child("sessionAffinity"), errors);
    let path = path.child("sessionAffinityConfig");
    match (text(&spec.session_affinity), &spec.session_affinity_config) {
        ("ClientIP", config) => validate_client_ip(config.as_ref(), &path, errors),
        ("None", Some(_)) => errors.forbidden(&path, "must not be set when session affinity is None"),
        _ => {}
    }
}

fn validate_client_ip(config: Option<&SessionAffinityConfig>, path: &Path, errors: &mut Errors) {
    let why = "when session affinity type is ClientIP";
    let Some(config) = config else { return errors.required(path, why) };
    let path = path.child("clientIP");
    let Some(client_ip) = &config.client_ip else { return errors.required(&path, why) };
    let path = path.child("timeoutSeconds");
    match client_ip.timeout_seconds {
        None => errors.required(&path, why),
        Some(1..=AFFINITY_SECONDS_MAX) => {}
        Some(seconds) => {
            errors.invalid(&path, seconds, format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"));
        }
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` must tell the same story.
fn validate_cluster_ips(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let ips_path = path.child("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match (text(&spec.cluster_ip), ips) {
        ("", []) => {}
        ("", _) => errors.invalid(&ips_path, ips, "must be empty when `clusterIP` is not specified"),
        (_, []) => errors.required(&ips_path, ""),
        (ip, [first, ..]) if ip != first => errors.invalid(&ips_path, ips, "first value must match `clusterIP`"),
        _ => {}
    }
    validate_families(spec, path, errors);
    let found = errors.iter().count();
    for (index, ip) in ips.iter().enumerate() {
        match (index, ip.as_str()) {
            (0, HEADLESS) if ips.len() == 1 => {}
            (0, HEADLESS) => errors.invalid(&ips_path, ips, "'None' must be the first and only value"),
            (index, ip) => drop(net::validate_ip(ip, &ips_path.index(index), errors)),
        }
    }
    if ips.len() > 2 {
        errors.invalid(&ips_path, ips, "may only hold up to 2 values");
    }
    if errors.iter().count() > found {
        return;
    }
    let is_v6 = |ip: &String| matches!(parse_ip_sloppy(ip), Some(IpAddr::V6(_)));
    if matches!(ips, [one, two] if is_v6(one) == is_v6(two)) {
        errors.invalid(&ips_path, ips, "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (index, (ip, family)) in ips.iter().zip(spec.ip_families.iter().flatten()).enumerate() {
        if (family == "IPv6") != is_v6(ip) && IP_FAMILIES.contains(&family.as_str()) {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(&ips_path.index(index), ip, why);
        }
    }
}

fn validate_families(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        let path = path.child("ipFamilies").index(index);
        if !IP_FAMILIES.contains(&family.as_str()) {
            errors.not_supported(&path, family, IP_FAMILIES);
        }
        if !seen.insert(family) {
            errors.duplicate(&path, family);
        }
    }
    if let Some(policy) = spec.ip_family_policy.as_deref().filter(|name| !IP_FAMILY_POLICIES.contains(name)) {
        errors.not_supported(&path.child("ipFamilyPolicy"), policy, IP_FAMILY_POLICIES);
    }
}

fn validate_source_ranges(
    spec: &ServiceSpec,
    annotations: &BTreeMap<String, String>,
    path: &Path,
    errors: &mut Errors,
) {
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let annotation = annotations.get(SOURCE_RANGES);
    // The capital letter is upstream's.
    let path = if ranges.is_empty() {
        Path::new("metadata").child("annotations").key(SOURCE_RANGES)
    } else {
        path.child("LoadBalancerSourceRanges")
    };
    if (!ranges.is_empty() || annotation.is_some()) && !is_load_balancer(spec) {
        errors.forbidden(&path, ONLY_LOAD_BALANCER);
    }
    for (index, range) in ranges.iter().enumerate() {
        net::validate_cidr(range.trim(), &path.index(index), errors);
    }
    let annotated = annotation.filter(|text| ranges.is_empty() && !text.trim().is_empty());
    for range in annotated.iter().flat_map(|text| text.split(',')) {
        net::validate_cidr(range.trim(), &path, errors);
    }
}

fn validate_load_balancer(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    match (is_load_balancer(spec), spec.allocate_load_balancer_node_ports) {
        (true, None) => errors.required(&Path::new("allocateLoadBalancerNodePorts"), ""),
        (false, Some(_)) => errors.forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY_LOAD_BALANCER),
        _ => {}
    }
    let path = path.child("loadBalancerClass");
    match (&spec.load_balancer_class, is_load_balancer(spec)) {
        (Some(class), true) => validate_qualified_name(class, &path, errors),
        (Some(_), false) => errors.forbidden(&path, ONLY_LOAD_BALANCER),
        (None, _) => {}
    }
}

fn validate_traffic(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let external = path.child("externalTrafficPolicy");
    if is_externally_accessible(spec) {
        validate_choice(spec.external_traffic_policy.as_deref(), TRAFFIC_POLICIES, &external, errors);
    } else if !text(&spec.external_traffic_policy).is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.invalid(&external, &spec.external_traffic_policy, why);
    }
    let health = path.child("healthCheckNodePort");
    match (needs_health_check_node_port(spec), spec.health_check_node_port.unwrap_or(0)) {
        (true, 0) => errors.required(&health, ""),
        (true, port) => net::validate_port(port, &health, errors),
        (false, 0) => {}
        (false, port) => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&health, port, why);
        }
    }
    let internal = path.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        None if needs_cluster_ip(spec) => errors.required(&internal, ""),
        Some(policy) if !TRAFFIC_POLICIES.contains(&policy) => {
            errors.not_supported(&internal, policy, TRAFFIC_POLICIES);
        }
        _ => {}
    }
    if let Some(distribution) = spec.traffic_distribution.as_deref().filter(|name| !DISTRIBUTIONS.contains(name)) {
        errors.not_supported(&path.child("trafficDistribution"), distribution, DISTRIBUTIONS);
    }
}

/// The status that a load balancer's controller writes.
pub fn validate_status(service: &Service, errors: &mut Errors) {
    let (Some(spec), Some(status)) = (&service.spec, &service.status) else { return };
    let ingress = status.load_balancer.as_ref().and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    if !is_load_balancer(spec) && !ingress.is_empty() {
        return errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for (index, ingress) in ingress.iter().enumerate() {
        validate_ingress(ingress, &path.index(index), errors);
    }
}

fn validate_ingress(ingress: &LoadBalancerIngress, path: &Path, errors: &mut Errors) {
    let ip = text(&ingress.ip);
    if !ip.is_empty() {
        net::validate_ip(ip, &path.child("ip"), errors);
    }
    let mode_path = path.child("ipMode");
    match (ip, ingress.ip_mode.as_deref()) {
        ("", None) => {}
        (_, None) => errors.required(&mode_path, "must be specified when `ip` is set"),
        ("", Some(_)) => errors.forbidden(&mode_path, "may not be specified when `ip` is not set"),
        (_, Some("VIP" | "Proxy")) => {}
        (_, Some(mode)) => errors.not_supported(&mode_path, mode, &["Proxy", "VIP"]),
    }
    let hostname = text(&ingress.hostname);
    if !hostname.is_empty() {
        validate_dns_subdomain(hostname, &path.child("hostname"), errors);
        if parse_ip_sloppy(hostname).is_some() {
            errors.invalid(&path.child("hostname"), hostname, "must be a DNS name, not an IP address");
        }
    }
}

/// What is accepted and does nothing, or is on its way out.
pub fn warnings(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut warnings = Vec::new();
    if service.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(TOPOLOGY_HINTS)) {
        let why = "is deprecated, please use";
        warnings.push(format!("annotation {TOPOLOGY_HINTS} {why} {TOPOLOGY_MODE} instead"));
    }
    let headless = type_of(spec) == "ClusterIP" && text(&spec.cluster_ip) == HEADLESS;
    let external_ips = spec.external_ips.as_deref().unwrap_or_default();
    let ignored_if_headless = [
        (!text(&spec.load_balancer_ip).is_empty(), "spec.loadBalancerIP"),
        (!external_ips.is_empty(), "spec.externalIPs"),
        (text(&spec.session_affinity) != "None", "spec.SessionAffinity"),
    ];
    let ignored = ignored_if_headless.iter().filter(|(present, _)| headless && *present);
    warnings.extend(ignored.map(|(_, field)| format!("{field} is ignored for headless services")));
    let address = |path: String, ip: &str| names::ip_warning(&path, ip);
    let cluster_ips = spec.cluster_ips.iter().flatten().filter(|ip| *ip != HEADLESS).enumerate();
    warnings.extend(cluster_ips.filter_map(|(index, ip)| address(format!("spec.clusterIPs[{index}]"), ip)));
    let external = external_ips.iter().enumerate();
    warnings.extend(external.filter_map(|(index, ip)| address(format!("spec.externalIPs[{index}]"), ip)));
    if !external_ips.is_empty() && !headless && needs_cluster_ip(spec) {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    warnings.extend(address("spec.loadBalancerIP".into(), text(&spec.load_balancer_ip)));
    if !needs_cluster_ip(spec) && !external_ips.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if needs_cluster_ip(spec) && !text(&spec.external_name).is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if text(&spec.traffic_distribution) == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    warnings.extend(not_honoured(spec));
    warnings
}

/// What upstream's proxy does and this cluster's does not.
fn not_honoured(spec: &ServiceSpec) -> Vec<String> {
    let sctp = spec.ports.iter().flatten().enumerate().filter(|(_, port)| text(&port.protocol) == "SCTP");
    let mut warnings: Vec<_> = sctp
        .map(|(index, _)| format!("spec.ports[{index}].protocol: SCTP is stored, but not carried by this cluster"))
        .collect();
    if spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) {
        warnings.push("spec.loadBalancerSourceRanges is stored, but not enforced by this cluster".into());
    }
    if spec.traffic_distribution.is_some() {
        warnings.push("spec.trafficDistribution is stored, but has no effect in this cluster".into());
    }
    warnings
}
