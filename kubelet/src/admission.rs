//! The node's own last word before a Pod starts: does it fit what is left here? Pure.

use std::sync::Arc;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;

use crate::{
    pod::{is_terminal, lifecycle::Verdict, spec, uid},
    resources::{ResourceList, pod_requests},
};

/// `Err` with the reason that status shows: the Pod fails without ever starting.
///
/// # Errors
/// It does not fit, in upstream's sentence.
pub fn admit(pod: &Pod, others: &[Arc<Pod>], allocatable: &ResourceList) -> Result<(), Verdict> {
    if let Some(os) = spec(pod).os.as_ref().filter(|os| os.name != "linux") {
        let message = format!("Failed to admit pod as the OS field doesn't match node OS: {}", os.name);
        return Err(Verdict { reason: "PodOSNotSupported".into(), message });
    }
    let others: Vec<&Arc<Pod>> = others.iter().filter(|other| uid(other) != uid(pod) && !is_terminal(other)).collect();
    let used = |name: &str| -> Quantity {
        let of = |other: &Arc<Pod>| pod_requests(other).get(name).map_or(Quantity::ZERO, Quantity::of);
        others.iter().map(|other| of(other)).sum()
    };
    let mut wanted = pod_requests(pod);
    wanted.insert("pods".into(), Quantity::units(1).to_text());
    for (name, amount) in &wanted {
        let amount = Quantity::of(amount);
        let used = if name == "pods" { Quantity::units(others.len() as i64) } else { used(name) };
        let capacity = allocatable.get(name).map_or(Quantity::ZERO, Quantity::of);
        if !amount.is_zero() && used + amount > capacity {
            let figure = |quantity: Quantity| if name == "cpu" { quantity.to_milli() } else { quantity.value() };
            let message = format!(
                "Pod was rejected: Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                figure(amount),
                figure(used),
                figure(capacity)
            );
            return Err(Verdict { reason: format!("OutOf{name}"), message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_counts() {
        let pod = |uid: &str, cpu: &str, phase: &str| -> Arc<Pod> {
            let pod = serde_json::json!({"metadata": {"uid": uid}, "status": {"phase": phase}, "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let allocatable: ResourceList = [("cpu", Quantity::units(2)), ("pods", Quantity::units(3))]
            .map(|(n, q)| (n.to_string(), q.to_text()))
            .into();
        let others = [pod("a", "1", "Running"), pod("b", "2", "Succeeded")];
        assert_eq!(admit(&pod("c", "1", "Pending"), &others, &allocatable), Ok(()));
        let refused = admit(&pod("c", "1500m", "Pending"), &others, &allocatable).unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert!(refused.message.ends_with("cpu, requested: 1500, used: 1000, capacity: 2000"), "{}", refused.message);
    }
}
