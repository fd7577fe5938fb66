//! Binding: a Pod gets its node, once.

use k8s_openapi::{
    api::core::v1::{Binding, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::field::{Errors, Path};

/// What a Binding must say.
pub fn validate(binding: &Binding, errors: &mut Errors) {
    let target = Path::new("target");
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.not_supported(&target.child("kind"), kind, &["Node", "<empty>"]);
    }
    if binding.target.name.as_deref().unwrap_or_default().is_empty() {
        errors.required(&target.child("name"), "");
    }
}

/// Puts the Pod on the node that the Binding names. `now` is the condition's transition time.
///
/// # Errors
/// The sentence for a `Conflict`: the Pod is being deleted, has a node, or is gated.
pub fn assign(pod: &mut Pod, binding: &Binding, now: Time) -> Result<(), String> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let spec = pod.spec.get_or_insert_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = spec.node_name.as_ref().filter(|node| !node.is_empty()) {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name.clone_from(&binding.target.name);
    let extra = |theirs: &Option<_>| theirs.clone().unwrap_or_default();
    pod.metadata.annotations.get_or_insert_default().extend(extra(&binding.metadata.annotations));
    pod.metadata.labels.get_or_insert_default().extend(extra(&binding.metadata.labels));
    let status = pod.status.get_or_insert_default();
    status.nominated_node_name = None;
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(now),
        ..PodCondition::default()
    });
    Ok(())
}
