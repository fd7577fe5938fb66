//! Which Pods go first when there are too many: upstream's order, from "least work lost" to "most".

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::PodFacts;

/// Users say here how much they would mind; less goes first, 0 by default.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `number` Pods of `owned` that should be deleted. `related` are the active Pods of the same owner's other
/// ReplicaSets too: of nodes with many of them, Pods leave first.
pub(super) fn surplus(owned: &[Arc<Pod>], related: &[Arc<Pod>], number: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if number == 0 {
        return Vec::new();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pod.is_active()) {
        *on_node.entry(pod.node_name()).or_default() += 1;
    }
    let crowd = |pod: &Pod| on_node.get(pod.node_name()).copied().unwrap_or(0);
    let mut ranked = owned.to_vec();
    ranked.sort_by(|a, b| compare(a, crowd(a), b, crowd(b), now));
    ranked.truncate(number);
    ranked
}

fn compare(a: &Pod, crowd_a: usize, b: &Pod, crowd_b: usize, now: Timestamp) -> Ordering {
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let is_assigned = |pod: &Pod| !pod.node_name().is_empty();
    is_assigned(a)
        .cmp(&is_assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| crowd_b.cmp(&crowd_a))
        .then_with(|| younger(a, a.ready_since(), b, b.ready_since(), now))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| younger(a, created(a), b, created(b), now))
}

fn phase(pod: &Pod) -> u8 {
    match pod.phase() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or(0)
}

/// The younger goes first; ages are compared by their order of magnitude, so that old Pods of similar age leave
/// in random order (of their uids) and not all from the node that was filled last.
fn younger(a: &Pod, since_a: Option<Timestamp>, b: &Pod, since_b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let (Some(since_a), Some(since_b)) = (since_a, since_b) else { return since_a.is_some().cmp(&since_b.is_some()) };
    if since_a == since_b {
        return Ordering::Equal;
    }
    let magnitude = |since: Timestamp| {
        let age = now.duration_since(since).as_nanos();
        if age <= 0 { -1 } else { i64::from(age.ilog2()) }
    };
    magnitude(since_a).cmp(&magnitude(since_b)).then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}
