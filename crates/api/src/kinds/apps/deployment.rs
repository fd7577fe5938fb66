//! Deployment: as many Pods of a template as wanted, changed a few at a time.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use serde_json::Value;

use super::workload::{self, percent, validate_counts, validate_parts};
use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, SCALE, Subresource, column, status_of, wide},
    kinds::core::pod::{container_cells, defaults, warnings},
    selector::Selector,
};

const REVISION_HISTORY_LIMIT: i32 = 10;
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

impl Kind for Deployment {
    const SHORT_NAMES: &'static [&'static str] = &["deploy"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[SCALE, status_of("Deployment")];
    const HAS_GENERATION: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT);
        spec.progress_deadline_seconds.get_or_insert(PROGRESS_DEADLINE_SECONDS);
        let strategy = spec.strategy.get_or_insert_default();
        let kind = strategy.type_.get_or_insert_default();
        if kind.is_empty() {
            *kind = "RollingUpdate".into();
        }
        if kind == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(|| percent(25));
            rolling.max_surge.get_or_insert_with(|| percent(25));
        }
        defaults::pod_template(&mut spec.template);
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&self.spec.clone().unwrap_or_default(), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let selector = |deployment: &Self| deployment.spec.as_ref().map(|spec| spec.selector.clone());
        errors.immutable(&Path::new("spec").child("selector"), &selector(self), &selector(old));
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        let status = self.status.clone().unwrap_or_default();
        validate_status(&status, errors);
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        workload::validate_collisions(status.collision_count, before, errors);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let template = |deployment: &Self| deployment.spec.as_ref().map(|spec| spec.template.clone());
        match old {
            None => warnings::of_workload(self.metadata.name.as_deref(), template(self).as_ref()),
            Some(old) if template(old) != template(self) => warnings::of_workload(None, template(self).as_ref()),
            Some(_) => Vec::new(),
        }
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            column("Ready", "Number of the pod with ready state"),
            column(
                "Up-to-date",
                "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
            ),
            column(
                "Available",
                "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
            ),
            AGE_COLUMN,
            wide("Containers", "Names of each container in the template."),
            wide("Images", "Images referenced by each container in the template."),
            wide(
                "Selector",
                "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment.",
            ),
        ]
    }

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let [containers, images] = container_cells(Some(&spec.template));
        let selector =
            Selector::from_api(Some(&spec.selector)).map_or("<invalid>".into(), |selector| selector.to_string());
        vec![
            self.metadata.name.clone().into(),
            format!("{}/{}", status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(0)).into(),
            status.updated_replicas.unwrap_or(0).into(),
            status.available_replicas.unwrap_or(0).into(),
            kind::age(&self.metadata, now).into(),
            containers,
            images,
            selector.into(),
        ]
    }
}

fn validate_spec(spec: &DeploymentSpec, errors: &mut Errors) {
    let path = Path::new("spec");
    validate_counts(&[("replicas", spec.replicas.map(i64::from))], &path, errors);
    workload::validate_selector(&spec.selector, "deployment", &path, errors);
    workload::validate_template(&spec.selector, &spec.template, "ReplicaSet", &path, errors);
    validate_strategy(&spec.strategy.clone().unwrap_or_default(), &path.child("strategy"), errors);
    let counts = [
        ("minReadySeconds", spec.min_ready_seconds.map(i64::from)),
        ("revisionHistoryLimit", spec.revision_history_limit.map(i64::from)),
        ("progressDeadlineSeconds", spec.progress_deadline_seconds.map(i64::from)),
    ];
    validate_counts(&counts, &path, errors);
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    if let Some(deadline) = spec.progress_deadline_seconds.filter(|deadline| *deadline <= min_ready) {
        errors.invalid(&path.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds");
    }
}

fn validate_strategy(strategy: &DeploymentStrategy, path: &Path, errors: &mut Errors) {
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => errors.required(&at, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => {
            workload::validate_rolling(rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref(), &at, errors);
        }
        _ => errors.not_supported(path, strategy, &["Recreate", "RollingUpdate"]),
    }
}

fn validate_status(status: &DeploymentStatus, errors: &mut Errors) {
    let path = Path::new("status");
    let counts = [
        ("observedGeneration", status.observed_generation),
        ("replicas", status.replicas.map(i64::from)),
        ("updatedReplicas", status.updated_replicas.map(i64::from)),
        ("readyReplicas", status.ready_replicas.map(i64::from)),
        ("availableReplicas", status.available_replicas.map(i64::from)),
        ("unavailableReplicas", status.unavailable_replicas.map(i64::from)),
        ("terminatingReplicas", status.terminating_replicas.map(i64::from)),
        ("collisionCount", status.collision_count.map(i64::from)),
    ];
    validate_counts(&counts, &path, errors);
    let (ready, available) = (status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    let parts = [
        ("updatedReplicas", status.updated_replicas.unwrap_or(0)),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ];
    let all = status.replicas.unwrap_or(0);
    validate_parts(&parts, all, "cannot be greater than status.replicas", &path, errors);
    validate_parts(&[("availableReplicas", available)], ready, "cannot be greater than readyReplicas", &path, errors);
}

#[cfg(test)]
mod tests;
