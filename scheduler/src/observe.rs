//! What is seen of the cluster, turned into the cache and the queue.

use std::{collections::BTreeMap, sync::Arc};

use client::informer::Change;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};

use crate::{
    key_of,
    pod::PodInfo,
    queue::{Events, Key, Queue},
    snapshot::Cache,
};

/// Cache and queue, kept by events.
pub struct Observer {
    pub cache: Cache,
    pub queue: Queue,
    scheduler_name: String,
    /// Pods without a node, by key.
    waiting: BTreeMap<Key, Arc<PodInfo>>,
}

impl Observer {
    pub fn new(scheduler_name: String) -> Self {
        Self { cache: Cache::default(), queue: Queue::default(), scheduler_name, waiting: BTreeMap::new() }
    }

    /// The latest version of a Pod in the queue; `None` when it is gone or has a node.
    pub fn waiting_pod(&self, key: &Key) -> Option<Arc<PodInfo>> {
        let pod = self.waiting.get(key)?;
        (!self.cache.is_placed(pod.uid())).then(|| pod.clone())
    }

    pub fn namespace(&mut self, change: Change<Namespace>) {
        match change {
            Change::Applied { new, .. } => {
                let name = new.metadata.name.clone().unwrap_or_default();
                self.cache.set_namespace(&name, new.metadata.labels.clone().unwrap_or_default());
            }
            Change::Deleted(old) => self.cache.remove_namespace(old.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    pub fn node(&mut self, change: Change<Node>, now: Timestamp) {
        match change {
            Change::Applied { old, new } => {
                let events = old.map_or(Events::ALL, |old| difference(&old, &new));
                self.cache.set_node(new);
                if events != Events::default() {
                    self.queue.happened(events, now);
                }
            }
            Change::Deleted(old) => self.cache.remove_node(old.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    pub fn pod(&mut self, change: Change<Pod>, now: Timestamp) {
        match change {
            Change::Applied { old, new } => self.pod_applied(old, new, now),
            Change::Deleted(old) => self.pod_gone(&old, now),
        }
    }

    fn pod_applied(&mut self, old: Option<Arc<Pod>>, new: Arc<Pod>, now: Timestamp) {
        // The name may have passed to another Pod between two events.
        if let Some(old) = old.as_ref().filter(|old| old.metadata.uid != new.metadata.uid) {
            self.pod_gone(old, now);
        }
        let key = key_of(&new);
        let info = Arc::new(PodInfo::new(new));
        if info.is_finished() {
            return self.pod_gone(&info.pod, now);
        }
        if info.node_name().is_some() {
            self.waiting.remove(&key);
            self.queue.remove(&key);
            let is_new_here = !self.cache.is_placed(info.uid());
            let relabelled = old.as_ref().is_some_and(|old| old.metadata.labels != info.pod.metadata.labels);
            self.cache.set_pod(info);
            if is_new_here || relabelled {
                self.queue.happened(Events::POD_PLACED, now);
            }
            return;
        }
        let is_gated = info.spec().scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        let is_ours =
            info.spec().scheduler_name.as_deref().unwrap_or(crate::DEFAULT_SCHEDULER_NAME) == self.scheduler_name;
        if !is_ours || is_gated || info.is_deleting() {
            self.waiting.remove(&key);
            return self.queue.remove(&key);
        }
        let changed =
            |old: &Arc<PodInfo>| old.pod.spec != info.pod.spec || old.pod.metadata.labels != info.pod.metadata.labels;
        let deserves_a_try = self.waiting.get(&key).is_none_or(changed);
        let priority = info.priority();
        self.waiting.insert(key.clone(), info);
        if deserves_a_try {
            self.queue.add(key, priority, now);
        }
    }

    fn pod_gone(&mut self, pod: &Pod, now: Timestamp) {
        let key = key_of(pod);
        self.waiting.remove(&key);
        self.queue.remove(&key);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if self.cache.is_placed(uid) {
            self.cache.remove_pod(uid);
            self.queue.happened(Events::POD_GONE, now);
        }
    }
}

fn difference(old: &Node, new: &Node) -> Events {
    let mut events = Events::default();
    if old.spec != new.spec {
        events = events.or(Events::NODE_SPEC);
    }
    if old.metadata.labels != new.metadata.labels {
        events = events.or(Events::NODE_LABELS);
    }
    let capacity = |node: &Node| node.status.as_ref().map(|status| (status.allocatable.clone(), status.images.clone()));
    if capacity(old) != capacity(new) || old.metadata.annotations != new.metadata.annotations {
        events = events.or(Events::NODE_CAPACITY);
    }
    events
}
