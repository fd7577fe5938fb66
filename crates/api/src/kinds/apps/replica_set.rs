//! ReplicaSet: as many Pods of a template as wanted.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use serde_json::Value;

use super::workload::{self, validate_counts, validate_parts};
use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, SCALE, Subresource, column, status_of, wide},
    kinds::core::pod::{container_cells, defaults, warnings},
};

fn count(name: &'static str, description: &'static str) -> Column {
    Column { r#type: "integer", ..column(name, description) }
}

impl Kind for ReplicaSet {
    const SHORT_NAMES: &'static [&'static str] = &["rs"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[SCALE, status_of("ReplicaSet")];
    const HAS_GENERATION: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        defaults::pod_template(spec.template.get_or_insert_default());
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        let counts =
            [("replicas", spec.replicas.map(i64::from)), ("minReadySeconds", spec.min_ready_seconds.map(i64::from))];
        validate_counts(&counts, &path, errors);
        workload::validate_selector(&spec.selector, "deployment", &path, errors);
        workload::validate_template(&spec.selector, &spec.template.unwrap_or_default(), "ReplicaSet", &path, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let selector = |set: &Self| set.spec.as_ref().map(|spec| spec.selector.clone());
        errors.immutable(&Path::new("spec").child("selector"), &selector(self), &selector(old));
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        validate_status(&self.status.clone().unwrap_or_default(), errors);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let template = |set: &Self| set.spec.as_ref().and_then(|spec| spec.template.clone());
        match old {
            None => warnings::of_workload(self.metadata.name.as_deref(), template(self).as_ref()),
            Some(old) if template(old) != template(self) => warnings::of_workload(None, template(self).as_ref()),
            Some(_) => Vec::new(),
        }
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            count("Desired", "Replicas is the number of desired pods. Defaults to 1."),
            count("Current", "Replicas is the most recently observed number of non-terminating pods."),
            count("Ready", "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition."),
            AGE_COLUMN,
            wide("Containers", "Names of each container in the template."),
            wide("Images", "Images referenced by each container in the template."),
            wide("Selector", "Selector is a label query over pods that should match the replica count."),
        ]
    }

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let [containers, images] = container_cells(spec.template.as_ref());
        vec![
            self.metadata.name.clone().into(),
            spec.replicas.unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            kind::age(&self.metadata, now).into(),
            containers,
            images,
            workload::selector_cell(&spec.selector).into(),
        ]
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        vec![("status.replicas", self.status.as_ref().map_or(0, |status| status.replicas).to_string())]
    }
}

fn validate_status(status: &ReplicaSetStatus, errors: &mut Errors) {
    let path = Path::new("status");
    let counts = [
        ("replicas", Some(i64::from(status.replicas))),
        ("fullyLabeledReplicas", status.fully_labeled_replicas.map(i64::from)),
        ("readyReplicas", status.ready_replicas.map(i64::from)),
        ("availableReplicas", status.available_replicas.map(i64::from)),
        ("observedGeneration", status.observed_generation),
        ("terminatingReplicas", status.terminating_replicas.map(i64::from)),
    ];
    validate_counts(&counts, &path, errors);
    let (ready, available) = (status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    let parts = [
        ("fullyLabeledReplicas", status.fully_labeled_replicas.unwrap_or(0)),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ];
    validate_parts(&parts, status.replicas, "cannot be greater than status.replicas", &path, errors);
    validate_parts(&[("availableReplicas", available)], ready, "cannot be greater than readyReplicas", &path, errors);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_new, check_row};

    #[test]
    fn a_template_its_selector_does_not_select() {
        let set = json!({"spec": {"selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "b"}}, "spec": {"restartPolicy": "Never",
                "activeDeadlineSeconds": 3, "containers": [{"name": "c", "image": "i"}]}}}});
        check_new::<ReplicaSet>(
            set,
            expect![[r#"
                spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not match template `labels`
                spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
                spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"#]],
        );
    }

    #[test]
    fn row() {
        let set = json!({"metadata": {"name": "web-1", "creationTimestamp": "2026-01-01T00:50:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}}},
            "status": {"replicas": 2, "readyReplicas": 1}});
        check_row::<ReplicaSet>(set, expect!["web-1 | 3 | 2 | 1 | 10m | c,d | i:1,j | a=1,b=2"]);
    }
}
