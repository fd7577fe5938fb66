//! `matchLabelKeys` and `mismatchLabelKeys`: the Pod's own values become part of the selectors when it is created.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PodAffinityTerm, PodSpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};

pub fn merge_into_selectors(spec: &mut PodSpec, labels: Option<&BTreeMap<String, String>>) {
    let Some(labels) = labels else { return };
    if let Some(affinity) = &mut spec.affinity {
        if let Some(attract) = &mut affinity.pod_affinity {
            let preferred = attract.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            let required = attract.required_during_scheduling_ignored_during_execution.iter_mut().flatten();
            preferred.map(|term| &mut term.pod_affinity_term).chain(required).for_each(|term| merge_term(term, labels));
        }
        if let Some(repel) = &mut affinity.pod_anti_affinity {
            let preferred = repel.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            let required = repel.required_during_scheduling_ignored_during_execution.iter_mut().flatten();
            preferred.map(|term| &mut term.pod_affinity_term).chain(required).for_each(|term| merge_term(term, labels));
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        if let Some(selector) = &mut constraint.label_selector {
            merge(selector, constraint.match_label_keys.as_deref(), "In", labels);
        }
    }
}

fn merge_term(term: &mut PodAffinityTerm, labels: &BTreeMap<String, String>) {
    // No selector matches nothing, and stays so.
    let Some(selector) = &mut term.label_selector else { return };
    merge(selector, term.match_label_keys.as_deref(), "In", labels);
    merge(selector, term.mismatch_label_keys.as_deref(), "NotIn", labels);
}

fn merge(selector: &mut LabelSelector, keys: Option<&[String]>, operator: &str, labels: &BTreeMap<String, String>) {
    for key in keys.unwrap_or_default() {
        let Some(value) = labels.get(key) else { continue };
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.into(),
            values: Some(vec![value.clone()]),
        });
    }
}
