//! Services and EndpointSlices in, what to do with packets out. Pure.
//!
//! One [`ServicePort`] is one port of one Service with everything decided: where it listens and which
//! backends answer, separately for traffic from inside and from outside the cluster.

use std::{collections::BTreeSet, net::Ipv4Addr};

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};

/// The protocols that Services carry here. SCTP is left to the kernel's own modules, and refused.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }

    /// As nftables and conntrack spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One address that answers.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Backend {
    pub ip: Ipv4Addr,
    pub port: u16,
    /// Whether it runs on this node.
    pub is_local: bool,
}

/// One port of a Service, compiled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServicePort {
    /// `namespace/name/protocol/port`: also the name of its chain.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub cluster_ip: Option<Ipv4Addr>,
    /// External IPs and load balancer addresses: traffic to these is traffic from outside.
    pub external_ips: BTreeSet<Ipv4Addr>,
    pub node_port: Option<u16>,
    /// Session affinity by client address lasts this long, in seconds.
    pub affinity_seconds: Option<u32>,
    pub internal_backends: Vec<Backend>,
    pub external_backends: Vec<Backend>,
    /// Outside traffic keeps its source address and stays on this node.
    pub is_external_local: bool,
    /// Whether any backend answers anywhere. None at all is refused; none here (traffic policy Local)
    /// is dropped, so that a load balancer looks elsewhere.
    pub has_backends_anywhere: bool,
}

/// What the compiler must know of the node it compiles for.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub name: String,
}

/// The compiled ports of one Service; empty for headless and ExternalName Services.
pub fn compile<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    node: &NodeView,
) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let cluster_ip = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return Vec::new(),
        Some(ip) => ip.parse().ok(),
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let is_external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let is_internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_ips = external_ips(service);
    let mut ports = Vec::new();
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) = (Protocol::parse(port.protocol.as_deref()), u16::try_from(port.port)) else {
            continue;
        };
        let label = port.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| number.to_string());
        let meta = &service.metadata;
        let name = format!(
            "{}/{}/{}/{label}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            protocol.name()
        );
        let all = backends(slices.clone(), port.name.as_deref().unwrap_or_default(), protocol, node);
        let local = pick(&all, true);
        let anywhere = pick(&all, false);
        ports.push(ServicePort {
            name,
            protocol,
            port: number,
            cluster_ip,
            external_ips: external_ips.clone(),
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
            affinity_seconds: affinity_seconds(spec),
            internal_backends: if is_internal_local { local.clone() } else { anywhere.clone() },
            has_backends_anywhere: !anywhere.is_empty(),
            external_backends: if is_external_local { local } else { anywhere },
            is_external_local,
        });
    }
    ports
}

fn external_ips(service: &Service) -> BTreeSet<Ipv4Addr> {
    let declared = service.spec.iter().filter_map(|spec| spec.external_ips.as_ref()).flatten().map(String::as_str);
    let ingress = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref())
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_deref());
    declared.chain(ingress).filter_map(|ip| ip.parse().ok()).collect()
}

fn affinity_seconds(spec: &k8s_openapi::api::core::v1::ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured =
        spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    Some(configured.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(10_800))
}

/// An endpoint with what traffic selection needs to know of it.
struct Candidate {
    backend: Backend,
    is_ready: bool,
    is_serving_and_terminating: bool,
}

fn backends<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port_name: &str,
    protocol: Protocol,
    node: &NodeView,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let port = slice.ports.iter().flatten().find(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
        });
        let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        found.extend(slice.endpoints.iter().flatten().filter_map(|endpoint| candidate(endpoint, port, node)));
    }
    found
}

fn candidate(endpoint: &Endpoint, port: u16, node: &NodeView) -> Option<Candidate> {
    let ip = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let is_ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let is_serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(is_ready);
    let is_terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    let is_local = endpoint.node_name.as_deref() == Some(node.name.as_str());
    Some(Candidate {
        backend: Backend { ip, port, is_local },
        is_ready,
        is_serving_and_terminating: is_serving && is_terminating,
    })
}

/// The ready ones; where there is none, those that still serve while they terminate.
fn pick(all: &[Candidate], local_only: bool) -> Vec<Backend> {
    let choose = |wanted: fn(&Candidate) -> bool| -> BTreeSet<Backend> {
        all.iter()
            .filter(|candidate| wanted(candidate) && (candidate.backend.is_local || !local_only))
            .map(|candidate| candidate.backend.clone())
            .collect()
    };
    let ready = choose(|candidate| candidate.is_ready);
    let chosen = if ready.is_empty() { choose(|candidate| candidate.is_serving_and_terminating) } else { ready };
    chosen.into_iter().collect()
}

