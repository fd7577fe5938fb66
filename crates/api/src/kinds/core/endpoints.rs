//! Endpoints: the addresses behind a Service, in the older form. EndpointSlice is the newer.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use serde_json::Value;

use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, column},
    names::{self, ip_warning},
    validation::{net, validate_dns_label, validate_qualified_name},
};

const SHOWN_MAX: usize = 3;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

impl Kind for Endpoints {
    const SHORT_NAMES: &'static [&'static str] = &["ep"];
    const CREATE_ON_UPDATE: bool = true;
    const SINGULAR: Option<&'static str> = Some("endpoints");

    fn set_defaults(&mut self) {
        for port in self.subsets.iter_mut().flatten().flat_map(|subset| subset.ports.iter_mut().flatten()) {
            if port.protocol.as_deref().unwrap_or_default().is_empty() {
                port.protocol = Some("TCP".into());
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        for (index, subset) in self.subsets.iter().flatten().enumerate() {
            validate_subset(subset, &Path::new("subsets").index(index), errors);
        }
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        if self.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(MANAGED_BY)) {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        for (index, subset) in self.subsets.iter().flatten().enumerate() {
            for (field, addresses) in
                [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
            {
                let all = addresses.iter().flatten().enumerate();
                let path = |at: usize| format!("subsets[{index}].{field}[{at}].ip");
                warnings.extend(all.filter_map(|(at, address)| ip_warning(&path(at), &address.ip)));
            }
        }
        warnings
    }

    fn columns() -> Vec<Column> {
        vec![NAME_COLUMN, column("Endpoints", "Addresses and ports that the Service leads to."), AGE_COLUMN]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let all: Vec<_> = self.subsets.iter().flatten().flat_map(pairs).collect();
        let (name, age) = (self.metadata.name.clone(), kind::age(&self.metadata, now));
        vec![name.into(), kind::some_cell(&all, SHOWN_MAX, "<none>").into(), age.into()]
    }
}

/// Each address with each port; a headless Service may have no ports.
fn pairs(subset: &EndpointSubset) -> Vec<String> {
    let addresses: Vec<_> = subset.addresses.iter().flatten().map(|address| address.ip.clone()).collect();
    let pair = |ip: &String, port: i32| match ip.parse() {
        Ok(IpAddr::V6(_)) => format!("[{ip}]:{port}"),
        _ => format!("{ip}:{port}"),
    };
    match subset.ports.as_deref().unwrap_or_default() {
        [] => addresses,
        ports => ports.iter().flat_map(|port| addresses.iter().map(|ip| pair(ip, port.port))).collect(),
    }
}

fn validate_subset(subset: &EndpointSubset, path: &Path, errors: &mut Errors) {
    let (ready, not_ready) = (subset.addresses.as_deref(), subset.not_ready_addresses.as_deref());
    let (ready, not_ready) = (ready.unwrap_or_default(), not_ready.unwrap_or_default());
    if ready.is_empty() && not_ready.is_empty() {
        errors.required(path, "must specify `addresses` or `notReadyAddresses`");
    }
    for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        for (index, address) in addresses.iter().enumerate() {
            validate_address(address, &path.child(field).index(index), errors);
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        validate_port(port, ports.len() > 1, &path.child("ports").index(index), errors);
    }
}

fn validate_address(address: &EndpointAddress, path: &Path, errors: &mut Errors) {
    net::validate_ip(&address.ip, &path.child("ip"), errors);
    if let Some(hostname) = address.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        validate_dns_label(hostname, &path.child("hostname"), errors);
    }
    if let Some(node) = &address.node_name {
        for message in names::is_dns1123_subdomain(node) {
            errors.invalid(&path.child("nodeName"), node, message);
        }
    }
    net::validate_endpoint_ip(&address.ip, &path.child("ip"), errors);
}

fn validate_port(port: &EndpointPort, name_required: bool, path: &Path, errors: &mut Errors) {
    match port.name.as_deref().unwrap_or_default() {
        "" if name_required => errors.required(&path.child("name"), ""),
        "" => {}
        name => validate_dns_label(name, &path.child("name"), errors),
    }
    net::validate_port(port.port, &path.child("port"), errors);
    net::validate_protocol(port.protocol.as_deref(), &path.child("protocol"), errors);
    if let Some(protocol) = &port.app_protocol {
        validate_qualified_name(protocol, &path.child("appProtocol"), errors);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_new, check_row};

    #[test]
    fn subsets() {
        check_new::<Endpoints>(
            json!({"subsets": [{}, {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 0}, {"port": 1, "name": "a"}]}]}),
            expect![[r#"
                subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`
                subsets[1].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
                subsets[1].ports[0].name: Required value
                subsets[1].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"#]],
        );
    }

    #[test]
    fn rows() {
        let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "fd00::1"}, {"ip": "10.0.0.4"}]);
        check_row::<Endpoints>(
            json!({"metadata": {"name": "a"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}),
            expect!["a | 10.0.0.1:80,10.0.0.2:80,[fd00::1]:80 + 1 more... | <unknown>"],
        );
        check_row::<Endpoints>(json!({"metadata": {"name": "a"}}), expect!["a | <none> | <unknown>"]);
    }
}
