//! Gives each Node a range of Pod addresses out of the cluster's.
//!
//! Guarantees: no two Nodes share addresses; a Node keeps its range.
//! Relies on:  nobody else sets `spec.podCIDR`.

use std::{collections::BTreeSet, sync::Arc};

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness, Note},
    informer::Informer,
};
use futures::{FutureExt, future::BoxFuture};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;

/// Prefix length of one Node's range: 254 addresses.
pub const NODE_PREFIX_LENGTH: u8 = 24;

pub(crate) struct NodeRanges {
    nodes: Informer<Node>,
    cluster: Ipv4Net,
}

impl Controller for NodeRanges {
    const NAME: &'static str = "node_ipam";
    type Observed = Vec<Arc<Node>>;

    /// All Nodes at once: two of them must not choose at the same time.
    async fn observe(&self, _: &Key, _: Option<Failure>) -> anyhow::Result<Option<Vec<Arc<Node>>>> {
        Ok(Some(self.nodes.list()))
    }

    fn decide(&self, nodes: &Vec<Arc<Node>>, _: Timestamp) -> Decision {
        decide(nodes, self.cluster)
    }
}

pub(crate) fn run(
    caches: &Caches,
    context: Context,
    cluster: Ipv4Net,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    let controller = NodeRanges { nodes: caches.nodes(), cluster };
    let nodes = controller.nodes.clone();
    let lacks_range = |node: &Node| range_of(node).is_none() && node.metadata.deletion_timestamp.is_none();
    Harness::new(controller)
        .watch(&nodes, move |_, change| lacks_range(change.object()).then(|| Key::cluster("all")))
        .run(context, stop)
        .boxed()
}

fn range_of(node: &Node) -> Option<&str> {
    node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).filter(|range| !range.is_empty())
}

fn decide(nodes: &[Arc<Node>], cluster: Ipv4Net) -> Decision {
    let mut decision = Decision::default();
    let taken: BTreeSet<Ipv4Net> = nodes.iter().filter_map(|node| range_of(node)?.parse().ok()).collect();
    let length = NODE_PREFIX_LENGTH.max(cluster.prefix_len());
    let overlaps = |range: &Ipv4Net| taken.iter().any(|other| other.contains(range) || range.contains(other));
    let mut free = cluster.subnets(length).into_iter().flatten().filter(|range| !overlaps(range));
    for node in nodes.iter().filter(|node| range_of(node).is_none() && node.metadata.deletion_timestamp.is_none()) {
        let Some(range) = free.next().map(|range| range.to_string()) else {
            decision.why.push(Note::normal(&**node, "CIDRNotAvailable", "Node status is now: CIDRNotAvailable"));
            continue;
        };
        let patch = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
        decision.actions.push(Action::patch(&**node, patch));
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_ranges_are_given() {
        let node = |name: &str, range: Option<&str>| -> Arc<Node> {
            let value = json!({"metadata": {"name": name}, "spec": {"podCIDR": range}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let nodes = [node("a", None), node("b", Some("10.0.0.0/24")), node("c", None), node("d", None)];
        let decision = decide(&nodes, "10.0.0.0/23".parse().unwrap());
        let lines: Vec<String> = decision.actions.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [r#"patch Node a {"spec":{"podCIDR":"10.0.1.0/24","podCIDRs":["10.0.1.0/24"]}}"#]);
        assert_eq!(decision.why.len(), 2);
    }
}
