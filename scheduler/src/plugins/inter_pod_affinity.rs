//! Pods that want to be near others, or away from them; and those that others want to be away from.

use std::collections::{BTreeMap, BTreeSet};

use super::{FilterNode, ScoreNode, Unfit};
use crate::{
    node::NodeInfo,
    pod::{AffinityTerm, PodInfo},
    snapshot::Snapshot,
};

pub const REASON_AFFINITY: &str = "node(s) didn't match pod affinity rules";
pub const REASON_ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
pub const REASON_EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Topology key and value.
type Domain = (String, String);

fn domain(node: &NodeInfo, key: &str) -> Option<Domain> {
    Some((key.to_owned(), node.label(key)?.to_owned()))
}

/// The domains that hold a Pod that the term speaks of.
fn domains_with_match(term: &AffinityTerm, snapshot: &Snapshot) -> BTreeSet<Domain> {
    let matching =
        snapshot.pods().filter(|(_, other)| term.matches(other, snapshot.namespace_labels(other.namespace())));
    matching.filter_map(|(node, _)| domain(node, &term.topology_key)).collect()
}

/// The domains that running Pods keep this one away from.
fn forbidden_by_others(pod: &PodInfo, snapshot: &Snapshot) -> BTreeSet<Domain> {
    let labels = snapshot.namespace_labels(pod.namespace());
    let mut forbidden = BTreeSet::new();
    if snapshot.anti_affinity_pods == 0 {
        return forbidden;
    }
    for node in snapshot.nodes.values().filter(|node| node.anti_affinity_pods > 0) {
        let terms = node.pods.values().flat_map(|other| &other.required_anti_affinity);
        forbidden
            .extend(terms.filter(|term| term.matches(pod, labels)).filter_map(|term| domain(node, &term.topology_key)));
    }
    forbidden
}

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<FilterNode<'a>> {
    let forbidden = forbidden_by_others(pod, snapshot);
    if forbidden.is_empty() && pod.required_affinity.is_empty() && pod.required_anti_affinity.is_empty() {
        return None;
    }
    let near: Vec<_> = pod.required_affinity.iter().map(|term| (term, domains_with_match(term, snapshot))).collect();
    let away: Vec<_> =
        pod.required_anti_affinity.iter().map(|term| (term, domains_with_match(term, snapshot))).collect();
    // The first Pod of a group that wants to be together: no match anywhere, but it matches itself.
    let labels = snapshot.namespace_labels(pod.namespace());
    let is_first_of_its_group =
        near.iter().all(|(term, domains)| domains.is_empty() && term.matches(pod, labels)) && !near.is_empty();
    Some(Box::new(move |node| {
        for (term, domains) in &near {
            let Some(here) = domain(node, &term.topology_key) else { return Err(Unfit::for_good(REASON_AFFINITY)) };
            if !domains.contains(&here) && !is_first_of_its_group {
                return Err(Unfit::for_good(REASON_AFFINITY));
            }
        }
        let is_kept_away = |(term, domains): &(&AffinityTerm, BTreeSet<Domain>)| {
            domain(node, &term.topology_key).is_some_and(|here| domains.contains(&here))
        };
        if away.iter().any(is_kept_away) {
            return Err(Unfit::until_others_leave(REASON_ANTI_AFFINITY));
        }
        let is_forbidden = |(key, value): &Domain| node.label(key) == Some(value);
        if forbidden.iter().any(is_forbidden) {
            return Err(Unfit::until_others_leave(REASON_EXISTING));
        }
        Ok(())
    }))
}

/// Sums the weights of preferred terms, this Pod's over others and others' over this one.
pub fn score<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<ScoreNode<'a>> {
    /// What a required affinity of a running Pod is worth to those that it wants near.
    const HARD_AFFINITY_WEIGHT: i64 = 1;
    let own_labels = snapshot.namespace_labels(pod.namespace());
    let mut weights: BTreeMap<Domain, i64> = BTreeMap::new();
    let mut add = |node: &NodeInfo, key: &str, weight: i64| {
        if let Some(domain) = domain(node, key) {
            *weights.entry(domain).or_default() += weight;
        }
    };
    for (node, other) in snapshot.pods() {
        let labels = snapshot.namespace_labels(other.namespace());
        for term in pod.preferred.iter().filter(|term| term.matches(other, labels)) {
            add(node, &term.topology_key, term.weight);
        }
        for term in other.preferred.iter().filter(|term| term.matches(pod, own_labels)) {
            add(node, &term.topology_key, term.weight);
        }
        for term in other.required_affinity.iter().filter(|term| term.matches(pod, own_labels)) {
            add(node, &term.topology_key, HARD_AFFINITY_WEIGHT);
        }
    }
    if weights.is_empty() {
        return None;
    }
    Some(Box::new(move |node| {
        weights.iter().filter(|((key, value), _)| node.label(key) == Some(value)).map(|(_, weight)| weight).sum()
    }))
}
