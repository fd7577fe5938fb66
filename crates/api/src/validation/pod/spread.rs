//! Topology spread constraints, and label keys whose values a selector takes from the Pod itself.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::LabelSelector};

use crate::{
    field::{Errors, Path},
    validation::{meta, validate_label_selector},
};

const NOT_POSITIVE: &str = "must be greater than zero";
const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const POLICIES: &[&str] = &["Honor", "Ignore"];

pub fn validate(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let action = constraint.when_unsatisfiable.as_str();
        if constraint.max_skew <= 0 {
            errors.invalid(&path.child("maxSkew"), constraint.max_skew, NOT_POSITIVE);
        }
        if constraint.topology_key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !ACTIONS.contains(&action) {
            errors.not_supported(&path.child("whenUnsatisfiable"), action, ACTIONS);
        }
        let pair = (&constraint.topology_key, &constraint.when_unsatisfiable);
        if constraints[index + 1..].iter().any(|other| (&other.topology_key, &other.when_unsatisfiable) == pair) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&path, format!("{{{}, {}}}", pair.0, pair.1));
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.invalid(&path, domains, NOT_POSITIVE);
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&path, domains, why);
            }
        }
        let policies = [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ];
        for (field, policy) in policies {
            if let Some(policy) = policy.as_deref().filter(|policy| !POLICIES.contains(policy)) {
                errors.not_supported(&path.child(field), policy, POLICIES);
            }
        }
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        validate_match_label_keys(keys, &[], constraint.label_selector.as_ref(), &path, errors);
        validate_label_selector(constraint.label_selector.as_ref(), &path.child("labelSelector"), errors);
    }
}

/// Keys that the Pod's labels must match, and must not; `path` leads to what holds both lists.
pub fn validate_match_label_keys(
    matching: &[String],
    differing: &[String],
    selector: Option<&LabelSelector>,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("matchLabelKeys");
    for (keys, at) in [(matching, &at), (differing, &path.child("mismatchLabelKeys"))] {
        if !keys.is_empty() && selector.is_none() {
            errors.forbidden(at, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            meta::validate_label_name(key, &at.index(index), errors);
        }
    }
    // The selector holds what `matchLabelKeys` put there already: only a second mention is the user's own.
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    seen.extend(
        selector.iter().flat_map(|selector| selector.match_labels.iter().flatten()).map(|(key, _)| key.as_str()),
    );
    for expression in selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten()) {
        if let Some(index) = matching.iter().rposition(|key| *key == expression.key)
            && seen.contains(expression.key.as_str())
        {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.invalid(&path.index(index), &expression.key, why);
        }
        seen.insert(&expression.key);
    }
    for (index, key) in matching.iter().enumerate().filter(|(_, key)| differing.contains(key)) {
        errors.invalid(&at.index(index), key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}
