//! Names, addresses and ports of the Pod as a whole.

use k8s_openapi::api::core::v1::PodSpec;

use super::Surroundings;
use crate::{
    field::{Errors, Path},
    names,
    validation::check,
};

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LIST_BYTES_MAX: usize = 2048;
const HOSTNAME_BYTES_MAX: usize = 64;

/// On the host's network a container's port is the host's.
pub fn validate_host_ports(around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    if around.spec.host_network != Some(true) {
        return;
    }
    for (index, container) in around.spec.containers.iter().enumerate() {
        let path = path.child("containers").index(index).child("ports");
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or_default();
            // A template may leave it out: the Pod will get it.
            if (around.is_pod() || host_port != 0) && host_port != port.container_port {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.index(index).child("hostPort"), host_port, why);
            }
        }
    }
}

pub fn validate_dns_config(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let servers = spec.dns_config.as_ref().and_then(|config| config.nameservers.as_deref()).unwrap_or_default();
    if spec.dns_policy.as_deref() == Some("None") {
        if spec.dns_config.is_none() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&path.child("nameservers"), why);
        }
    }
    let Some(config) = &spec.dns_config else { return };
    let at = path.child("nameservers");
    if servers.len() > NAMESERVERS_MAX {
        errors.invalid(&at, servers, format!("must not have more than {NAMESERVERS_MAX} nameservers"));
    }
    for (index, server) in servers.iter().enumerate() {
        check(names::is_ip_for_legacy_field(server), server, &at.index(index), errors);
    }
    let at = path.child("searches");
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > SEARCHES_MAX {
        errors.invalid(&at, searches, format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    if searches.join(" ").len() > SEARCH_LIST_BYTES_MAX {
        let why =
            format!("must not have more than {SEARCH_LIST_BYTES_MAX} characters (including spaces) in the search list");
        errors.invalid(&at, searches, why);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        check(names::is_dns1123_subdomain_with_underscore(search), search, &at.index(index), errors);
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

pub fn validate_host_aliases(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.index(index);
        check(names::is_ip_for_legacy_field(&alias.ip), &alias.ip, &path.child("ip"), errors);
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            check(names::is_dns1123_subdomain(name), name, &path.child("hostnames").index(index), errors);
        }
    }
}

/// `path` leads to the spec.
pub fn validate_hostname_override(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(name) = &spec.hostname_override else { return };
    let path = path.child("hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > HOSTNAME_BYTES_MAX {
        errors.too_long(&path, HOSTNAME_BYTES_MAX);
    }
    check(names::is_dns1123_subdomain(name), name, &path, errors);
}
