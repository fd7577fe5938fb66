//! One decision: a Pod and a snapshot in, a node (and devices) or the reasons against all of them out.

use std::collections::BTreeMap;

use clock::Chance;

use crate::{
    devices::{self, Assignment},
    node::NodeInfo,
    plugins::{FILTERS, FilterNode, SCORES, Unfit},
    pod::PodInfo,
    snapshot::Snapshot,
};

/// Below this many nodes all are scored; above, enough feasible ones do (upstream's percentage of nodes).
const NODES_SCORED_MIN: usize = 100;

/// Where a Pod goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    pub node: String,
    /// The GPUs it gets; empty where it wants none or the node has no inventory.
    pub devices: Assignment,
}

/// Why a Pod goes nowhere.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FitError {
    pub nodes: usize,
    /// Sentence -> how many nodes it was said of.
    pub reasons: BTreeMap<String, usize>,
    /// The plugins that ruled nodes out: what happens in their field may change the answer.
    pub plugins: Vec<&'static str>,
    /// Nodes that could fit if Pods left.
    pub resolvable_nodes: usize,
}

impl std::fmt::Display for FitError {
    /// Upstream's sentence: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. ...`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        write!(f, " {}. preemption: 0/{} nodes are available:", reasons.join(", "), self.nodes)?;
        let helpless = self.nodes - self.resolvable_nodes;
        let mut verdicts = Vec::new();
        if self.resolvable_nodes > 0 {
            verdicts.push(format!("{} No preemption victims found for incoming pod", self.resolvable_nodes));
        }
        if helpless > 0 {
            verdicts.push(format!("{helpless} Preemption is not helpful for scheduling"));
        }
        verdicts.sort();
        write!(f, " {}.", verdicts.join(", "))
    }
}

/// Decides. `start` is where to begin among the nodes, so that large clusters are used evenly; ties are
/// broken by `chance`.
pub fn schedule(pod: &PodInfo, snapshot: &Snapshot, start: usize, chance: &Chance) -> Result<Placement, FitError> {
    let filters: Vec<(&'static str, FilterNode<'_>)> =
        FILTERS.iter().filter_map(|plugin| Some((plugin.name, (plugin.filter)(pod, snapshot)?))).collect();
    let (feasible, error) = feasible_nodes(snapshot, &filters, start);
    let node = match feasible.as_slice() {
        [] => return Err(error),
        [one] => one,
        many => best(pod, snapshot, many, chance),
    };
    let devices = match node.devices.is_empty() {
        true => Assignment::new(),
        false => devices::choose(&pod.pod, &node.devices, &node.devices_used).unwrap_or_default(),
    };
    Ok(Placement { node: node.name().to_owned(), devices })
}

fn nodes_wanted(nodes: usize) -> usize {
    if nodes <= NODES_SCORED_MIN {
        return nodes;
    }
    let percentage = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percentage / 100).max(NODES_SCORED_MIN)
}

fn feasible_nodes<'a>(
    snapshot: &'a Snapshot,
    filters: &[(&'static str, FilterNode<'_>)],
    start: usize,
) -> (Vec<&'a NodeInfo>, FitError) {
    let count = snapshot.nodes.len();
    let wanted = nodes_wanted(count);
    let mut error = FitError { nodes: count, ..FitError::default() };
    let mut feasible = Vec::with_capacity(wanted);
    let in_turn = snapshot.nodes.values().skip(start % count.max(1)).chain(snapshot.nodes.values());
    for node in in_turn.take(count) {
        let unfit = filters.iter().find_map(|(name, fits)| fits(node).err().map(|unfit| (*name, unfit)));
        match unfit {
            None => feasible.push(node.as_ref()),
            Some((plugin, unfit)) => error.record(plugin, unfit),
        }
        if feasible.len() == wanted {
            break;
        }
    }
    (feasible, error)
}

impl FitError {
    fn record(&mut self, plugin: &'static str, unfit: Unfit) {
        for reason in unfit.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.resolvable_nodes += usize::from(unfit.is_resolvable_by_preemption);
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
    }
}

