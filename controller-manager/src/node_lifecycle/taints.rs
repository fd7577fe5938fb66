//! Which taints a Node should have for its conditions.

use client::controller::Action;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;

use super::condition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
pub(super) const NO_EXECUTE: &str = "NoExecute";
const NO_SCHEDULE: &str = "NoSchedule";

/// Condition, status, and the taint it brings.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The key and effect of each taint that the Node should have of us.
fn wanted(node: &Node, any_ready: bool) -> Vec<(&'static str, &'static str)> {
    let holds = |r#type: &str, status: &str| condition(node, r#type).is_some_and(|found| found.status == status);
    let by_condition = BY_CONDITION.iter().filter(|(r#type, status, _)| holds(r#type, status)).map(|(_, _, key)| *key);
    let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let mut wanted: Vec<_> =
        by_condition.chain(is_cordoned.then_some(UNSCHEDULABLE)).map(|key| (key, NO_SCHEDULE)).collect();
    let driving_out = [("False", NOT_READY), ("Unknown", UNREACHABLE)];
    let driving_out = driving_out.iter().filter(|(status, _)| any_ready && holds("Ready", status));
    wanted.extend(driving_out.map(|(_, key)| (*key, NO_EXECUTE)));
    wanted
}

/// Whether a taint is ours to remove.
fn is_ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        NO_EXECUTE => matches!(key, NOT_READY | UNREACHABLE),
        NO_SCHEDULE => key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, ours)| *ours == key),
        _ => false,
    }
}

/// Adds and removes taints until they are as wanted; users' taints and the times of ours stay as they are.
pub(super) fn reconcile(node: &Node, any_ready: bool, now: Timestamp) -> Option<Action> {
    let wanted = wanted(node, any_ready);
    let old: Vec<&Taint> = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).collect();
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let stays = |taint: &&&Taint| !is_ours(taint) || wanted.iter().any(|want| is(taint, *want));
    let kept: Vec<Taint> = old.iter().filter(stays).map(|taint| Taint::clone(taint)).collect();
    let missing = wanted.iter().filter(|want| !old.iter().any(|taint| is(taint, **want)));
    let added: Vec<Taint> = missing
        .map(|(key, effect)| Taint {
            key: (*key).into(),
            effect: (*effect).into(),
            time_added: Some(Time(now)),
            ..Taint::default()
        })
        .collect();
    if added.is_empty() && kept.len() == old.len() {
        return None;
    }
    let taints: Vec<Taint> = kept.into_iter().chain(added).collect();
    let metadata = json!({"resourceVersion": node.metadata.resource_version});
    Some(Action::patch(node, json!({"metadata": metadata, "spec": {"taints": taints}})))
}
