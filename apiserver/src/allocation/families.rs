//! `ipFamilies` and `ipFamilyPolicy`, completed from what the cluster has.

use std::net::IpAddr;

use api::{
    Errors, Path, Status,
    kinds::core::service::{HEADLESS, needs_cluster_ip},
};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::Request;

pub(super) const SINGLE_STACK: &str = "SingleStack";
const REQUIRE_DUAL_STACK: &str = "RequireDualStack";

pub(super) fn family_of(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn other(family: &str) -> String {
    if family == "IPv4" { "IPv6".into() } else { "IPv4".into() }
}

/// The families that the cluster has ranges for, the default first.
fn configured(request: &Request<'_>) -> Vec<&'static str> {
    let ranges = &request.attributes.config.service_cluster_ip_ranges;
    ranges.iter().map(|range| family_of(&range.network())).collect()
}

/// Sets the policy and the families that a Service leaves open; refuses what the cluster does not have.
pub(super) fn complete(request: &Request<'_>, service: &mut Service) -> Result<(), Status> {
    let Some(spec) = service.spec.as_mut().filter(|spec| needs_cluster_ip(spec)) else { return Ok(()) };
    let is_headless = spec.cluster_ip.as_deref() == Some(HEADLESS);
    let is_selectorless = spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty);
    let old_policy = request.old.and_then(|old| old.spec.as_ref()?.ip_family_policy.clone());
    let policy = spec.ip_family_policy.get_or_insert_with(|| match old_policy {
        Some(policy) => policy,
        None if is_headless && is_selectorless => REQUIRE_DUAL_STACK.into(),
        None => SINGLE_STACK.into(),
    });
    let policy = policy.clone();
    let configured = configured(request);
    let mut errors = Errors::default();
    if policy == SINGLE_STACK {
        release_secondary(request, spec);
        check_single(spec, &mut errors);
    }
    infer(spec, &configured, &mut errors);
    request.invalid(errors)?;
    let families = spec.ip_families.get_or_insert_default();
    if is_headless && is_selectorless {
        if families.is_empty() {
            families.extend(configured.first().map(|family| (*family).to_owned()));
        }
        if policy != SINGLE_STACK && families.len() == 1 {
            families.push(other(&families[0]));
        }
        return Ok(());
    }
    let mut errors = Errors::default();
    let path = Path::new("spec");
    if policy == REQUIRE_DUAL_STACK && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.invalid(&path.child("ipFamilyPolicy"), &policy, why);
    }
    for (index, family) in families.iter().enumerate() {
        if !configured.contains(&family.as_str()) {
            errors.invalid(&path.child("ipFamilies").index(index), family, "not configured on this cluster");
        }
    }
    request.invalid(errors)?;
    if families.is_empty() {
        families.extend(configured.first().map(|family| (*family).to_owned()));
    }
    if policy != SINGLE_STACK && families.len() == 1 && configured.len() == 2 {
        families.push(other(&families[0]));
    }
    Ok(())
}

/// Going to a single family is clear enough: what the client left as it was is cut.
fn release_secondary(request: &Request<'_>, spec: &mut ServiceSpec) {
    let Some(old) = request.old.and_then(|old| old.spec.as_ref()) else { return };
    if spec.cluster_ips == old.cluster_ips {
        spec.cluster_ips.iter_mut().for_each(|ips| ips.truncate(1));
    }
    if spec.ip_families == old.ip_families {
        spec.ip_families.iter_mut().for_each(|families| families.truncate(1));
    }
}

fn check_single(spec: &ServiceSpec, errors: &mut Errors) {
    let path = Path::new("spec").child("ipFamilyPolicy");
    if spec.cluster_ips.as_ref().is_some_and(|ips| ips.len() == 2) {
        let why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified";
        errors.invalid(&path, SINGLE_STACK, why);
    }
    if spec.ip_families.as_ref().is_some_and(|families| families.len() == 2) {
        let why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        errors.invalid(&path, SINGLE_STACK, why);
    }
}

/// An address that is asked for says its family.
fn infer(spec: &mut ServiceSpec, configured: &[&str], errors: &mut Errors) {
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    let families = spec.ip_families.get_or_insert_default();
    for (index, ip) in ips.iter().enumerate().skip(families.len()) {
        let Ok(address) = ip.parse::<IpAddr>() else { return };
        let family = family_of(&address);
        match configured.contains(&family) {
            true => families.push(family.into()),
            false => {
                let path = Path::new("spec").child("clusterIPs").index(index);
                errors.invalid(&path, &ips, format!("{family} is not configured on this cluster"));
            }
        }
    }
}