fn best<'a>(pod: &PodInfo, snapshot: &Snapshot, nodes: &[&'a NodeInfo], chance: &Chance) -> &'a NodeInfo {
    let mut totals = vec![0i64; nodes.len()];
    for plugin in SCORES {
        let Some(score) = (plugin.score)(pod, snapshot) else { continue };
        let mut scores: Vec<i64> = nodes.iter().map(|node| score(node)).collect();
        plugin.normalize.apply(&mut scores);
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += plugin.weight * score);
    }
    let highest = totals.iter().copied().max().unwrap_or(0);
    let winners: Vec<&NodeInfo> =
        nodes.iter().zip(&totals).filter(|(_, total)| **total == highest).map(|(node, _)| *node).collect();
    winners[chance.below(winners.len())]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        snapshot::Cache,
        tests::{node_from, pod_from},
    };

    fn check(nodes: Value, running: Value, pod: Value, expected: Expect) {
        let mut cache = Cache::default();
        for node in nodes.as_array().unwrap() {
            cache.set_node(Arc::new(node_from(node.clone())));
        }
        for running in running.as_array().unwrap() {
            cache.set_pod(pod_from(running.clone()));
        }
        let answer = match schedule(&pod_from(pod), &cache.snapshot(), 0, &Chance::seeded(1)) {
            Ok(placement) if placement.devices.is_empty() => placement.node,
            Ok(placement) => format!("{} {:?}", placement.node, placement.devices),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&answer);
    }

    #[test]
    fn says_why_every_node_is_out() {
        check(
            json!([
                {"name": "a", "cpu": "1"},
                {"name": "b", "cpu": "4", "unschedulable": true},
                {"name": "c", "cpu": "4", "taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]},
                {"name": "d", "cpu": "4", "pods": "0"}
            ]),
            json!([]),
            json!({"name": "p", "cpu": "2"}),
            expect![
                "0/4 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable. preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling."
            ],
        );
    }

    #[test]
    fn no_nodes_at_all() {
        check(json!([]), json!([]), json!({"name": "p"}), expect!["no nodes available to schedule pods"]);
    }

    #[test]
    fn prefers_the_emptier_node() {
        check(
            json!([{"name": "a", "cpu": "4"}, {"name": "b", "cpu": "4"}]),
            json!([{"name": "q", "cpu": "3", "node": "a"}]),
            json!({"name": "p", "cpu": "500m"}),
            expect!["b"],
        );
    }

    #[test]
    fn spreads_the_pods_of_one_owner() {
        let pod = |name: &str, node: Value| json!({"name": name, "cpu": "100m", "owner": "rs", "node": node});
        check(
            json!([{"name": "a", "cpu": "64"}, {"name": "b", "cpu": "4"}]),
            json!([pod("q1", json!("a")), pod("q2", json!("a")), pod("q3", json!("a"))]),
            pod("p", Value::Null),
            expect!["b"],
        );
    }

    #[test]
    fn anti_affinity_counts_in_both_directions() {
        let away = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}});
        check(
            json!([{"name": "a", "cpu": "4"}]),
            json!([{"name": "q", "node": "a", "labels": {"app": "db"}, "affinity": away}]),
            json!({"name": "p", "labels": {"app": "db"}}),
            expect![
                "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
            ],
        );
    }

    #[test]
    fn gpus_are_given_by_uuid_and_never_twice() {
        let nodes = json!([{"name": "a", "cpu": "4", "gpus": 2}]);
        check(
            nodes.clone(),
            json!([{"name": "q", "node": "a", "gpu": 1, "devices": ["GPU-a-0"]}]),
            json!({"name": "p", "gpu": 1}),
            expect![[r#"a {"main": ["GPU-a-1"]}"#]],
        );
        check(
            nodes,
            json!([{"name": "q", "node": "a", "gpu": 1, "devices": ["GPU-a-0"]}]),
            json!({"name": "p", "gpu": 2}),
            expect![
                "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
            ],
        );
    }

    #[test]
    fn large_clusters_score_a_part() {
        assert_eq!(nodes_wanted(100), 100);
        assert_eq!(nodes_wanted(1000), 420);
        assert_eq!(nodes_wanted(10_000), 500);
    }
}