/// A packet as it arrives at the node, before any translation.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub protocol: Protocol,
    pub to: Ipv4Addr,
    pub to_port: u16,
    /// Whether `to` is one of the node's own addresses, loopback included.
    pub to_node: bool,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fate<'a> {
    /// No Service's business.
    Untouched,
    /// Refused at once, since nobody answers.
    Rejected,
    /// Dropped, since nobody answers here.
    Dropped,
    /// Sent to one of these; with another source address where `masquerade`.
    Sent { backends: &'a [Backend], masquerade: bool },
}

/// Where would this packet go? The interpreter of compiled ports, for tests and for `skiff` to explain.
pub fn trace<'a>(ports: impl IntoIterator<Item = &'a ServicePort>, packet: Packet) -> Fate<'a> {
    for port in ports.into_iter().filter(|port| port.protocol == packet.protocol) {
        if port.cluster_ip == Some(packet.to) && port.port == packet.to_port {
            return fate(port, &port.internal_backends, false);
        }
        let external = port.external_ips.contains(&packet.to) && port.port == packet.to_port;
        if external || (packet.to_node && port.node_port == Some(packet.to_port)) {
            return fate(port, &port.external_backends, !port.is_external_local);
        }
    }
    Fate::Untouched
}

fn fate<'a>(port: &ServicePort, backends: &'a [Backend], masquerade: bool) -> Fate<'a> {
    match backends {
        [] if port.has_backends_anywhere => Fate::Dropped,
        [] => Fate::Rejected,
        backends => Fate::Sent { backends, masquerade },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn service(yaml: &str) -> Service {
        serde_saphyr::from_str(yaml).expect("a Service")
    }

    pub(crate) fn slice(yaml: &str) -> EndpointSlice {
        serde_saphyr::from_str(yaml).expect("an EndpointSlice")
    }

    pub(crate) const WEB: &str = "
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 32600, protocol: TCP}]
";
    pub(crate) const SLICE: &str = "
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.244.1.2], nodeName: a, conditions: {ready: true}}
- {addresses: [10.244.2.3], nodeName: b, conditions: {ready: true}}
- {addresses: [10.244.2.4], nodeName: b, conditions: {ready: false, serving: true, terminating: true}}
";

    pub(crate) fn compiled(service_yaml: &str, slice_yaml: &str) -> Vec<ServicePort> {
        let node = NodeView { name: "a".into() };
        let slices = [slice(slice_yaml)];
        compile(&service(service_yaml), slices.iter(), &node)
    }

    fn ask(ports: &[ServicePort], to: &str, to_port: u16, to_node: bool) -> String {
        let packet = Packet { protocol: Protocol::Tcp, to: to.parse().unwrap(), to_port, to_node };
        match trace(ports, packet) {
            Fate::Sent { backends, masquerade } => {
                let ips: Vec<_> = backends.iter().map(|backend| format!("{}:{}", backend.ip, backend.port)).collect();
                format!("{} masquerade={masquerade}", ips.join(" "))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn cluster_ip_and_node_port_reach_the_ready_endpoints() {
        let ports = compiled(WEB, SLICE);
        assert_eq!(ask(&ports, "10.96.0.10", 80, false), "10.244.1.2:8080 10.244.2.3:8080 masquerade=false");
        assert_eq!(ask(&ports, "192.0.2.1", 32600, true), "10.244.1.2:8080 10.244.2.3:8080 masquerade=true");
        assert_eq!(ask(&ports, "192.0.2.9", 32600, false), "Untouched");
        assert_eq!(ask(&ports, "10.96.0.10", 81, false), "Untouched");
    }

    #[test]
    fn terminating_endpoints_serve_when_nothing_else_does() {
        let only_terminating = SLICE.replace("ready: true", "ready: false, serving: false");
        assert_eq!(ask(&compiled(WEB, &only_terminating), "10.96.0.10", 80, false), "10.244.2.4:8080 masquerade=false");
    }

    #[test]
    fn no_endpoint_anywhere_is_refused_and_none_here_is_dropped() {
        let empty = SLICE.split("endpoints:").next().unwrap();
        assert_eq!(ask(&compiled(WEB, empty), "10.96.0.10", 80, false), "Rejected");
        let local = WEB.replace("type: NodePort", "type: NodePort\n  externalTrafficPolicy: Local");
        let elsewhere = SLICE.replace("nodeName: a", "nodeName: c");
        assert_eq!(ask(&compiled(&local, &elsewhere), "192.0.2.1", 32600, true), "Dropped");
        assert_eq!(ask(&compiled(&local, SLICE), "192.0.2.1", 32600, true), "10.244.1.2:8080 masquerade=false");
    }

    #[test]
    fn headless_and_external_name_services_are_not_proxied() {
        assert!(compiled(&WEB.replace("10.96.0.10", "None"), SLICE).is_empty());
        assert!(compiled(&WEB.replace("type: NodePort", "type: ExternalName"), SLICE).is_empty());
    }
}
