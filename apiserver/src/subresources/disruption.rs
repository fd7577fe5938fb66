//! Whether a PodDisruptionBudget lets one more Pod go: pure.
//!
//! Upstream believes the budget's status, which the disruption controller keeps. Where that is stale, or there is
//! no controller, the numbers are counted here from the Pods themselves.

use std::collections::BTreeMap;

use api::{Object, Status, object::ObjectExt, status::Cause};
use jiff::Timestamp;
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString},
};
use serde_json::Value;

/// The most evictions that may wait for their Pods to be gone.
const DISRUPTED_PODS_MAX: usize = 2000;
const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What a budget guards, as it is now.
#[derive(Debug, Default)]
pub(super) struct Guarded<'a> {
    /// All Pods that the budget selects.
    pub pods: Vec<&'a Object>,
    /// How many Pods there should be.
    pub expected: i32,
}

pub(super) fn is_ready(pod: &Object) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Fills in the numbers of a status that its controller has not seen to.
pub(super) fn refresh(budget: &mut PodDisruptionBudget, guarded: &Guarded<'_>) {
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.is_some_and(|observed| observed >= generation && observed > 0) {
        return;
    }
    let spec = budget.spec.clone().unwrap_or_default();
    let expected = guarded.expected;
    let desired = match (&spec.min_available, &spec.max_unavailable) {
        (Some(minimum), _) => scaled(minimum, expected),
        (None, Some(maximum)) => (expected - scaled(maximum, expected)).max(0),
        (None, None) => 0,
    };
    let disrupted = status.disrupted_pods.get_or_insert_default();
    disrupted.retain(|name, _| guarded.pods.iter().any(|pod| pod.name() == name && !pod.is_deleting()));
    let counts = |pod: &&&Object| is_ready(pod) && !pod.is_deleting() && !disrupted.contains_key(pod.name());
    let healthy = i32::try_from(guarded.pods.iter().filter(counts).count()).unwrap_or(i32::MAX);
    status.expected_pods = Some(expected);
    status.desired_healthy = Some(desired);
    status.current_healthy = Some(healthy);
    status.disruptions_allowed = Some((healthy - desired).max(0));
}

/// A count, or a part of `whole`, rounded up.
fn scaled(value: &IntOrString, whole: i32) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            i32::try_from((i64::from(whole) * percent + 99) / 100).unwrap_or(i32::MAX)
        }
    }
}

/// Whether a Pod that is not ready may go without being counted.
pub(super) fn may_go_unhealthy(budget: &PodDisruptionBudget) -> bool {
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.clone().unwrap_or_default();
    let (current, desired) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
    policy == Some("AlwaysAllow") || (current >= desired && desired > 0)
}

/// Takes one disruption from the budget for the Pod, or says why there is none.
pub(super) fn take(budget: &mut PodDisruptionBudget, pod: &str, now: Timestamp) -> Result<(), Status> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let status = budget.status.get_or_insert_default();
    let budgets = api::status::GroupResource { group: "policy", resource: "poddisruptionbudget" };
    if status.disrupted_pods.as_ref().is_some_and(|pods: &BTreeMap<_, _>| pods.len() > DISRUPTED_PODS_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(budgets, &name, why));
    }
    match status.disruptions_allowed.unwrap_or(0) {
        allowed if allowed < 0 => Err(Status::forbidden(budgets, &name, "pdb disruptions allowed is negative")),
        0 => Err(refused(&why_not(&name, status), 0)),
        allowed => {
            status.disruptions_allowed = Some(allowed - 1);
            status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), Time(now));
            Ok(())
        }
    }
}

/// 429: try again later.
pub(super) fn refused(why: &str, retry_after_seconds: u32) -> Status {
    let mut status = Status::too_many_requests(REFUSAL, retry_after_seconds);
    let details = status.details.get_or_insert_default();
    details.causes.push(Cause { reason: "DisruptionBudget".into(), message: why.into(), field: String::new() });
    details.retry_after_seconds = Some(retry_after_seconds).filter(|seconds| *seconds > 0);
    status
}

fn why_not(name: &str, status: &PodDisruptionBudgetStatus) -> String {
    let (desired, current) = (status.desired_healthy.unwrap_or(0), status.current_healthy.unwrap_or(0));
    let conditions = status.conditions.iter().flatten();
    let condition =
        conditions.into_iter().find(|condition| condition.type_ == "DisruptionAllowed" && condition.status == "False");
    match condition.filter(|condition| !condition.message.is_empty()) {
        Some(condition) if condition.reason == "SyncFailed" => {
            let why = &condition.message;
            format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}")
        }
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some(condition) => {
            let (reason, why) = (&condition.reason, &condition.message);
            format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {why}")
        }
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: bool) -> Object {
        let status = if ready { "True" } else { "False" };
        json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status}]}})
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        let object = json!({"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status});
        serde_json::from_value(object).unwrap()
    }

    fn taken(mut budget: PodDisruptionBudget, pods: &[Object], expected: i32) -> String {
        refresh(&mut budget, &Guarded { pods: pods.iter().collect(), expected });
        match take(&mut budget, "p0", "2026-01-01T00:00:00Z".parse().unwrap()) {
            Ok(()) => format!("{} left", budget.status.unwrap().disruptions_allowed.unwrap()),
            Err(status) => format!("{}: {}", status.code, status.details.unwrap().causes[0].message),
        }
    }

    #[test]
    fn numbers_are_counted_where_the_status_is_stale() {
        let pods: Vec<_> = (0..3).map(|index| pod(&format!("p{index}"), index < 2)).collect();
        assert_eq!(taken(budget(json!({"minAvailable": 1}), json!({})), &pods, 3), "0 left");
        assert_eq!(taken(budget(json!({"maxUnavailable": "34%"}), json!({})), &pods, 3), "0 left");
        let needs = "429: The disruption budget b needs 2 healthy pods and has 2 currently";
        assert_eq!(taken(budget(json!({"minAvailable": "50%"}), json!({})), &pods, 3), needs);
        let going = json!({"disruptedPods": {"p1": "2026-01-01T00:00:00Z"}});
        let needs = "429: The disruption budget b needs 1 healthy pods and has 1 currently";
        assert_eq!(taken(budget(json!({"minAvailable": 1}), going), &pods, 3), needs);
    }

    #[test]
    fn a_fresh_status_is_believed() {
        let fresh = json!({"observedGeneration": 2, "disruptionsAllowed": 2, "currentHealthy": 3, "desiredHealthy": 1});
        assert_eq!(taken(budget(json!({"minAvailable": 9}), fresh), &[], 0), "1 left");
    }
}
