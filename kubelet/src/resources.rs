//! From requests and limits to what the kernel is told. Pure.

use std::collections::BTreeMap;

use api::{kinds::core::pod::resources, quantity::Quantity};
use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use crate::{
    pod::{is_sidecar, spec},
    runtime::Resources,
};

pub type ResourceList = BTreeMap<String, Text>;

/// The least that Linux accepts.
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_PER_CORE: i64 = 1024;
const CPU_SHARES_MAX: i64 = 262_144;
/// The least quota that Linux accepts: 1 ms in a period of 100 ms.
const NANO_CPUS_MIN: i64 = 10_000_000;
const NANOS_PER_MILLI: i64 = 1_000_000;
/// Docker refuses less.
const MEMORY_BYTES_MIN: i64 = 6 * 1024 * 1024;

const OOM_GUARANTEED: i64 = -997;
const OOM_BEST_EFFORT: i64 = 1000;
/// Priority of Pods that the node itself depends on.
const NODE_CRITICAL_PRIORITY: i32 = 2_000_001_000;

pub fn qos_class(pod: &Pod) -> &'static str {
    resources::qos_class(spec(pod))
}

/// What a Pod takes from its node.
pub fn pod_requests(pod: &Pod) -> ResourceList {
    resources::pod_requests(spec(pod))
}

pub fn quantity(list: Option<&ResourceList>, name: &str) -> Option<Quantity> {
    list.and_then(|list| list.get(name)).map(Quantity::of)
}

pub fn request(container: &Container, name: &str) -> Option<Quantity> {
    quantity(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()), name)
}

pub fn limit(container: &Container, name: &str) -> Option<Quantity> {
    quantity(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()), name)
}

/// The kernel's terms for one container.
pub fn of_container(pod: &Pod, container: &Container, machine_memory_bytes: i64, pids: Option<i64>) -> Resources {
    let cpu_limit = limit(container, "cpu").filter(|limit| !limit.is_zero());
    let cpu_request = request(container, "cpu").or(cpu_limit);
    let pod_limit = |name| quantity(spec(pod).resources.as_ref().and_then(|own| own.limits.as_ref()), name);
    let memory = limit(container, "memory").or_else(|| pod_limit("memory")).filter(|limit| !limit.is_zero());
    let cpu_limit = cpu_limit.or_else(|| pod_limit("cpu")).filter(|limit| !limit.is_zero());
    Resources {
        cpu_shares: Some(cpu_shares(cpu_request.map_or(0, Quantity::to_milli))),
        nano_cpus: cpu_limit.map(|limit| (limit.to_milli().saturating_mul(NANOS_PER_MILLI)).max(NANO_CPUS_MIN)),
        memory_bytes: memory.map(|limit| limit.value().max(MEMORY_BYTES_MIN)),
        pids,
        oom_score_adj: oom_score_adj(pod, container, machine_memory_bytes),
    }
}

fn cpu_shares(milli: i64) -> i64 {
    (milli.saturating_mul(CPU_SHARES_PER_CORE) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// Who is killed first when memory is short: the more a Burstable container asked for, the later.
fn oom_score_adj(pod: &Pod, container: &Container, machine_memory_bytes: i64) -> i64 {
    if spec(pod).priority.unwrap_or_default() >= NODE_CRITICAL_PRIORITY {
        return OOM_GUARANTEED;
    }
    match qos_class(pod) {
        "Guaranteed" => return OOM_GUARANTEED,
        "BestEffort" => return OOM_BEST_EFFORT,
        _ => {}
    }
    let asked = |container: &Container| request(container, "memory").map_or(0, Quantity::value);
    let mut memory = asked(container);
    if is_sidecar(container) {
        memory = memory.max(spec(pod).containers.iter().map(asked).min().unwrap_or_default());
    }
    let share = 1000i128 * i128::from(memory) / i128::from(machine_memory_bytes.max(1));
    let adj = 1000 - i64::try_from(share).unwrap_or(1000);
    adj.clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(requests: serde_json::Value, limits: serde_json::Value) -> Resources {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": [
            {"name": "a", "resources": {"requests": requests, "limits": limits}}]}}))
        .unwrap();
        of_container(&pod, &spec(&pod).containers[0], 10 << 30, None)
    }

    #[test]
    fn requests_and_limits_in_the_kernels_terms() {
        let nothing = serde_json::json!({});
        let best_effort = resources(nothing.clone(), nothing.clone());
        assert_eq!((best_effort.cpu_shares, best_effort.nano_cpus, best_effort.oom_score_adj), (Some(2), None, 1000));
        let burstable = resources(serde_json::json!({"cpu": "250m", "memory": "1Gi"}), serde_json::json!({"cpu": "1"}));
        assert_eq!(burstable.cpu_shares, Some(256));
        assert_eq!(burstable.nano_cpus, Some(1_000_000_000));
        assert_eq!(burstable.oom_score_adj, 900);
        let both = serde_json::json!({"cpu": "1", "memory": "1Gi"});
        let guaranteed = resources(both.clone(), both);
        assert_eq!((guaranteed.memory_bytes, guaranteed.oom_score_adj), (Some(1 << 30), -997));
    }
}
