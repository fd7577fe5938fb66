//! What an update of a Service means: which values stay, which go with the type, which may not change.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{
    is_externally_accessible, is_headless, is_load_balancer, needs_cluster_ip, needs_health_check_node_port,
    needs_node_ports, text,
};
use crate::field::{Errors, Path};

const MAY_NOT_CHANGE: &str = "may not change once set";

fn list(field: &Option<Vec<String>>) -> &[String] {
    field.as_deref().unwrap_or_default()
}

fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    spec.ports.iter().flatten().filter_map(|port| port.node_port).filter(|port| *port != 0).collect()
}

/// Fills in what a client left out that was allocated before, so that sending the same object again is harmless.
pub fn keep_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(&new.cluster_ip).is_empty() {
            new.cluster_ip = old.cluster_ip.clone();
        }
        if list(&new.cluster_ips).is_empty() {
            new.cluster_ips = old.cluster_ips.clone();
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let taken: BTreeSet<_> = node_ports(old).intersection(&node_ports(new)).copied().collect();
        let by_name: BTreeMap<_, _> =
            old.ports.iter().flatten().map(|port| (text(&port.name), port.node_port)).collect();
        for port in new.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
            let known = by_name.get(text(&port.name)).copied().flatten();
            port.node_port = known.filter(|known| !taken.contains(known));
        }
    }
    if needs_health_check_node_port(old)
        && needs_health_check_node_port(new)
        && new.health_check_node_port.unwrap_or(0) == 0
    {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Old clients know only `clusterIP`: `clusterIPs` follows it, unless the client changed both.
pub fn pluralize_cluster_ip(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let singular = text(&new.cluster_ip).to_owned();
    let Some(old) = old else {
        if !singular.is_empty() && list(&new.cluster_ips).is_empty() {
            new.cluster_ips = Some(vec![singular]);
        }
        return;
    };
    if text(&old.cluster_ip) == singular {
        if list(&new.cluster_ips).is_empty() {
            new.cluster_ips = old.cluster_ips.clone();
        }
    } else if list(&new.cluster_ips) == list(&old.cluster_ips) {
        new.cluster_ips = (!singular.is_empty()).then(|| vec![singular]);
    }
}

/// Clears what the server once filled in and the new type has no use for. What the user changes in the
/// same request stays, and fails validation.
pub fn drop_what_the_type_lacks(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if text(&new.cluster_ip) == text(&old.cluster_ip) && list(&new.cluster_ips) == list(&old.cluster_ips) {
            (new.cluster_ip, new.cluster_ips) = (None, None);
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    if needs_node_ports(old) && !needs_node_ports(new) && node_ports(old).is_superset(&node_ports(new)) {
        new.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
    }
    if needs_health_check_node_port(old)
        && !needs_health_check_node_port(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    if is_load_balancer(old) && !is_load_balancer(new) {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    let same_policy = new.external_traffic_policy == old.external_traffic_policy;
    if is_externally_accessible(old) && !is_externally_accessible(new) && same_policy {
        new.external_traffic_policy = None;
    }
}

/// What may not change.
pub fn validate(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    let path = Path::new("spec");
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        let (new_headless, old_headless) = (is_headless(new), is_headless(old));
        if !(new_headless && old_headless) {
            let change = Change { new: list(&new.cluster_ips), old: list(&old.cluster_ips), field: "clusterIP" };
            change.validate(new, &path, errors);
        }
        if !new_headless && !old_headless {
            let change = Change { new: list(&new.ip_families), old: list(&old.ip_families), field: "ipFamily" };
            change.validate(new, &path, errors);
        }
    }
    if is_load_balancer(new) && is_load_balancer(old) && new.load_balancer_class != old.load_balancer_class {
        errors.invalid(&path.child("loadBalancerClass"), &new.load_balancer_class, MAY_NOT_CHANGE);
    }
    if needs_health_check_node_port(new)
        && needs_health_check_node_port(old)
        && new.health_check_node_port != old.health_check_node_port
    {
        errors.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
}

/// A list with a primary and perhaps a secondary entry: only the secondary may come and go.
struct Change<'a> {
    new: &'a [String],
    old: &'a [String],
    /// Singular.
    field: &'static str,
}

impl Change<'_> {
    fn validate(&self, spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
        let Self { new, old, field } = self;
        let plural = if *field == "clusterIP" { "clusterIPs" } else { "ipFamilies" };
        let path_of = |index: usize| path.child(plural).index(index);
        if new.len() == old.len() {
            let changed = new.iter().zip(*old).enumerate().filter(|(_, (new, old))| new != old);
            for (index, _) in changed {
                errors.invalid(&path_of(index), new, MAY_NOT_CHANGE);
            }
            return;
        }
        if new.is_empty() {
            return errors.invalid(&path_of(0), new, format!("primary {field} can not be unset"));
        }
        if old.first().is_some_and(|old| *old != new[0]) {
            errors.invalid(&path_of(0), new, MAY_NOT_CHANGE);
        }
        let released = new.len() == 1 && old.len() > 1;
        if released && text(&spec.ip_family_policy) != "SingleStack" {
            let why = format!("must be set to 'SingleStack' when releasing the secondary {field}");
            errors.invalid(&path.child("ipFamilyPolicy"), &spec.ip_family_policy, why);
        }
    }
}
