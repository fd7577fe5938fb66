//! Pod: what runs.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus};
use serde_json::Value;

use crate::{
    field::{Errors, Path},
    kind::{Column, Kind, Subresource, status_of},
    names,
    validation::pod as rules,
};

pub mod binding;
pub mod defaults;
pub mod ephemeral;
mod match_label_keys;
pub mod resources;
pub mod subresources;
mod table;
mod template;
pub mod unsupported;
pub mod warnings;

pub use template::{container_cells, template_labels};

const fn on_pod(name: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, group: "", version: "", kind: "Pod", verbs }
}

const fn stream(name: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, group: "", version: "", kind, verbs: &["create", "get"] }
}

const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

impl Kind for Pod {
    const SHORT_NAMES: &'static [&'static str] = &["po"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const HAS_GENERATION: bool = true;
    const SUBRESOURCES: &'static [Subresource] = &[
        stream("attach", "PodAttachOptions"),
        Subresource { name: "binding", group: "", version: "", kind: "Binding", verbs: &["create"] },
        on_pod("ephemeralcontainers", &["get", "patch", "update"]),
        Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &["create"] },
        stream("exec", "PodExecOptions"),
        on_pod("log", &["get"]),
        stream("portforward", "PodPortForwardOptions"),
        Subresource { name: "proxy", group: "", version: "", kind: "PodProxyOptions", verbs: PROXY_VERBS },
        on_pod("resize", &["get", "patch", "update"]),
        status_of("Pod"),
    ];

    fn set_defaults(&mut self) {
        defaults::pod(self);
    }

    fn prepare_for_create(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()).then(|| PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("SchedulingGated".into()),
            message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
            last_transition_time: self.metadata.creation_timestamp.clone(),
            ..PodCondition::default()
        });
        self.status = Some(PodStatus {
            phase: Some("Pending".into()),
            qos_class: Some(resources::qos_class(spec).into()),
            conditions: gated.map(|condition| vec![condition]),
            ..PodStatus::default()
        });
        match_label_keys::merge_into_selectors(spec, self.metadata.labels.as_ref());
    }

    /// What a client leaves out here stays as it was: old kubelets know less than the API.
    fn prepare_for_status_update(&mut self, old: &Self) {
        let old = old.status.clone().unwrap_or_default();
        let status = self.status.get_or_insert_default();
        status.qos_class = status.qos_class.take().filter(|class| !class.is_empty()).or(old.qos_class);
        let set = |generation: Option<i64>| generation.filter(|generation| *generation != 0);
        status.observed_generation = set(status.observed_generation).or(old.observed_generation);
        let mut before = old.conditions.unwrap_or_default();
        for condition in status.conditions.iter_mut().flatten() {
            let Some(at) = before.iter().position(|old| old.type_ == condition.type_) else { continue };
            let old = before.remove(at);
            condition.observed_generation = set(condition.observed_generation).or(old.observed_generation);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        rules::validate_pod(self, errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        rules::validate_pod_create(self, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        rules::update::validate_pod_update(self, old, errors);
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        rules::status::validate_pod_status_update(self, old, errors);
    }

    /// Only on creation: people rarely write to a Pod that exists, and programs do so often.
    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let wrong = names::is_dns1123_label(name);
        if !name.is_empty() && !wrong.is_empty() {
            warnings.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label \
                 is recommended: [{}]",
                wrong.join(" ")
            ));
        }
        warnings.extend(warnings::of(&self.metadata, self.spec.as_ref(), &Path::default()));
        warnings
    }

    fn columns() -> Vec<Column> {
        table::columns()
    }

    fn row(&self, now: Timestamp) -> Vec<Value> {
        table::row(self, now)
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let pod_ip = status.pod_ips.and_then(|addresses| addresses.into_iter().next()).map(|address| address.ip);
        vec![
            ("spec.nodeName", spec.node_name.unwrap_or_default()),
            ("spec.restartPolicy", spec.restart_policy.unwrap_or_default()),
            ("spec.schedulerName", spec.scheduler_name.unwrap_or_default()),
            ("spec.serviceAccountName", spec.service_account_name.unwrap_or_default()),
            ("spec.hostNetwork", spec.host_network.unwrap_or_default().to_string()),
            ("status.phase", status.phase.unwrap_or_default()),
            ("status.podIP", pod_ip.unwrap_or_default()),
            ("status.nominatedNodeName", status.nominated_node_name.unwrap_or_default()),
        ]
    }
}

/// An init container that runs beside the containers until they end.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests;
