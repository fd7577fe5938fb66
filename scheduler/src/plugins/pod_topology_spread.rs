//! Spreads Pods over zones, hosts or any other topology: as the Pod asks, or by its owner otherwise.

use std::collections::BTreeMap;

use api::selector::Selector;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::{FilterNode, ScoreNode, Unfit, node_affinity, taint_toleration};
use crate::{
    node::NodeInfo,
    pod::{PodInfo, selector_of},
    snapshot::Snapshot,
};

pub const REASON: &str = "node(s) didn't match pod topology spread constraints";
pub const REASON_NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// Spread of Pods that name no constraint, by owner (upstream: system default constraints).
const DEFAULTS: [(&str, i64); 2] = [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)];

/// Which Pods are counted.
enum Counted {
    Selected(Selector),
    /// Those of the same controller.
    OwnedBy(String),
}

struct Constraint<'a> {
    key: &'a str,
    max_skew: i64,
    min_domains: i64,
    counted: Counted,
    honors_affinity: bool,
    honors_taints: bool,
}

impl<'a> Constraint<'a> {
    fn new(constraint: &'a TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let mut selector = constraint.label_selector.clone();
        if let Some(selector) = &mut selector {
            let labels = selector.match_labels.get_or_insert_default();
            for key in constraint.match_label_keys.iter().flatten() {
                if let Some(value) = pod.labels().get(key) {
                    labels.insert(key.clone(), value.clone());
                }
            }
        }
        Self {
            key: &constraint.topology_key,
            max_skew: i64::from(constraint.max_skew),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            counted: Counted::Selected(selector_of(selector.as_ref())),
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    fn counts(&self, pod: &PodInfo) -> bool {
        match &self.counted {
            Counted::Selected(selector) => selector.matches(pod.labels()),
            Counted::OwnedBy(uid) => pod.owner_uid() == Some(uid),
        }
    }

    /// Pods in each domain, over the nodes that take part.
    fn domains(&self, pod: &PodInfo, snapshot: &Snapshot) -> BTreeMap<String, i64> {
        let affinity = node_affinity::filter(pod, snapshot).filter(|_| self.honors_affinity);
        let taints = taint_toleration::filter(pod, snapshot).filter(|_| self.honors_taints);
        let takes_part = |node: &NodeInfo| {
            affinity.as_ref().is_none_or(|fits| fits(node).is_ok())
                && taints.as_ref().is_none_or(|fits| fits(node).is_ok())
        };
        let mut domains = BTreeMap::new();
        for node in snapshot.nodes.values().filter(|node| takes_part(node)) {
            let Some(value) = node.label(self.key) else { continue };
            let here = node
                .pods
                .values()
                .filter(|other| !other.is_deleting() && other.namespace() == pod.namespace() && self.counts(other));
            *domains.entry(value.to_owned()).or_default() += i64::try_from(here.count()).unwrap_or(i64::MAX);
        }
        domains
    }
}

fn declared<'a>(pod: &'a PodInfo, when: &str) -> Vec<Constraint<'a>> {
    let all = pod.spec().topology_spread_constraints.as_deref().unwrap_or_default();
    all.iter().filter(|constraint| constraint.when_unsatisfiable == when).map(|c| Constraint::new(c, pod)).collect()
}

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<FilterNode<'a>> {
    let constraints = declared(pod, "DoNotSchedule");
    if constraints.is_empty() {
        return None;
    }
    let counted: Vec<_> = constraints
        .into_iter()
        .map(|constraint| {
            let domains = constraint.domains(pod, snapshot);
            let is_short_of_domains = i64::try_from(domains.len()).unwrap_or(i64::MAX) < constraint.min_domains;
            let lowest = if is_short_of_domains { 0 } else { domains.values().copied().min().unwrap_or(0) };
            (constraint, domains, lowest)
        })
        .collect();
    Some(Box::new(move |node| {
        for (constraint, domains, lowest) in &counted {
            let Some(value) = node.label(constraint.key) else { return Err(Unfit::for_good(REASON_NO_LABEL)) };
            let own = i64::from(constraint.counts(pod));
            let skew = domains.get(value).copied().unwrap_or(0) + own - lowest;
            if skew > constraint.max_skew {
                return Err(Unfit::until_others_leave(REASON));
            }
        }
        Ok(())
    }))
}

/// Fewer Pods in the domain is better; larger domains weigh more, as upstream.
pub fn score<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<ScoreNode<'a>> {
    let mut constraints = declared(pod, "ScheduleAnyway");
    let has_any = pod.spec().topology_spread_constraints.as_ref().is_some_and(|all| !all.is_empty());
    if let (false, Some(uid)) = (has_any, pod.owner_uid()) {
        constraints.extend(DEFAULTS.map(|(key, max_skew)| Constraint {
            key,
            max_skew,
            min_domains: 1,
            counted: Counted::OwnedBy(uid.to_owned()),
            honors_affinity: true,
            honors_taints: false,
        }));
    }
    if constraints.is_empty() {
        return None;
    }
    let counted: Vec<_> = constraints
        .into_iter()
        .map(|constraint| {
            let domains = constraint.domains(pod, snapshot);
            let weight = (domains.len() as f64 + 2.0).ln();
            (constraint, domains, weight)
        })
        .filter(|(_, domains, _)| !domains.is_empty())
        .collect();
    Some(Box::new(move |node| {
        let cost = |(constraint, domains, weight): &(Constraint<'_>, BTreeMap<String, i64>, f64)| {
            let count = node.label(constraint.key).and_then(|value| domains.get(value)).copied().unwrap_or(0);
            count as f64 * weight + (constraint.max_skew - 1) as f64
        };
        (counted.iter().map(cost).sum::<f64>() * 100.0).round() as i64
    }))
}
