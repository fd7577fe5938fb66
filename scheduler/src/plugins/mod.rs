//! One file a plugin, two lists of them.
//!
//! A plugin is a function that returns a closure: the function runs once for a Pod, the closure once for
//! each node. What the function computed is what the closure captured.

use crate::{node::NodeInfo, pod::PodInfo, queue::Events, snapshot::Snapshot};

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod taint_toleration;

/// Why a node does not fit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unfit {
    /// Upstream's sentences; a node may have several.
    pub reasons: Vec<String>,
    /// Whether the Pod could fit if others left.
    pub is_resolvable_by_preemption: bool,
}

impl Unfit {
    /// Others leaving would not help.
    pub fn for_good(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], is_resolvable_by_preemption: false }
    }

    /// Others leaving might help.
    pub fn until_others_leave(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], is_resolvable_by_preemption: true }
    }
}

/// The question to ask each node.
pub type FilterNode<'a> = Box<dyn Fn(&NodeInfo) -> Result<(), Unfit> + 'a>;
/// The score of each node, in any range: normalised afterwards.
pub type ScoreNode<'a> = Box<dyn Fn(&NodeInfo) -> i64 + 'a>;

/// Rules nodes out.
pub struct FilterPlugin {
    pub name: &'static str,
    /// `None`: the plugin has nothing to ask for this Pod.
    pub filter: for<'a> fn(&'a PodInfo, &'a Snapshot) -> Option<FilterNode<'a>>,
    /// What could make a Pod fit that this plugin ruled out.
    pub events: Events,
}

/// How raw scores become `0..=100`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Normalize {
    /// They are already.
    Not,
    /// In proportion to the highest.
    ByHighest,
    /// In proportion to the highest, and the highest is worst.
    ByHighestReversed,
    /// Between the lowest and the highest.
    BetweenExtremes,
    /// Between the extremes, and the highest is worst.
    BetweenExtremesReversed,
}

/// Orders the nodes that are left.
pub struct ScorePlugin {
    pub name: &'static str,
    pub weight: i64,
    pub score: for<'a> fn(&'a PodInfo, &'a Snapshot) -> Option<ScoreNode<'a>>,
    pub normalize: Normalize,
}

/// In the order in which they are asked: cheap and decisive ones first, as upstream.
pub const FILTERS: &[FilterPlugin] = &[
    FilterPlugin { name: "NodeUnschedulable", filter: node_unschedulable::filter, events: Events::NODE_SPEC },
    FilterPlugin { name: "NodeName", filter: node_name::filter, events: Events::NODE_ADDED },
    FilterPlugin { name: "TaintToleration", filter: taint_toleration::filter, events: Events::NODE_SPEC },
    FilterPlugin { name: "NodeAffinity", filter: node_affinity::filter, events: Events::NODE_LABELS },
    FilterPlugin { name: "NodePorts", filter: node_ports::filter, events: Events::POD_GONE.or(Events::NODE_ADDED) },
    FilterPlugin {
        name: "NodeResourcesFit",
        filter: node_resources_fit::filter,
        events: Events::POD_GONE.or(Events::NODE_CAPACITY),
    },
    FilterPlugin {
        name: "PodTopologySpread",
        filter: pod_topology_spread::filter,
        events: Events::POD_GONE.or(Events::POD_PLACED).or(Events::NODE_LABELS),
    },
    FilterPlugin {
        name: "InterPodAffinity",
        filter: inter_pod_affinity::filter,
        events: Events::POD_GONE.or(Events::POD_PLACED).or(Events::NODE_LABELS),
    },
];

/// With upstream's default weights.
pub const SCORES: &[ScorePlugin] = &[
    ScorePlugin {
        name: "TaintToleration",
        weight: 3,
        score: taint_toleration::score,
        normalize: Normalize::ByHighestReversed,
    },
    ScorePlugin { name: "NodeAffinity", weight: 2, score: node_affinity::score, normalize: Normalize::ByHighest },
    ScorePlugin { name: "NodeResourcesFit", weight: 1, score: node_resources_fit::score, normalize: Normalize::Not },
    ScorePlugin {
        name: "PodTopologySpread",
        weight: 2,
        score: pod_topology_spread::score,
        normalize: Normalize::BetweenExtremesReversed,
    },
    ScorePlugin {
        name: "InterPodAffinity",
        weight: 2,
        score: inter_pod_affinity::score,
        normalize: Normalize::BetweenExtremes,
    },
    ScorePlugin {
        name: "NodeResourcesBalancedAllocation",
        weight: 1,
        score: node_resources_balanced_allocation::score,
        normalize: Normalize::Not,
    },
    ScorePlugin { name: "ImageLocality", weight: 1, score: image_locality::score, normalize: Normalize::Not },
];

/// The best score of a plugin.
pub const SCORE_MAX: i64 = 100;

impl Normalize {
    /// Brings raw scores into `0..=SCORE_MAX`.
    pub fn apply(self, scores: &mut [i64]) {
        let (Some(low), Some(high)) = (scores.iter().copied().min(), scores.iter().copied().max()) else { return };
        for score in scores {
            *score = match self {
                Self::Not => *score,
                Self::ByHighest if high == 0 => *score,
                Self::ByHighest => *score * SCORE_MAX / high,
                Self::ByHighestReversed if high == 0 => SCORE_MAX,
                Self::ByHighestReversed => SCORE_MAX - *score * SCORE_MAX / high,
                Self::BetweenExtremes if high == low => 0,
                Self::BetweenExtremes => SCORE_MAX * (*score - low) / (high - low),
                Self::BetweenExtremesReversed if high == low => SCORE_MAX,
                Self::BetweenExtremesReversed => SCORE_MAX * (high - *score) / (high - low),
            };
        }
    }
}
