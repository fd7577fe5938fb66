//! Whole GPUs by UUID: what a node offers, what Pods hold, and which to give next.
//!
//! The kubelet publishes its inventory as a Node annotation; the scheduler fixes the choice in the Pod's
//! annotation with the binding; the kubelet passes exactly these to Docker.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod};

pub use api::devices::{ASSIGNMENT_ANNOTATION, Assignment, Device, GPU, INVENTORY_ANNOTATION};

/// The GPUs that a node declares; none where it declares nothing readable.
pub fn inventory(node: &Node) -> Vec<Device> {
    let text = node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(INVENTORY_ANNOTATION));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The UUIDs that a Pod holds.
pub fn assigned(pod: &Pod) -> Vec<String> {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ASSIGNMENT_ANNOTATION));
    let assignment: Assignment = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    assignment.into_values().flatten().collect()
}

/// GPUs that each container of a Pod requests, those that request none left out.
fn wanted(pod: &Pod) -> Vec<(String, usize)> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    sidecars
        .chain(containers)
        .filter_map(|container| {
            let requests = container.resources.as_ref()?.requests.as_ref()?;
            let count = api::quantity::Quantity::of(requests.get(GPU)?).value();
            (count > 0).then(|| (container.name.clone(), usize::try_from(count).unwrap_or(usize::MAX)))
        })
        .collect()
}

/// Free healthy devices of an inventory.
pub fn free<'a>(devices: &'a [Device], used: &BTreeSet<String>) -> Vec<&'a Device> {
    devices.iter().filter(|device| device.healthy && !used.contains(&device.uuid)).collect()
}

/// Chooses devices for every container of a Pod. Devices of one NUMA node are taken together where one
/// has enough, the fullest such node first, so that large groups stay whole; then by index. `None` when
/// there are too few. Init containers run before the others and may use the same devices.
pub fn choose(pod: &Pod, devices: &[Device], used: &BTreeSet<String>) -> Option<Assignment> {
    let wanted = wanted(pod);
    let mut left = free(devices, used);
    left.sort_by_key(|device| device.index);
    let mut assignment = Assignment::new();
    for (container, count) in wanted {
        let taken = take(&mut left, count)?;
        assignment.insert(container, taken);
    }
    Some(assignment)
}

fn take(left: &mut Vec<&Device>, count: usize) -> Option<Vec<String>> {
    if left.len() < count {
        return None;
    }
    let mut by_numa: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    for device in left.iter() {
        *by_numa.entry(device.numa).or_default() += 1;
    }
    let best = by_numa.into_iter().filter(|(_, free)| *free >= count).min_by_key(|(_, free)| *free);
    let prefers = |device: &Device| best.is_none_or(|(numa, _)| device.numa == numa);
    let chosen: Vec<String> =
        left.iter().filter(|device| prefers(device)).take(count).map(|device| device.uuid.clone()).collect();
    left.retain(|device| !chosen.contains(&device.uuid));
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(numa: &[u32]) -> Vec<Device> {
        let device = |(index, numa): (usize, &u32)| Device {
            uuid: format!("GPU-{index}"),
            index: index as u32,
            model: "A100".into(),
            memory_mib: 81_920,
            numa: Some(*numa),
            healthy: true,
        };
        numa.iter().enumerate().map(device).collect()
    }

    fn pod(gpus: &[u32]) -> Pod {
        let containers: Vec<_> = gpus
            .iter()
            .enumerate()
            .map(|(n, count)| serde_json::json!({"name": format!("c{n}"), "resources": {"requests": {GPU: count.to_string()}}}))
            .collect();
        serde_json::from_value(serde_json::json!({"spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn a_pair_comes_from_one_numa_node_and_large_groups_stay_whole() {
        let devices = devices(&[0, 0, 0, 0, 1, 1, 1, 1]);
        let used = BTreeSet::from(["GPU-4".to_owned(), "GPU-5".to_owned()]);
        let assignment = choose(&pod(&[2]), &devices, &used).unwrap();
        assert_eq!(assignment["c0"], ["GPU-6", "GPU-7"]);
    }

    #[test]
    fn containers_get_different_devices_and_too_few_is_none() {
        let devices = devices(&[0, 0, 0]);
        let assignment = choose(&pod(&[1, 2]), &devices, &BTreeSet::new()).unwrap();
        let all: BTreeSet<_> = assignment.values().flatten().collect();
        assert_eq!(all.len(), 3);
        assert!(choose(&pod(&[4]), &devices, &BTreeSet::new()).is_none());
    }
}
