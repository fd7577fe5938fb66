//! Annotations of ReplicaSets: revision, its history, the sizes they were planned for, and the Deployment's own.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that are not copied to its ReplicaSets.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
];
/// Longest history that is kept.
const HISTORY_BYTES_MAX: usize = 2000;

/// An annotation as a number; `None` where it is absent, negative or no number.
pub(super) fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    let value = set.metadata.annotations.as_ref()?.get(annotation)?;
    value.parse().ok().filter(|number| *number >= 0)
}

/// The revision of a ReplicaSet; 0 where it has none.
pub(super) fn of(set: &ReplicaSet) -> i64 {
    let annotation = set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    annotation.and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Gives the new ReplicaSet the Deployment's annotations and at least this revision.
pub(super) fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) {
    let old = of(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if old < revision && annotations.insert(REVISION.into(), revision.to_string()).is_some() {
        remember(annotations, old);
    }
}

fn remember(annotations: &mut BTreeMap<String, String>, old: i64) {
    let history = annotations.get(HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<String> = history.split(',').filter(|past| !past.is_empty()).map(str::to_owned).collect();
    revisions.push(old.to_string());
    while revisions.join(",").len() > HISTORY_BYTES_MAX {
        revisions.remove(0);
    }
    annotations.insert(HISTORY.into(), revisions.join(","));
}

/// Notes which size this size was planned for; proportional scaling needs it later.
pub(super) fn plan(set: &mut ReplicaSet, desired: i32, max: i32) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.into(), desired.to_string());
    annotations.insert(MAX.into(), max.to_string());
}
