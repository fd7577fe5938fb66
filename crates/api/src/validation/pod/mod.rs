//! What makes a Pod, or a template of Pods, valid. One idea a file; the order of the errors is upstream's.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{check, meta, validate_choice};
use crate::{
    field::{Errors, Path},
    kinds::core::pod::{unsupported, warnings::containers},
    names,
};

mod affinity;
mod annotations;
mod claim;
mod containers;
mod env;
mod handlers;
mod mounts;
mod network;
mod os;
mod projected;
mod resources;
mod security;
mod spread;
pub mod status;
mod storage;
pub mod subresources;
mod tolerations;
pub mod update;
mod volumes;
mod windows;

pub use affinity::{validate_node_selector, validate_node_selector_term};
pub use claim::{validate_claim_spec, validate_template_meta};
pub use resources::validate_resource_name;
pub use tolerations::{validate_taint_effect, validate_tolerations};

/// The annotation on Pods that a kubelet runs from files of its own.
pub const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// What the rules for one part need to know of the rest.
struct Surroundings<'a> {
    spec: &'a PodSpec,
    /// Of a real Pod; templates have none.
    meta: Option<&'a ObjectMeta>,
    /// The valid volumes by name.
    volumes: BTreeMap<&'a str, &'a Volume>,
    claim_names: BTreeSet<&'a str>,
}

impl Surroundings<'_> {
    fn is_pod(&self) -> bool {
        self.meta.is_some()
    }

    fn grace_period(&self) -> Option<i64> {
        self.spec.termination_grace_period_seconds
    }

    fn host_users(&self) -> bool {
        self.spec.host_users.unwrap_or(true)
    }
}

/// A Pod, new or changed.
pub fn validate_pod(pod: &Pod, errors: &mut Errors) {
    let spec = pod.spec.clone().unwrap_or_default();
    let path = Path::new("spec");
    annotations::validate(&pod.metadata, &spec, &Path::new("metadata").child("annotations"), errors);
    validate_pod_spec(&spec, Some(&pod.metadata), &path, errors);
    let needs_account = spec.service_account_name.as_deref().unwrap_or_default().is_empty();
    for (index, volume) in spec.volumes.iter().flatten().enumerate().filter(|_| needs_account) {
        let sources = path.child("volumes").index(index).child("projected").child("sources");
        for (index, source) in volume.projected.iter().flat_map(|all| all.sources.iter().flatten()).enumerate() {
            if source.service_account_token.is_some() {
                let path = sources.index(index).child("serviceAccountToken");
                errors.forbidden(&path, "must not be specified when serviceAccountName is not set");
            }
        }
    }
    for (container, path) in containers(&spec, &path) {
        validate_image_is_trimmed(&container, &path, errors);
    }
}

