//! A Pod goes where what it requests is left, devices included; emptier nodes are liked better.

use super::{FilterNode, SCORE_MAX, ScoreNode, Unfit};
use crate::{devices, node::NodeInfo, pod::PodInfo, snapshot::Snapshot};

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<FilterNode<'a>> {
    Some(Box::new(|node| {
        let (reasons, is_ever_possible) = shortages(pod, node);
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(Unfit { reasons, is_resolvable_by_preemption: is_ever_possible }),
        }
    }))
}

/// Everything that is missing, and whether the node could hold the Pod if it were empty.
fn shortages(pod: &PodInfo, node: &NodeInfo) -> (Vec<String>, bool) {
    let (mut reasons, mut is_ever_possible) = (Vec::new(), true);
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) + 1 > node.pods_max {
        reasons.push("Too many pods".to_owned());
    }
    let (wanted, used, all) = (&pod.requests, &node.requested, &node.allocatable);
    let mut check = |name: &str, wanted: i64, used: i64, all: i64| {
        if wanted > 0 && wanted > all - used {
            reasons.push(format!("Insufficient {name}"));
            is_ever_possible &= wanted <= all;
        }
    };
    check("cpu", wanted.cpu_millis, used.cpu_millis, all.cpu_millis);
    check("memory", wanted.memory_bytes, used.memory_bytes, all.memory_bytes);
    let (storage_wanted, storage_used) = (wanted.ephemeral_storage_bytes, used.ephemeral_storage_bytes);
    check("ephemeral-storage", storage_wanted, storage_used, all.ephemeral_storage_bytes);
    let of = |map: &std::collections::BTreeMap<String, i64>, name: &str| map.get(name).copied().unwrap_or(0);
    for (name, wanted) in &wanted.scalar {
        check(name, *wanted, of(&used.scalar, name), of(&all.scalar, name));
    }
    // The count may be there while the devices are not: unhealthy, or held by a Pod that is leaving.
    let has_inventory = !node.devices.is_empty() && of(&wanted.scalar, devices::GPU) > 0;
    if reasons.is_empty() && has_inventory && devices::choose(&pod.pod, &node.devices, &node.devices_used).is_none() {
        reasons.push(format!("Insufficient {}", devices::GPU));
    }
    (reasons, is_ever_possible)
}

/// The share that would be left of CPU and memory (upstream: LeastAllocated).
pub fn score<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<ScoreNode<'a>> {
    Some(Box::new(|node| {
        let (wanted, used, all) = (&pod.usual_requests, &node.usual_requested, &node.allocatable);
        let parts = [
            left(wanted.cpu_millis + used.cpu_millis, all.cpu_millis),
            left(wanted.memory_bytes + used.memory_bytes, all.memory_bytes),
        ];
        let known: Vec<i64> = parts.into_iter().flatten().collect();
        match known.len() {
            0 => 0,
            count => known.iter().sum::<i64>() / i64::try_from(count).unwrap_or(1),
        }
    }))
}

fn left(used: i64, all: i64) -> Option<i64> {
    match all {
        0 => None,
        all if used > all => Some(0),
        all => Some(i64::try_from(i128::from(all - used) * i128::from(SCORE_MAX) / i128::from(all)).unwrap_or(0)),
    }
}
