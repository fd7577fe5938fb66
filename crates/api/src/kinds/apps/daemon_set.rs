//! DaemonSet: one Pod of a template on each node that fits.

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{DaemonSet, DaemonSetStatus, DaemonSetUpdateStrategy},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::workload::{self, amount, validate_counts};
use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, Subresource, column, status_of, wide},
    kinds::core::pod::{container_cells, defaults, warnings},
    selector::Selector,
    validation::{pod::validate_pod_template, validate_count_or_percent, validate_not_above_100_percent},
};

const REVISION_HISTORY_LIMIT: i32 = 10;
/// Counts changes of the template; of use to clients of an older API only.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn count(name: &'static str, description: &'static str) -> Column {
    Column { r#type: "integer", ..column(name, description) }
}

fn template_generation(set: &DaemonSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(TEMPLATE_GENERATION)?.parse().ok()).unwrap_or_default()
}

impl Kind for DaemonSet {
    const SHORT_NAMES: &'static [&'static str] = &["ds"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[status_of("DaemonSet")];
    const HAS_GENERATION: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT);
        let strategy = spec.update_strategy.get_or_insert_default();
        let kind = strategy.type_.get_or_insert_default();
        if kind.is_empty() {
            *kind = "RollingUpdate".into();
        }
        if kind == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        defaults::pod_template(&mut spec.template);
    }

    fn prepare_for_create(&mut self) {
        let generation = template_generation(self).max(1);
        let annotations = self.metadata.annotations.get_or_insert_default();
        annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string());
    }

    fn prepare_for_update(&mut self, old: &Self) {
        let template = |set: &Self| set.spec.as_ref().map(|spec| spec.template.clone());
        let generation = template_generation(old) + i64::from(template(self) != template(old));
        let annotations = self.metadata.annotations.get_or_insert_default();
        annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string());
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        workload::validate_selector(&spec.selector, "daemonset", &path, errors);
        let at = path.child("template");
        if let Ok(selector) = workload::selector_of(&spec.selector) {
            workload::validate_labels_match(&selector, &spec.template, &at, errors);
        }
        validate_pod_template(&spec.template, &at, errors);
        workload::validate_runs_on(&spec.template, "DaemonSet", &at, errors);
        validate_counts(&[("minReadySeconds", spec.min_ready_seconds.map(i64::from))], &path, errors);
        let strategy = spec.update_strategy.unwrap_or_default();
        validate_strategy(&strategy, &path.child("updateStrategy"), errors);
        validate_counts(&[("revisionHistoryLimit", spec.revision_history_limit.map(i64::from))], &path, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let selector = |set: &Self| set.spec.as_ref().map(|spec| spec.selector.clone());
        errors.immutable(&Path::new("spec").child("selector"), &selector(self), &selector(old));
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        let status = self.status.clone().unwrap_or_default();
        validate_status(&status, errors);
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        workload::validate_collisions(status.collision_count, before, errors);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let template = |set: &Self| set.spec.as_ref().map(|spec| spec.template.clone());
        let mut warnings = match old {
            Some(old) if template(old) == template(self) => Vec::new(),
            _ => warnings::of_workload(None, template(self).as_ref()),
        };
        if old.is_none() {
            warnings.push("DaemonSet is stored, but no controller of this cluster acts on it yet".into());
        }
        warnings
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            count("Desired", "The total number of nodes that should be running the daemon pod."),
            count("Current", "The number of nodes that are running at least 1 daemon pod and are supposed to run it."),
            count("Ready", "The number of nodes that should be running the daemon pod and have one of it ready."),
            count("Up-to-date", "The total number of nodes that are running updated daemon pod"),
            count(
                "Available",
                "The number of nodes that should be running the daemon pod and have one of it available.",
            ),
            column("Node Selector", "NodeSelector is a selector which must be true for the pod to fit on a node."),
            AGE_COLUMN,
            wide("Containers", "Names of each container in the template."),
            wide("Images", "Images referenced by each container in the template."),
            wide("Selector", "A label query over pods that are managed by the daemon set."),
        ]
    }

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let [containers, images] = container_cells(Some(&spec.template));
        let node_selector = spec.template.spec.and_then(|spec| spec.node_selector).unwrap_or_default();
        let node_selector = Selector::from_labels(&node_selector);
        let node_selector = if node_selector.is_everything() { "<none>".into() } else { node_selector.to_string() };
        vec![
            self.metadata.name.clone().into(),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or(0).into(),
            status.number_available.unwrap_or(0).into(),
            node_selector.into(),
            kind::age(&self.metadata, now).into(),
            containers,
            images,
            workload::selector_cell(&spec.selector).into(),
        ]
    }
}

fn validate_strategy(strategy: &DaemonSetUpdateStrategy, path: &Path, errors: &mut Errors) {
    match strategy.type_.as_deref().unwrap_or_default() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = &strategy.rolling_update else { return errors.required(&path, "") };
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                validate_count_or_percent(value, &path.child(field), errors);
                validate_not_above_100_percent(value, &path.child(field), errors);
            }
            match (amount(unavailable) > 0, amount(surge) > 0) {
                (true, true) => {
                    let why = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(&path.child("maxSurge"), surge, why);
                }
                (false, false) => errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => errors.not_supported(path, strategy, &["RollingUpdate", "OnDelete"]),
    }
}

fn validate_status(status: &DaemonSetStatus, errors: &mut Errors) {
    let counts = [
        ("currentNumberScheduled", Some(i64::from(status.current_number_scheduled))),
        ("numberMisscheduled", Some(i64::from(status.number_misscheduled))),
        ("desiredNumberScheduled", Some(i64::from(status.desired_number_scheduled))),
        ("numberReady", Some(i64::from(status.number_ready))),
        ("observedGeneration", status.observed_generation),
        ("updatedNumberScheduled", status.updated_number_scheduled.map(i64::from)),
        ("numberAvailable", status.number_available.map(i64::from)),
        ("numberUnavailable", status.number_unavailable.map(i64::from)),
        ("collisionCount", status.collision_count.map(i64::from)),
    ];
    validate_counts(&counts, &Path::new("status"), errors);
}
