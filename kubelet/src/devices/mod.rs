//! The GPUs of this node: found by NVML, or read from a simulated inventory.
//!
//! They are published as `nvidia.com/gpu` and, each by UUID, in a Node annotation; the scheduler writes its choice on
//! the Pod; the kubelet gives containers exactly these.

mod nvml;
mod simulated;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{resources::request, runtime::Devices};

pub use api::devices::{ASSIGNMENT_ANNOTATION, Device, GPU as RESOURCE, INVENTORY_ANNOTATION};

/// What GPUs there are. Asked again at each node status.
pub trait Inventory: Send + Sync + 'static {
    fn devices(&self) -> Vec<Device>;
    /// False for simulated ones, which Docker knows nothing of.
    fn is_real(&self) -> bool;
    fn driver_version(&self) -> Option<String>;
}

/// The simulated inventory where a file is given, else what NVML finds; no NVML means no GPUs. A hollow node has no
/// others than those of its file.
///
/// # Errors
/// The file cannot be read.
pub fn discover(file: Option<&Path>, hollow: bool) -> anyhow::Result<Arc<dyn Inventory>> {
    Ok(match file {
        Some(file) => Arc::new(simulated::Simulated::read(file)?),
        None if hollow => Arc::new(simulated::Simulated::default()),
        None => Arc::new(nvml::Real::open()),
    })
}

/// Labels as the GPU feature discovery of NVIDIA writes them.
pub fn labels(inventory: &dyn Inventory) -> BTreeMap<String, String> {
    let devices = inventory.devices();
    let Some(first) = devices.first() else { return BTreeMap::new() };
    let mut labels: BTreeMap<String, String> = [
        ("nvidia.com/gpu.present", "true".to_string()),
        ("nvidia.com/gpu.count", devices.len().to_string()),
        ("nvidia.com/gpu.product", label_value(&first.model)),
        ("nvidia.com/gpu.memory", first.memory_mib.to_string()),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into();
    if let Some((major, rest)) = inventory.driver_version().as_deref().and_then(|version| version.split_once('.')) {
        labels.insert("nvidia.com/cuda.driver.major".into(), major.into());
        labels.insert("nvidia.com/cuda.driver.minor".into(), rest.split('.').next().unwrap_or_default().into());
    }
    labels
}

fn label_value(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let text: String = text.chars().map(allowed).take(63).collect();
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_string()
}

/// The devices that the scheduler chose for a container; `None` when it wants none.
///
/// # Errors
/// It wants some, and the choice is missing or does not fit this node: no container is started then.
pub fn assigned(pod: &Pod, container: &Container, inventory: &dyn Inventory) -> Result<Option<Devices>, String> {
    let wanted = request(container, RESOURCE).map_or(0, Quantity::value);
    if wanted <= 0 {
        return Ok(None);
    }
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ASSIGNMENT_ANNOTATION));
    let choice: BTreeMap<String, Vec<String>> =
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let uuids = choice.get(&container.name).cloned().unwrap_or_default();
    if uuids.len() as i64 != wanted {
        return Err(format!(
            "container {} requests {wanted} {RESOURCE}, but annotation {ASSIGNMENT_ANNOTATION} names {} devices for it",
            container.name,
            uuids.len()
        ));
    }
    let present = inventory.devices();
    if let Some(missing) = uuids.iter().find(|uuid| !present.iter().any(|device| device.uuid == **uuid)) {
        return Err(format!("device {missing} chosen for container {} is not on this node", container.name));
    }
    Ok(Some(Devices { uuids, real: inventory.is_real() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl Inventory for Two {
        fn devices(&self) -> Vec<Device> {
            let device = |index| Device {
                uuid: format!("GPU-{index}"),
                index,
                model: "NVIDIA A100 80GB".into(),
                memory_mib: 81_920,
                numa: None,
                healthy: true,
            };
            vec![device(0), device(1)]
        }

        fn is_real(&self) -> bool {
            false
        }

        fn driver_version(&self) -> Option<String> {
            None
        }
    }

    #[test]
    fn a_container_gets_exactly_what_was_chosen() {
        let pod = |choice: &str| -> (Pod, Container) {
            let container = serde_json::json!({"name": "c", "resources": {"requests": {RESOURCE: "1"}}});
            let pod = serde_json::json!({"metadata": {"annotations": {ASSIGNMENT_ANNOTATION: choice}},
                                         "spec": {"containers": [container]}});
            (serde_json::from_value(pod).unwrap(), serde_json::from_value(container).unwrap())
        };
        let get = |choice| {
            let (pod, container) = pod(choice);
            assigned(&pod, &container, &Two)
        };
        assert_eq!(get(r#"{"c":["GPU-1"]}"#).unwrap().unwrap().uuids, ["GPU-1"]);
        assert!(get("{}").unwrap_err().contains("names 0 devices"));
        assert!(get(r#"{"c":["GPU-9"]}"#).unwrap_err().contains("not on this node"));
        assert_eq!(labels(&Two)["nvidia.com/gpu.product"], "NVIDIA-A100-80GB");
    }
}
