//! The scheduler's picture of the cluster, kept by events, shared by plugins as an immutable snapshot.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;
use k8s_openapi::api::core::v1::Node;

use crate::{node::NodeInfo, pod::PodInfo};

/// What plugins may see. A clone costs nothing; later changes do not reach it.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// By node name. Nodes without an object (Pods came first, or the Node was deleted) are left out.
    pub nodes: OrdMap<String, Arc<NodeInfo>>,
    /// Labels of each Namespace, for affinity terms that select by them.
    pub namespaces: OrdMap<String, Arc<BTreeMap<String, String>>>,
    /// How many Pods with required anti-affinity run anywhere: zero skips the symmetric check.
    pub anti_affinity_pods: usize,
}

impl Snapshot {
    pub fn namespace_labels(&self, name: &str) -> &BTreeMap<String, String> {
        static EMPTY: BTreeMap<String, String> = BTreeMap::new();
        self.namespaces.get(name).map_or(&EMPTY, AsRef::as_ref)
    }

    /// Every Pod that runs or will run, with its node.
    pub fn pods(&self) -> impl Iterator<Item = (&NodeInfo, &Arc<PodInfo>)> {
        self.nodes.values().flat_map(|node| node.pods.values().map(move |pod| (node.as_ref(), pod)))
    }
}

/// The picture with what keeps it: Pods by uid, and Pods that are bound but not yet seen as bound.
///
/// Invariant: a Pod counts on exactly one node, the one it is bound or assumed to.
#[derive(Default)]
pub struct Cache {
    snapshot: Snapshot,
    /// Nodes that have Pods but no object.
    ghosts: BTreeMap<String, NodeInfo>,
    /// Pod uid -> node name.
    placed: BTreeMap<String, String>,
    /// Uids of Pods whose binding is under way or was acknowledged but not yet observed.
    assumed: std::collections::BTreeSet<String>,
}

impl Cache {
    /// The picture as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    pub fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.snapshot.namespaces.insert(name.to_owned(), Arc::new(labels));
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.snapshot.namespaces.remove(name);
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut info = match self.snapshot.nodes.get(&name) {
            Some(info) => (**info).clone(),
            None => self.ghosts.remove(&name).unwrap_or_default(),
        };
        info.set_node(node);
        self.snapshot.nodes.insert(name, Arc::new(info));
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.snapshot.nodes.remove(name)
            && !info.pods.is_empty()
        {
            self.ghosts.insert(name.to_owned(), (*info).clone());
        }
    }

    /// A Pod was seen bound to a node: whatever was assumed of it is now true.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        self.assumed.remove(pod.uid());
        let node = pod.node_name().unwrap_or_default().to_owned();
        self.place(pod, node);
    }

    /// Counts a Pod on a node before its binding is written.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.assumed.insert(pod.uid().to_owned());
        self.place(pod, node.to_owned());
    }

    /// Takes an assumption back; does nothing when the Pod was seen bound meanwhile.
    pub fn forget(&mut self, uid: &str) {
        if self.assumed.remove(uid) {
            self.unplace(uid);
        }
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains(uid)
    }

    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    pub fn remove_pod(&mut self, uid: &str) {
        self.assumed.remove(uid);
        self.unplace(uid);
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: String) {
        self.unplace(pod.uid());
        self.placed.insert(pod.uid().to_owned(), node.clone());
        self.change(&node, |info| info.add_pod(pod));
    }

    fn unplace(&mut self, uid: &str) {
        if let Some(node) = self.placed.remove(uid) {
            self.change(&node, |info| info.remove_pod(uid));
        }
    }

    fn change(&mut self, node: &str, change: impl FnOnce(&mut NodeInfo)) {
        if let Some(info) = self.snapshot.nodes.get_mut(node) {
            let info = Arc::make_mut(info);
            let before = info.anti_affinity_pods;
            change(info);
            self.snapshot.anti_affinity_pods = self.snapshot.anti_affinity_pods + info.anti_affinity_pods - before;
            return;
        }
        let info = self.ghosts.entry(node.to_owned()).or_default();
        change(info);
        if info.pods.is_empty() {
            self.ghosts.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{node, pod};

    fn cpu(cache: &Cache, node: &str) -> i64 {
        cache.snapshot().nodes[node].requested.cpu_millis
    }

    #[test]
    fn an_assumption_counts_once_and_can_be_taken_back() {
        let mut cache = Cache::default();
        cache.set_node(Arc::new(node("a", "4")));
        let waiting = pod("p", "500m", None);
        cache.assume(waiting.clone(), "a");
        cache.assume(waiting.clone(), "a");
        assert_eq!(cpu(&cache, "a"), 500);
        cache.forget("uid-p");
        assert_eq!(cpu(&cache, "a"), 0);
        cache.assume(waiting, "a");
        cache.set_pod(pod("p", "500m", Some("a")));
        cache.forget("uid-p");
        assert_eq!(cpu(&cache, "a"), 500);
        cache.remove_pod("uid-p");
        assert_eq!(cpu(&cache, "a"), 0);
    }

    #[test]
    fn pods_survive_their_node_object() {
        let mut cache = Cache::default();
        cache.set_pod(pod("p", "1", Some("a")));
        assert!(cache.snapshot().nodes.is_empty());
        cache.set_node(Arc::new(node("a", "4")));
        assert_eq!(cpu(&cache, "a"), 1000);
        cache.remove_node("a");
        cache.remove_pod("uid-p");
        cache.set_node(Arc::new(node("a", "4")));
        assert_eq!(cpu(&cache, "a"), 0);
    }
}