/// What holds only for a Pod that is being created.
pub fn validate_pod_create(pod: &Pod, errors: &mut Errors) {
    let spec = pod.spec.clone().unwrap_or_default();
    let path = Path::new("spec");
    if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    let is_gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    if is_gated && spec.node_name.as_ref().is_some_and(|name| !name.is_empty()) {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    annotations::validate_against_fields(&pod.metadata, &spec, &path, errors);
}

/// The template of a workload; `path` leads to it.
pub fn validate_pod_template(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let metadata = template.metadata.clone().unwrap_or_default();
    let spec = template.spec.clone().unwrap_or_default();
    meta::validate_labels(metadata.labels.as_ref(), &path.child("labels"), errors);
    meta::validate_annotations(metadata.annotations.as_ref(), &path.child("annotations"), errors);
    annotations::validate(&metadata, &spec, &path.child("annotations"), errors);
    let at = path.child("spec");
    validate_pod_spec(&spec, None, &at, errors);
    annotations::validate_against_fields(&metadata, &spec, &at, errors);
    if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        errors.forbidden(&at.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// The spec of a Pod (`meta` is the Pod's) or of a template.
pub fn validate_pod_spec(spec: &PodSpec, meta: Option<&ObjectMeta>, path: &Path, errors: &mut Errors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let claims = spec.resource_claims.iter().flatten().map(|claim| claim.name.as_str());
    let mut around = Surroundings {
        spec,
        meta,
        volumes: BTreeMap::new(),
        claim_names: claims.filter(|name| !name.is_empty()).collect(),
    };
    around.volumes = volumes::validate(&around, &path.child("volumes"), errors);
    resources::validate_pod_claims(&around, &path.child("resourceClaims"), errors);
    unsupported::refuse(spec, path, errors);
    containers::validate_containers(&around, &path.child("containers"), errors);
    containers::validate_init_containers(&around, &path.child("initContainers"), errors);
    containers::validate_ephemeral_containers(&around, &path.child("ephemeralContainers"), errors);
    resources::validate_pod_level(&around, path, errors);
    network::validate_host_ports(&around, path, errors);
    let restart_policies = ["Always", "OnFailure", "Never"];
    validate_choice(spec.restart_policy.as_deref(), &restart_policies, &path.child("restartPolicy"), errors);
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    validate_choice(spec.dns_policy.as_deref(), &dns_policies, &path.child("dnsPolicy"), errors);
    meta::validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errors);
    security::validate_pod(spec, &path.child("securityContext"), errors);
    affinity::validate(spec.affinity.as_ref(), &path.child("affinity"), errors);
    network::validate_dns_config(spec, &path.child("dnsConfig"), errors);
    validate_gates(spec, path, errors);
    spread::validate(spec, &path.child("topologySpreadConstraints"), errors);
    windows::validate_host_process(spec, path, errors);
    security::validate_host_users(spec, path, errors);
    network::validate_hostname_override(spec, path, errors);
    validate_names(spec, path, errors);
    validate_rest(spec, path, errors);
    env::validate_file_keys(spec, path, errors);
}

fn validate_gates(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let at = path.child("readinessGates");
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = at.index(index).child("conditionType");
        check(names::is_qualified_name(&gate.condition_type), &gate.condition_type, &path, errors);
    }
    let at = path.child("schedulingGates");
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    for (index, gate) in gates.iter().enumerate() {
        check(names::is_qualified_name(&gate.name), &gate.name, &at.index(index), errors);
        if gates[..index].contains(gate) {
            errors.duplicate(&at.index(index), &gate.name);
        }
    }
}

fn validate_names(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut look = |value: &Option<String>, rule: fn(&str) -> Vec<String>, field: &str| {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            check(rule(value), value, &path.child(field), errors);
        }
    };
    look(&spec.service_account_name, names::is_dns1123_subdomain, "serviceAccountName");
    look(&spec.node_name, names::is_dns1123_subdomain, "nodeName");
    if let Some(seconds) = spec.active_deadline_seconds.filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds)) {
        let range = names::inclusive_range(1, i64::from(i32::MAX));
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, range);
    }
    let mut look = |value: &Option<String>, field: &str| {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            check(names::is_dns1123_label(value), value, &path.child(field), errors);
        }
    };
    look(&spec.hostname, "hostname");
    look(&spec.subdomain, "subdomain");
}

fn validate_rest(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    tolerations::validate_tolerations(spec.tolerations.as_deref(), &path.child("tolerations"), errors);
    network::validate_host_aliases(spec, &path.child("hostAliases"), errors);
    if let Some(class) = spec.priority_class_name.as_deref().filter(|class| !class.is_empty()) {
        check(names::is_dns1123_subdomain(class), class, &path.child("priorityClassName"), errors);
    }
    if let Some(class) = &spec.runtime_class_name {
        check(names::is_dns1123_subdomain(class), class, &path.child("runtimeClassName"), errors);
    }
    if spec.preemption_policy.is_some() {
        let policies = ["PreemptLowerPriority", "Never"];
        validate_choice(spec.preemption_policy.as_deref(), &policies, &path.child("preemptionPolicy"), errors);
    }
    if let Some(overhead) = &spec.overhead {
        resources::validate_overhead(overhead, &path.child("overhead"), errors);
    }
    os::validate(spec, path, errors);
    if let Some(group) = &spec.scheduling_group {
        let path = path.child("schedulingGroup").child("podGroupName");
        match &group.pod_group_name {
            Some(name) => check(names::is_dns1123_subdomain(name), name, &path, errors),
            None => errors.invalid(&path, &group.pod_group_name, "must specify one of: `podGroupName`"),
        }
    }
}

fn validate_image_is_trimmed(container: &Container, path: &Path, errors: &mut Errors) {
    let image = container.image.as_deref().unwrap_or_default();
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

#[cfg(test)]
mod tests;
