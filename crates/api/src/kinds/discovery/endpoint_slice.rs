//! EndpointSlice: some of the addresses behind a Service.

use std::{collections::HashSet, net::IpAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};
use serde_json::Value;

use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, column},
    names,
    validation::{check, net, validate_choice, validate_dns_label, validate_qualified_name},
};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
const SHOWN_MAX: usize = 3;

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Their addresses come from objects that were warned about already.
const CONTROLLERS: &[&str] = &["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

impl Kind for EndpointSlice {
    const HAS_GENERATION: bool = true;

    fn set_defaults(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn prepare_for_create(&mut self) {
        drop_topology(self);
    }

    fn prepare_for_update(&mut self, _old: &Self) {
        drop_topology(self);
    }

    fn validate(&self, errors: &mut Errors) {
        validate_choice(Some(&self.address_type), ADDRESS_TYPES, &Path::new("addressType"), errors);
        validate_ports(self.ports.as_deref().unwrap_or_default(), errors);
        let (endpoints, path) = (self.endpoints.as_deref().unwrap_or_default(), Path::new("endpoints"));
        if endpoints.len() > ENDPOINTS_MAX {
            return errors.too_many(&path, endpoints.len(), ENDPOINTS_MAX);
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(endpoint, &self.address_type, &path.index(index), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable(&Path::new("addressType"), &self.address_type, &old.address_type);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.address_type == "FQDN" && old.is_none() {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        let manager = self.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        if manager.is_some_and(|manager| CONTROLLERS.contains(&manager.as_str())) {
            return warnings;
        }
        for (index, endpoint) in self.endpoints.iter().flatten().enumerate() {
            let path = |at: usize| format!("endpoints[{index}].addresses[{at}]");
            let all = endpoint.addresses.iter().enumerate();
            warnings.extend(all.filter_map(|(at, address)| names::ip_warning(&path(at), address)));
        }
        warnings
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            column("AddressType", "The type of address carried by this EndpointSlice."),
            column("Ports", "The ports exposed by each endpoint in this slice."),
            column("Endpoints", "Addresses of the endpoints in this slice."),
            AGE_COLUMN,
        ]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let port = |port: &EndpointPort| match (port.port, &port.name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "*".into(),
        };
        let ports: Vec<_> = self.ports.iter().flatten().map(port).collect();
        let addresses: Vec<_> =
            self.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect();
        vec![
            self.metadata.name.clone().into(),
            self.address_type.clone().into(),
            kind::some_cell(&ports, SHOWN_MAX, "<unset>").into(),
            kind::some_cell(&addresses, SHOWN_MAX, "<unset>").into(),
            kind::age(&self.metadata, now).into(),
        ]
    }
}

/// The field is of the beta API; v1 does not take it.
fn drop_topology(slice: &mut EndpointSlice) {
    slice.endpoints.iter_mut().flatten().for_each(|endpoint| endpoint.deprecated_topology = None);
}

fn validate_ports(ports: &[EndpointPort], errors: &mut Errors) {
    let path = Path::new("ports");
    if ports.len() > PORTS_MAX {
        return errors.too_many(&path, ports.len(), PORTS_MAX);
    }
    let mut seen = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            validate_dns_label(name, &path.child("name"), errors);
        }
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        net::validate_protocol(port.protocol.as_deref(), &path.child("protocol"), errors);
        if let Some(protocol) = &port.app_protocol {
            validate_qualified_name(protocol, &path.child("appProtocol"), errors);
        }
    }
}

fn validate_endpoint(endpoint: &Endpoint, address_type: &str, path: &Path, errors: &mut Errors) {
    let addresses = path.child("addresses");
    match endpoint.addresses.len() {
        0 => errors.required(&addresses, "must contain at least 1 address"),
        count if count > ADDRESSES_MAX => errors.too_many(&addresses, count, ADDRESSES_MAX),
        _ => {}
    }
    for (index, address) in endpoint.addresses.iter().enumerate() {
        validate_address(address, address_type, &addresses, index, errors);
    }
    if let Some(node) = &endpoint.node_name {
        check(names::is_dns1123_subdomain(node), node, &path.child("nodeName"), errors);
    }
    if let Some(hostname) = &endpoint.hostname {
        validate_dns_label(hostname, &path.child("hostname"), errors);
    }
    if let Some(hints) = &endpoint.hints {
        validate_hints(hints, &path.child("hints"), errors);
    }
}

fn validate_address(address: &str, address_type: &str, path: &Path, index: usize, errors: &mut Errors) {
    let at = path.index(index);
    let messages = match address_type {
        "IPv4" => names::is_ip_for_legacy_field(address),
        "IPv6" => names::is_ip(address),
        "FQDN" => return validate_domain_name(address, &at, errors),
        _ => return,
    };
    if !messages.is_empty() {
        return check(messages, address, &at, errors);
    }
    let is_v4 = matches!(names::parse_ip_sloppy(address), Some(IpAddr::V4(_)));
    if is_v4 != (address_type == "IPv4") {
        errors.invalid(path, address, format!("must be an {address_type} address"));
    }
    net::validate_endpoint_ip(address, &at, errors);
}

fn validate_domain_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let messages = names::is_dns1123_subdomain(name);
    if !messages.is_empty() {
        return errors.invalid(path, name, messages.join(","));
    }
    if !name.contains('.') {
        errors.invalid(path, name, "should be a domain with at least two segments separated by dots");
    }
}

fn validate_hints(hints: &EndpointHints, path: &Path, errors: &mut Errors) {
    let zones: Vec<_> = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str()).collect();
    validate_hint_names(&zones, names::is_valid_label_value, &path.child("forZones"), errors);
    let nodes: Vec<_> = hints.for_nodes.iter().flatten().map(|node| node.name.as_str()).collect();
    validate_hint_names(&nodes, names::is_dns1123_subdomain, &path.child("forNodes"), errors);
}

