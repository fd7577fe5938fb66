//! nodeSelector and node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::{FilterNode, ScoreNode, Unfit};
use crate::{node::NodeInfo, pod::PodInfo, snapshot::Snapshot};

pub const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<FilterNode<'a>> {
    let spec = pod.spec();
    let required = spec.affinity.as_ref().and_then(|affinity| {
        affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    });
    if required.is_none() && spec.node_selector.as_ref().is_none_or(|selector| selector.is_empty()) {
        return None;
    }
    Some(Box::new(move |node| {
        let is_selected = spec.node_selector.iter().flatten().all(|(key, value)| node.label(key) == Some(value));
        let is_wanted =
            required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)));
        if is_selected && is_wanted { Ok(()) } else { Err(Unfit::for_good(REASON)) }
    }))
}

/// The weights of the preferred terms that match.
pub fn score<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<ScoreNode<'a>> {
    let affinity = pod.spec().affinity.as_ref()?.node_affinity.as_ref()?;
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
    Some(Box::new(move |node| {
        preferred.iter().filter(|term| matches(&term.preference, node)).map(|term| i64::from(term.weight)).sum()
    }))
}

/// All requirements of a term hold. A term without requirements matches nothing.
pub fn matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |name: &str| (name == "metadata.name").then(|| node.name());
    expressions.iter().all(|requirement| holds(requirement, node.label(&requirement.key)))
        && fields.iter().all(|requirement| holds(requirement, field(&requirement.key)))
}

fn holds(requirement: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_among = |actual: &str| values.iter().any(|value| value == actual);
    let compare = |ordering: std::cmp::Ordering| {
        let (Some(actual), Some(limit)) = (actual.and_then(|value| value.parse::<i64>().ok()), values.first()) else {
            return false;
        };
        limit.parse::<i64>().is_ok_and(|limit| actual.cmp(&limit) == ordering)
    };
    match requirement.operator.as_str() {
        "In" => actual.is_some_and(is_among),
        "NotIn" => !actual.is_some_and(is_among),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}
