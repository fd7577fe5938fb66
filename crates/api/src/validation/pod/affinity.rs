//! Affinity to nodes and to other Pods.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    WeightedPodAffinityTerm,
};

use super::spread::validate_match_label_keys;
use crate::{
    field::{Errors, Path},
    names,
    validation::{check, meta, validate_label_selector},
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn validate(affinity: Option<&Affinity>, path: &Path, errors: &mut Errors) {
    let Some(affinity) = affinity else { return };
    if let Some(nodes) = &affinity.node_affinity {
        validate_node_affinity(nodes, &path.child("nodeAffinity"), errors);
    }
    if let Some(pods) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        validate_terms(required.unwrap_or_default(), &path.child(REQUIRED), errors);
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        validate_weighted_terms(preferred.unwrap_or_default(), &path.child(PREFERRED), errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        validate_terms(required.unwrap_or_default(), &path.child(REQUIRED), errors);
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        validate_weighted_terms(preferred.unwrap_or_default(), &path.child(PREFERRED), errors);
    }
}

fn validate_weight(weight: i32, path: &Path, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn validate_node_affinity(affinity: &NodeAffinity, path: &Path, errors: &mut Errors) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        validate_node_selector(selector, &path.child(REQUIRED), errors);
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (index, term) in preferred.enumerate() {
        let path = path.child(PREFERRED).index(index);
        validate_weight(term.weight, &path, errors);
        // A preference with an impossible value is a preference that nothing meets.
        validate_node_selector_term(&term.preference, false, &path.child("preference"), errors);
    }
}

/// Terms, one of which must hold.
pub fn validate_node_selector(selector: &NodeSelector, path: &Path, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        return errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        validate_node_selector_term(term, true, &path.index(index), errors);
    }
}

/// One term; `check_values`: whether values must be possible values of labels.
pub fn validate_node_selector_term(term: &NodeSelectorTerm, check_values: bool, path: &Path, errors: &mut Errors) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        validate_requirement(requirement, check_values, &path.child("matchExpressions").index(index), errors);
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        validate_field_requirement(requirement, &path.child("matchFields").index(index), errors);
    }
}

fn validate_requirement(requirement: &NodeSelectorRequirement, check_values: bool, path: &Path, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    match (requirement.operator.as_str(), values.len()) {
        ("In" | "NotIn", 0) => errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'"),
        ("Exists" | "DoesNotExist", 1..) => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        ("Gt" | "Lt", 0 | 2..) => {
            errors.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
        (other, _) => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    meta::validate_label_name(&requirement.key, &path.child("key"), errors);
    for (index, value) in values.iter().enumerate().filter(|_| check_values) {
        check(names::is_valid_label_value(value), value, &at.index(index), errors);
    }
}

fn validate_field_requirement(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    match (requirement.operator.as_str(), values.len()) {
        ("In" | "NotIn", 1) => {}
        ("In" | "NotIn", _) => {
            errors.required(&at, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
        }
        (other, _) => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    if requirement.key != "metadata.name" {
        return errors.invalid(&path.child("key"), &requirement.key, "not a valid field selector key");
    }
    for (index, value) in values.iter().enumerate() {
        check(names::is_dns1123_subdomain(value), value, &at.index(index), errors);
    }
}

fn validate_terms(terms: &[PodAffinityTerm], path: &Path, errors: &mut Errors) {
    for (index, term) in terms.iter().enumerate() {
        validate_term(term, &path.index(index), errors);
    }
}

fn validate_weighted_terms(terms: &[WeightedPodAffinityTerm], path: &Path, errors: &mut Errors) {
    for (index, term) in terms.iter().enumerate() {
        let path = path.index(index);
        validate_weight(term.weight, &path, errors);
        validate_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn validate_term(term: &PodAffinityTerm, path: &Path, errors: &mut Errors) {
    validate_label_selector(term.label_selector.as_ref(), &path.child("labelSelector"), errors);
    validate_label_selector(term.namespace_selector.as_ref(), &path.child("namespaceSelector"), errors);
    for namespace in term.namespaces.iter().flatten() {
        check(names::is_dns1123_label(namespace), namespace, &path.child("namespace"), errors);
    }
    let matching = term.match_label_keys.as_deref().unwrap_or_default();
    let differing = term.mismatch_label_keys.as_deref().unwrap_or_default();
    validate_match_label_keys(matching, differing, term.label_selector.as_ref(), path, errors);
    let at = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.required(&at, "can not be empty");
    }
    meta::validate_label_name(&term.topology_key, &at, errors);
}
