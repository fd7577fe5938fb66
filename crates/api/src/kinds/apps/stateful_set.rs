//! StatefulSet: Pods with names and volumes that stay.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy},
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume},
};
use serde_json::Value;

use super::workload::{self, amount, validate_counts, validate_parts};
use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, NameRule, SCALE, Subresource, column, status_of, wide},
    kinds::core::pod::{container_cells, defaults, warnings},
    names,
    validation::{
        check,
        pod::{update::changes, validate_claim_spec, validate_pod_template},
        validate_count_or_percent, validate_not_above_100_percent,
    },
};

const REVISION_HISTORY_LIMIT: i32 = 10;

impl Kind for StatefulSet {
    const SHORT_NAMES: &'static [&'static str] = &["sts"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[SCALE, status_of("StatefulSet")];
    const HAS_GENERATION: bool = true;
    /// Its Pods' names are its name and a number, and their hostnames too.
    const NAME_RULE: NameRule = NameRule::DnsLabel;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT);
        let policy = spec.pod_management_policy.get_or_insert_default();
        if policy.is_empty() {
            *policy = "OrderedReady".into();
        }
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or_default().is_empty() {
            strategy.type_ = Some("RollingUpdate".into());
            strategy.rolling_update.get_or_insert_default();
        }
        if strategy.type_.as_deref() == Some("RollingUpdate")
            && let Some(rolling) = &mut strategy.rolling_update
        {
            rolling.partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        for when in [&mut retention.when_deleted, &mut retention.when_scaled] {
            if when.as_deref().unwrap_or_default().is_empty() {
                *when = Some("Retain".into());
            }
        }
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            set_claim_defaults(claim);
        }
        defaults::pod_template(&mut spec.template);
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&self.spec.clone().unwrap_or_default(), errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        for (index, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
            let path = path.child("volumeClaimTemplates").index(index).child("spec");
            validate_claim_spec(&claim.spec.clone().unwrap_or_default(), &path, errors);
        }
        if let Some(name) = spec.service_name.as_deref().filter(|name| !name.is_empty()) {
            check(names::is_dns1123_label(name), name, &path.child("serviceName"), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (new, old) = (self.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let masked = StatefulSetSpec {
            replicas: old.replicas,
            template: old.template.clone(),
            update_strategy: old.update_strategy.clone(),
            min_ready_seconds: old.min_ready_seconds,
            ordinals: old.ordinals.clone(),
            revision_history_limit: old.revision_history_limit,
            persistent_volume_claim_retention_policy: old.persistent_volume_claim_retention_policy.clone(),
            ..new
        };
        if !changes(&old, &masked).is_empty() {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                       'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                       'minReadySeconds' are forbidden";
            errors.forbidden(&Path::new("spec"), why);
        }
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
            warnings.push("StatefulSet is stored, but no controller of this cluster acts on it yet".into());
        }
        let limit = self.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        if limit.is_some_and(|limit| limit < 0) {
            let sentence = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                            recommended";
            warnings.push(sentence.into());
        }
        warnings
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            column("Ready", "Number of the pod with ready state"),
            AGE_COLUMN,
            wide("Containers", "Names of each container in the template."),
            wide("Images", "Images referenced by each container in the template."),
        ]
    }

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let [containers, images] = container_cells(Some(&spec.template));
        vec![
            self.metadata.name.clone().into(),
            format!("{}/{}", status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(0)).into(),
            kind::age(&self.metadata, now).into(),
            containers,
            images,
        ]
    }
}

fn set_claim_defaults(claim: &mut PersistentVolumeClaim) {
    let spec = claim.spec.get_or_insert_default();
    spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    let resources = spec.resources.get_or_insert_default();
    defaults::canonical(&mut resources.limits);
    defaults::canonical(&mut resources.requests);
    let status = claim.status.get_or_insert_default();
    if status.phase.as_deref().unwrap_or_default().is_empty() {
        status.phase = Some("Pending".into());
    }
}

