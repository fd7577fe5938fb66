//! Node: a machine that runs Pods.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ipnet::IpNet;
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec, NodeStatus, Taint},
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::Value;

use crate::{
    field::{Errors, Path, Problem},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, Subresource, column, status_of, wide},
    names,
    validation::{self, net, resources},
};

/// Effects of a taint, in the order error messages list them.
pub const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

const PROXY: Subresource = Subresource {
    name: "proxy",
    group: "",
    version: "",
    kind: "NodeProxyOptions",
    verbs: &["create", "delete", "get", "patch", "update"],
};

impl Kind for Node {
    const SHORT_NAMES: &'static [&'static str] = &["no"];
    const SUBRESOURCES: &'static [Subresource] = &[PROXY, status_of("Node")];
    const STATUS_ON_CREATE: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        agree_on_pod_cidrs(spec);
        let status = self.status.get_or_insert_default();
        if status.allocatable.is_none() {
            status.allocatable = status.capacity.clone();
        }
    }

    fn prepare_for_create(&mut self) {
        self.spec.get_or_insert_default().config_source = None;
        self.status.get_or_insert_default().config = None;
    }

    fn prepare_for_update(&mut self, old: &Self) {
        if old.spec.as_ref().is_none_or(|spec| spec.config_source.is_none()) {
            self.spec.get_or_insert_default().config_source = None;
        }
    }

    fn prepare_for_status_update(&mut self, old: &Self) {
        if old.status.as_ref().is_none_or(|status| status.config.is_none()) {
            self.status.get_or_insert_default().config = None;
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let (Some(spec), Some(status)) = (&self.spec, &self.status) else { return };
        // Upstream puts taints under metadata; clients match on that.
        validate_taints(spec.taints.as_deref().unwrap_or_default(), &Path::new("metadata").child("taints"), errors);
        validate_resources(status, errors);
        validate_features(status, errors);
        validate_pod_cidrs(spec.pod_cidrs.as_deref().unwrap_or_default(), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        let path = Path::new("spec");
        let old_cidrs = old.pod_cidrs.as_deref().unwrap_or_default();
        if !old_cidrs.is_empty() && old_cidrs != spec.pod_cidrs.as_deref().unwrap_or_default() {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(&path.child("podCIDRs"), why);
        }
        let (provider, old_provider) = (text(&spec.provider_id), text(&old.provider_id));
        if !old_provider.is_empty() && provider != old_provider {
            let why = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&path.child("providerID"), why);
        }
        if text(&spec.external_id) != text(&old.external_id) {
            errors.forbidden(&path.child("externalID"), "may not be updated");
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        validate_resources(status, errors);
        validate_features(status, errors);
        let mut seen = HashSet::new();
        for (index, address) in status.addresses.iter().flatten().enumerate() {
            if !seen.insert((&address.type_, &address.address)) {
                errors.duplicate(&Path::new("status").child("addresses").index(index), address);
            }
        }
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let mut warnings = Vec::new();
        if spec.config_source.is_some() {
            warnings.push("spec.configSource: the feature is removed".into());
        }
        if !text(&spec.external_id).is_empty() {
            warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        warnings
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            column("Status", "The status of the node"),
            column("Roles", "The roles of the node"),
            AGE_COLUMN,
            column("Version", "Kubelet Version reported by the node."),
            wide("Internal-IP", "An address of the node inside the cluster's network."),
            wide("External-IP", "An address of the node that is reachable from outside."),
            wide("OS-Image", "OS Image reported by the node from /etc/os-release."),
            wide("Kernel-Version", "Kernel Version reported by the node from 'uname -r'."),
            wide("Container-Runtime", "Container runtime and its version, as the node reports them."),
        ]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let info = self.status.as_ref().and_then(|status| status.node_info.clone()).unwrap_or_default();
        let known = |text: &str| if text.is_empty() { "<unknown>".to_owned() } else { text.to_owned() };
        let kernel = match info.architecture.as_str() {
            "" => known(&info.kernel_version),
            architecture => format!("{} ({architecture})", known(&info.kernel_version)),
        };
        vec![
            self.metadata.name.clone().into(),
            status_cell(self).into(),
            roles_cell(self).into(),
            kind::age(&self.metadata, now).into(),
            info.kubelet_version.into(),
            address_cell(self, "InternalIP").into(),
            address_cell(self, "ExternalIP").into(),
            known(&info.os_image).into(),
            kernel.into(),
            known(&info.container_runtime_version).into(),
        ]
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_unschedulable(self).to_string())]
    }
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

/// `podCIDR` is the first of `podCIDRs`; old clients write only the former, and where they differ it wins.
fn agree_on_pod_cidrs(spec: &mut NodeSpec) {
    let first = spec.pod_cidrs.as_ref().and_then(|cidrs| cidrs.first());
    match spec.pod_cidr.as_ref().filter(|cidr| !cidr.is_empty()) {
        Some(one) if first != Some(one) => spec.pod_cidrs = Some(vec![one.clone()]),
        Some(_) => {}
        None => spec.pod_cidr = first.cloned(),
    }
}

