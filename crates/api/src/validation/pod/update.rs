//! What may change in a Pod that exists: little.

use k8s_openapi::api::core::v1::{Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSpec};
use serde::Serialize;
use serde_json::Value;

use super::{MIRROR_POD, annotations::APP_ARMOR_CONTAINER};
use crate::{
    field::{Errors, Path},
    names,
};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                          `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
                          to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                          previously negative)";

/// Through the Pod itself; `new` has been judged as a Pod before.
pub fn validate_pod_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    validate_annotations(new, old, errors);
    let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let path = Path::new("spec");
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    if !validate_images(&new.containers, &old.containers, &path.child("containers"), errors)
        || !validate_images(&init(&new), &init(&old), &path.child("initContainers"), errors)
        || !validate_deadline(&new, &old, &path.child("activeDeadlineSeconds"), errors)
    {
        return;
    }
    validate_tolerations_kept(&new, &old, &path.child("tolerations"), errors);
    validate_gates_only_go(&new, &old, &path.child("schedulingGates"), errors);
    let mut masked = masked(&new, &old);
    if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        validate_gated(&mut masked, &old, &path, errors);
    }
    let changes = changes(&old, &masked);
    if !changes.is_empty() {
        errors.forbidden(&path, format!("{MAY_CHANGE}\n{changes}"));
    }
}

/// The new spec with everything that may change put back to what it was.
fn masked(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut masked = new.clone();
    let put_back = |new: &mut [Container], old: &[Container]| {
        for (new, old) in new.iter_mut().zip(old) {
            new.image.clone_from(&old.image);
        }
    };
    put_back(&mut masked.containers, &old.containers);
    let old_init_containers = old.init_containers.as_deref().unwrap_or_default();
    put_back(masked.init_containers.as_deref_mut().unwrap_or_default(), old_init_containers);
    masked.active_deadline_seconds = old.active_deadline_seconds;
    masked.scheduling_gates.clone_from(&old.scheduling_gates);
    masked.tolerations.clone_from(&old.tolerations);
    let was_negative = old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0);
    if was_negative && masked.termination_grace_period_seconds == Some(1) {
        masked.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    masked
}

/// Annotations that decide how the Pod runs stay.
pub fn validate_annotations(new: &Pod, old: &Pod, errors: &mut Errors) {
    let path = Path::new("metadata").child("annotations");
    let (new, old) = (new.metadata.annotations.clone(), old.metadata.annotations.clone());
    let (new, old) = (new.unwrap_or_default(), old.unwrap_or_default());
    let mut forbid = |key: &str, verb: &str| {
        if key.starts_with(APP_ARMOR_CONTAINER) {
            errors.forbidden(&path.key(key), format!("may not {verb} AppArmor annotations"));
        } else if key == MIRROR_POD {
            errors.forbidden(&path.key(key), format!("may not {verb} mirror pod annotation"));
        }
    };
    old.iter().filter(|(key, value)| new.get(*key) != Some(value)).for_each(|(key, _)| forbid(key, "remove or update"));
    new.keys().filter(|key| !old.contains_key(*key)).for_each(|key| forbid(key, "add"));
}

/// Returns whether the containers are the same ones.
fn validate_images(new: &[Container], old: &[Container], path: &Path, errors: &mut Errors) -> bool {
    if new.len() != old.len() {
        errors.forbidden(path, "pod updates may not add or remove containers");
        return false;
    }
    for (index, container) in new.iter().enumerate() {
        let (image, path) = (container.image.as_deref().unwrap_or_default(), path.index(index).child("image"));
        if image.is_empty() {
            errors.required(&path, "");
        }
        if image.trim() != image {
            errors.invalid(&path, image, "must not have leading or trailing whitespace");
        }
    }
    true
}

/// A deadline may be set, and may come nearer.
fn validate_deadline(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(path, new, names::inclusive_range(0, i64::from(i32::MAX)));
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn validate_tolerations_kept(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let kept = |toleration: &k8s_openapi::api::core::v1::Toleration| {
        new.tolerations.iter().flatten().any(|new| {
            let mut same_seconds = toleration.clone();
            same_seconds.toleration_seconds = new.toleration_seconds;
            same_seconds == *new
        })
    };
    if !old.tolerations.iter().flatten().all(kept) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn validate_gates_only_go(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let before = old.scheduling_gates.as_deref().unwrap_or_default();
    for (index, gate) in new.scheduling_gates.iter().flatten().enumerate().filter(|(_, gate)| !before.contains(gate)) {
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.forbidden(&path.index(index).child("name"), why);
    }
}

/// While it is gated, a Pod's choice of nodes may become narrower.
fn validate_gated(masked: &mut PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let selector = masked.node_selector.clone().unwrap_or_default();
    let is_kept = |(key, value): (&String, &String)| selector.get(key) == Some(value);
    if !old.node_selector.iter().flatten().all(is_kept) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&path.child("nodeSelector"), &selector, why);
    }
    masked.node_selector.clone_from(&old.node_selector);
    let of_nodes = |spec: &PodSpec| spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let (new_nodes, old_nodes) = (of_nodes(masked), of_nodes(old));
    if changes(&old_nodes, &new_nodes).is_empty() {
        return;
    }
    let path = path.child("affinity").child("nodeAffinity");
    validate_node_affinity(new_nodes.as_ref(), old_nodes.as_ref(), &path, errors);
    let mut affinity = masked.affinity.take().unwrap_or_default();
    affinity.node_affinity = old_nodes;
    let is_bare = affinity == Affinity::default() && old.affinity.is_none();
    masked.affinity = (!is_bare).then_some(affinity);
}

fn validate_node_affinity(new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, path: &Path, errors: &mut Errors) {
    let terms = |affinity: Option<&NodeAffinity>| {
        let required = affinity.and_then(|all| all.required_during_scheduling_ignored_during_execution.as_ref());
        required.map(|selector| selector.node_selector_terms.clone()).unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(&path, &new, why);
    }
    for (index, (new, old)) in new.iter().zip(&old).enumerate() {
        if !only_adds(new, old) {
            errors.invalid(&path.index(index), new, "only additions are allowed (no mutations or deletions)");
        }
    }
}

fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let starts_with = |new: &Option<Vec<_>>, old: &Option<Vec<_>>| {
        new.as_deref().unwrap_or_default().starts_with(old.as_deref().unwrap_or_default())
    };
    let is_blank = |term: &NodeSelectorTerm| {
        term.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && term.match_fields.as_ref().is_none_or(Vec::is_empty)
    };
    // An empty term selects nothing: with requirements it would select something.
    (!is_blank(old) || is_blank(new))
        && starts_with(&new.match_expressions, &old.match_expressions)
        && starts_with(&new.match_fields, &old.match_fields)
}

/// What differs, one line a side; empty where nothing does. What is blank on one side and missing on the other is equal.
pub fn changes<T: Serialize>(old: &T, new: &T) -> String {
    let as_value = |object: &T| serde_json::to_value(object).unwrap_or(Value::Null);
    let mut lines = String::new();
    diff("", &as_value(old), &as_value(new), &mut lines);
    lines
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_blank),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn diff(path: &str, old: &Value, new: &Value, lines: &mut String) {
    if old == new || (is_blank(old) && is_blank(new)) {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<_> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let side = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or(Value::Null);
                diff(&format!("{path}.{key}"), &side(old), &side(new), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                let side = |items: &[Value]| items.get(index).cloned().unwrap_or(Value::Null);
                diff(&format!("{path}[{index}]"), &side(old), &side(new), lines);
            }
        }
        _ => {
            let path = path.trim_start_matches('.');
            for (sign, value) in [('-', old), ('+', new)].into_iter().filter(|(_, value)| !value.is_null()) {
                lines.push_str(&format!("{sign} {path}: {value}\n"));
            }
        }
    }
}