fn validate_spec(spec: &StatefulSetSpec, errors: &mut Errors) {
    let path = Path::new("spec");
    let at = path.child("podManagementPolicy");
    match spec.pod_management_policy.as_deref().unwrap_or_default() {
        "" => errors.required(&at, ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(&at, other, "must be 'OrderedReady' or 'Parallel'"),
    }
    validate_strategy(&spec.update_strategy.clone().unwrap_or_default(), &path.child("updateStrategy"), errors);
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (field, when) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
            let when = when.as_deref().unwrap_or_default();
            if !["Retain", "Delete"].contains(&when) {
                errors.not_supported(&path.child(field), when, &["Retain", "Delete"]);
            }
        }
    }
    let counts = [
        ("replicas", spec.replicas.map(i64::from)),
        ("minReadySeconds", spec.min_ready_seconds.map(i64::from)),
        ("ordinals.start", spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).map(i64::from)),
    ];
    validate_counts(&counts, &path, errors);
    workload::validate_selector(&spec.selector, "statefulset", &path, errors);
    let at = path.child("template");
    match workload::selector_of(&spec.selector) {
        Err(_) => errors.invalid(&path.child("selector"), &spec.selector, ""),
        Ok(selector) => {
            workload::validate_labels_match(&selector, &spec.template, &at, errors);
            validate_pod_template(&as_run(spec), &at, errors);
        }
    }
    workload::validate_runs_on(&spec.template, "StatefulSet", &at, errors);
}

/// The template as the controller will use it: hostname and subdomain are its own choice, and each claim is a volume.
fn as_run(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let pod = template.spec.get_or_insert_default();
    pod.subdomain = None;
    pod.hostname = None;
    let names = spec.volume_claim_templates.iter().flatten().filter_map(|claim| claim.metadata.name.clone());
    let claimed: Vec<Volume> = names
        .map(|name| Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: None,
            }),
            name,
            ..Volume::default()
        })
        .collect();
    let others = pod.volumes.take().unwrap_or_default().into_iter();
    let others: Vec<_> = others.filter(|volume| !claimed.iter().any(|claim| claim.name == volume.name)).collect();
    pod.volumes = Some(claimed.into_iter().chain(others).collect());
    template
}

fn validate_strategy(strategy: &StatefulSetUpdateStrategy, path: &Path, errors: &mut Errors) {
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("", _) => errors.required(path, ""),
        ("OnDelete", Some(rolling)) => {
            errors.invalid(&at, rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            validate_counts(&[("partition", rolling.partition.map(i64::from))], &at, errors);
            let Some(unavailable) = &rolling.max_unavailable else { return };
            let at = at.child("maxUnavailable");
            validate_count_or_percent(unavailable, &at, errors);
            if amount(unavailable) == 0 {
                errors.invalid(&at, unavailable, "cannot be 0");
            }
            validate_not_above_100_percent(unavailable, &at, errors);
        }
        _ => errors.invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_status(status: &StatefulSetStatus, errors: &mut Errors) {
    let path = Path::new("status");
    let (ready, available) = (status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    let parts = [
        ("readyReplicas", ready),
        ("currentReplicas", status.current_replicas.unwrap_or(0)),
        ("updatedReplicas", status.updated_replicas.unwrap_or(0)),
        ("availableReplicas", available),
    ];
    validate_counts(&[("replicas", Some(i64::from(status.replicas)))], &path, errors);
    for (field, count) in parts {
        validate_counts(&[(field, Some(i64::from(count)))], &path, errors);
    }
    let counters =
        [("observedGeneration", status.observed_generation), ("collisionCount", status.collision_count.map(i64::from))];
    validate_counts(&counters, &path, errors);
    validate_parts(&parts, status.replicas, "cannot be greater than status.replicas", &path, errors);
    let why = "cannot be greater than status.readyReplicas";
    validate_parts(&[("availableReplicas", available)], ready, why, &path, errors);
}