/// The taints of a Node: keys, values and effects, each pair of key and effect once.
pub fn validate_taints(taints: &[Taint], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        validation::meta::validate_label_name(&taint.key, &path.child("key"), errors);
        let value = text(&taint.value);
        let messages = names::is_valid_label_value(value);
        if !messages.is_empty() {
            errors.invalid(&path.child("value"), value, messages.join(";"));
        }
        validation::validate_choice(Some(&taint.effect), TAINT_EFFECTS, &path.child("effect"), errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            let value = serde_json::to_value(taint).unwrap_or(Value::Null);
            errors.push(&path, Problem::Duplicate(value), "taints must be unique by key and effect pair");
        }
    }
}

fn validate_resources(status: &NodeStatus, errors: &mut Errors) {
    let mut each = |amounts: &Option<BTreeMap<String, Quantity>>, field: &str| {
        for (name, amount) in amounts.iter().flatten() {
            let path = Path::new("status").child(field).child(name);
            resources::validate_amount(name, amount, &path, errors);
        }
    };
    each(&status.capacity, "capacity");
    each(&status.allocatable, "allocatable");
}

/// Names of features the kubelet declares: `MyFeature` or `MyFeature/part`, sorted, each once.
fn validate_features(status: &NodeStatus, errors: &mut Errors) {
    let path = Path::new("status").child("declaredFeatures");
    let features = status.declared_features.as_deref().unwrap_or_default();
    for (index, feature) in features.iter().enumerate() {
        let parts_fit =
            feature.split('/').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
        if !parts_fit || !feature.starts_with(|c: char| c.is_ascii_uppercase()) {
            let why = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., \
                       MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes";
            errors.invalid(&path.index(index), feature, format!("invalid feature name {feature:?}: {why}"));
        }
    }
    for (index, pair) in features.windows(2).enumerate() {
        match pair[0].cmp(&pair[1]) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => errors.duplicate(&path.index(index + 1), &pair[1]),
            std::cmp::Ordering::Greater => {
                errors.invalid(&path.index(index + 1), &pair[1], "list must be sorted alphabetically");
            }
        }
    }
}

fn validate_pod_cidrs(cidrs: &[String], errors: &mut Errors) {
    let path = Path::new("spec").child("podCIDRs");
    for (index, cidr) in cidrs.iter().enumerate() {
        net::validate_cidr(cidr, &path.index(index), errors);
    }
    let families: BTreeSet<_> =
        cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok()).map(|net| net.addr().is_ipv4()).collect();
    if cidrs.len() > 1 && families.len() != cidrs.len() {
        errors.invalid(&path, cidrs, "may specify no more than one CIDR for each IP family");
    }
}

/// `Ready`, `NotReady`, `Unknown`, each perhaps with `,SchedulingDisabled`.
fn status_cell(node: &Node) -> String {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().rfind(|condition| condition.type_ == "Ready");
    let word = match ready.map(|condition| condition.status.as_str()) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    };
    if is_unschedulable(node) { format!("{word},SchedulingDisabled") } else { word.into() }
}

fn roles_cell(node: &Node) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some("") => {}
            Some(role) => drop(roles.insert(role)),
            None if key == ROLE_LABEL && !value.is_empty() => drop(roles.insert(value)),
            None => {}
        }
    }
    if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address_cell(node: &Node, r#type: &str) -> String {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let found = addresses.iter().find(|address| address.type_ == r#type);
    found.map_or_else(|| "<none>".into(), |address| address.address.clone())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_change, check_new, check_row};

    #[test]
    fn rows() {
        check_row::<Node>(
            json!({
                "metadata": {"name": "n1", "creationTimestamp": "2025-12-31T00:00:00Z",
                    "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "gpu"}},
                "spec": {"unschedulable": true},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                    "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.1", "architecture": "amd64",
                        "containerRuntimeVersion": "docker://28", "bootID": "", "kubeProxyVersion": "", "machineID": "",
                        "operatingSystem": "linux", "systemUUID": ""}
                }
            }),
            expect![
                "n1 | Ready,SchedulingDisabled | control-plane,gpu | 25h | v1.36.0 | 10.0.0.1 | <none> | Debian | 6.1 (amd64) | docker://28"
            ],
        );
        check_row::<Node>(
            json!({"metadata": {"name": "n2"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            expect!["n2 | NotReady | <none> | <unknown> |  | <none> | <none> | <unknown> | <unknown> | <unknown>"],
        );
    }

    #[test]
    fn taints_and_amounts() {
        check_new::<Node>(
            json!({
                "metadata": {"name": "n"},
                "spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"], "taints": [
                    {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "Never"}]},
                "status": {"capacity": {"cpu": "-1", "nvidia.com/gpu": "0.5"}, "allocatable": {"cpu": "1"}}
            }),
            expect![[r#"
                metadata.taints[1]: Duplicate value: {"effect":"NoSchedule","key":"a"}: taints must be unique by key and effect pair
                metadata.taints[2].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
                status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0
                status.capacity.nvidia.com/gpu: Invalid value: "0.5": must be an integer
                spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family"#]],
        );
    }

    #[test]
    fn pod_cidrs_are_set_once() {
        check_change::<Node>(json!({}), json!({"spec": {"podCIDR": "10.0.0.0/24"}}), expect![""]);
        check_change::<Node>(
            json!({"spec": {"podCIDR": "10.0.0.0/24", "providerID": "a"}}),
            json!({"spec": {"podCIDR": "10.0.1.0/24", "providerID": "b"}}),
            expect![[r#"
                spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid
                spec.providerID: Forbidden: node updates may not change providerID except from "" to valid"#]],
        );
    }
}