fn validate_hint_names(hints: &[&str], rule: fn(&str) -> Vec<String>, path: &Path, errors: &mut Errors) {
    if hints.len() > HINTS_MAX {
        return errors.too_many(path, hints.len(), HINTS_MAX);
    }
    let mut seen = HashSet::new();
    for (index, name) in hints.iter().enumerate() {
        let path = path.index(index).child("name");
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        check(rule(name), name, &path, errors);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_change, check_new, check_row};

    #[test]
    fn endpoints() {
        check_new::<EndpointSlice>(
            json!({"addressType": "IPv4", "endpoints": [{"addresses": []}, {"addresses": ["fd00::1", "127.0.0.1"]}],
                "ports": [{"port": 80}, {"port": 81, "protocol": "X"}]}),
            expect![[r#"
                ports[1].name: Duplicate value: ""
                ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"
                endpoints[0].addresses: Required value: must contain at least 1 address
                endpoints[1].addresses: Invalid value: "fd00::1": must be an IPv4 address
                endpoints[1].addresses[1]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#]],
        );
        check_change::<EndpointSlice>(
            json!({"addressType": "IPv4"}),
            json!({"addressType": "IPv6"}),
            expect![[r#"addressType: Invalid value: "IPv6": field is immutable"#]],
        );
    }

    #[test]
    fn rows() {
        check_row::<EndpointSlice>(
            json!({"metadata": {"name": "a"}, "addressType": "IPv4", "ports": [{"port": 80}],
                "endpoints": [{"addresses": ["10.0.0.1", "10.0.0.2"]}, {"addresses": ["10.0.0.3", "10.0.0.4"]}]}),
            expect!["a | IPv4 | 80 | 10.0.0.1,10.0.0.2,10.0.0.3 + 1 more... | <unknown>"],
        );
        check_row::<EndpointSlice>(
            json!({"metadata": {"name": "a"}, "addressType": "IPv4"}),
            expect!["a | IPv4 | <unset> | <unset> | <unknown>"],
        );
    }
}
