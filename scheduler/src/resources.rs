//! Amounts of resources, and how much of them a Pod asks for.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};

/// What nodes have and Pods request. Integers only; text is rounded up, as upstream does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Resources {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
    /// Everything else by name: `nvidia.com/gpu`, `hugepages-2Mi`, ...
    pub scalar: BTreeMap<String, i64>,
}

/// Requests that scoring assumes for containers that name none (upstream: `GetNonzeroRequests`).
const CPU_MILLIS_DEFAULT: i64 = 100;
const MEMORY_BYTES_DEFAULT: i64 = 200 * 1024 * 1024;

impl Resources {
    pub fn from_list(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut resources = Self::default();
        for (name, amount) in list.into_iter().flatten() {
            resources.set(name, amount);
        }
        resources
    }

    fn set(&mut self, name: &str, amount: &Text) {
        let amount = Quantity::of(amount);
        match name {
            "cpu" => self.cpu_millis = amount.to_milli(),
            "memory" => self.memory_bytes = amount.value(),
            "ephemeral-storage" => self.ephemeral_storage_bytes = amount.value(),
            "pods" => {}
            other => drop(self.scalar.insert(other.to_owned(), amount.value())),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a - b);
    }

    /// The larger of each.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, op: impl Fn(i64, i64) -> i64) {
        self.cpu_millis = op(self.cpu_millis, other.cpu_millis);
        self.memory_bytes = op(self.memory_bytes, other.memory_bytes);
        self.ephemeral_storage_bytes = op(self.ephemeral_storage_bytes, other.ephemeral_storage_bytes);
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = op(*own, *amount);
        }
    }
}

/// What a Pod requests in all: containers and sidecars together, or its hungriest init step; plus overhead.
pub fn requested(pod: &Pod) -> Resources {
    total(pod, |container| {
        Resources::from_list(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    })
}

/// The same for scoring: containers that request no CPU or memory count with a usual amount.
pub fn requested_or_usual(pod: &Pod) -> Resources {
    total(pod, |container| {
        let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut resources = Resources::from_list(list);
        if !list.is_some_and(|list| list.contains_key("cpu")) {
            resources.cpu_millis = CPU_MILLIS_DEFAULT;
        }
        if !list.is_some_and(|list| list.contains_key("memory")) {
            resources.memory_bytes = MEMORY_BYTES_DEFAULT;
        }
        resources
    })
}

fn total(pod: &Pod, of: impl Fn(&Container) -> Resources) -> Resources {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let mut running = Resources::default();
    spec.containers.iter().for_each(|container| running.add(&of(container)));
    let (mut sidecars, mut init_peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut step = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&step);
            step = sidecars.clone();
        } else {
            step.add(&sidecars);
        }
        init_peak.raise_to(&step);
    }
    running.add(&sidecars);
    running.raise_to(&init_peak);
    if let Some(declared) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let declared = Resources::from_list(Some(declared));
        if declared.cpu_millis > 0 {
            running.cpu_millis = declared.cpu_millis;
        }
        if declared.memory_bytes > 0 {
            running.memory_bytes = declared.memory_bytes;
        }
    }
    running.add(&Resources::from_list(spec.overhead.as_ref()));
    running
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_containers_raise_and_sidecars_add() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m", "nvidia.com/gpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "200m", "memory": "1Gi"}}}],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "1"}}}],
            "overhead": {"cpu": "10m"}}}))
        .unwrap();
        let resources = requested(&pod);
        assert_eq!(resources.cpu_millis, 1050 + 10);
        assert_eq!(resources.memory_bytes, 1 << 30);
        assert_eq!(resources.scalar["nvidia.com/gpu"], 1);
        assert_eq!(requested_or_usual(&pod).memory_bytes, (1 << 30) + 2 * MEMORY_BYTES_DEFAULT);
    }
}
