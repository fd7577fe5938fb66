//! All Pods of this node: one worker each, fed by the API's watch and the runtime's events.
//!
//! At the start it adopts what the runtime holds: containers of Pods that the API knows go on untouched; what belongs
//! to nobody is ended and removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use client::informer::{Change, Informer};
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::{Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::AbortHandle,
};

use crate::{
    Kubelet,
    admission::admit,
    node::status::allocatable,
    pod::{
        self,
        lifecycle::{Desired, Verdict},
        worker::{Mail, Worker},
    },
    runtime::{ContainerStatus, PodIdentity, PodView, RuntimeView, labels},
    server, volume,
};

/// Heals what events missed.
const RELIST: Duration = Duration::from_secs(30);
/// Before the event stream is opened again.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

struct Handle {
    mail: watch::Sender<Mail>,
    wake: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct PodSet(Arc<Inner>);

struct Inner {
    kubelet: Arc<Kubelet>,
    informer: Informer<Pod>,
    /// By uid.
    workers: Mutex<BTreeMap<String, Handle>>,
}

impl server::Pods for PodSet {
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.0.informer.get(namespace, name)
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        self.0.informer.list()
    }
}

impl PodSet {
    pub fn new(kubelet: Arc<Kubelet>, informer: Informer<Pod>) -> Self {
        Self(Arc::new(Inner { kubelet, informer, workers: Default::default() }))
    }

    /// Works until it is dropped; all workers end with it, no container does.
    pub async fn run(&self) {
        let ended_with_this = StopWorkers(self.clone());
        self.0.informer.synced().await;
        let (finished, mut of_workers) = mpsc::unbounded_channel();
        let mut changes = self.0.informer.subscribe();
        // Everything that exists is announced first, so that no adopted container looks like an orphan.
        for pod in self.0.informer.list() {
            self.observe(&pod, Desired::Present, &finished);
        }
        let events = self.follow_runtime(&finished);
        let mut events = std::pin::pin!(events);
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(Change::Applied { new, .. }) => self.observe(&new, Desired::Present, &finished),
                    Some(Change::Deleted(pod)) => self.observe(&pod, Desired::Gone, &finished),
                    None => break,
                },
                Some(uid) = of_workers.recv() => self.forget(&uid, &finished),
                () = &mut events => break,
            }
        }
        drop(ended_with_this);
    }

    fn observe(&self, pod: &Arc<Pod>, desired: Desired, finished: &mpsc::UnboundedSender<String>) {
        let desired = match desired {
            Desired::Present if pod.metadata.deletion_timestamp.is_some() => Desired::Deleting,
            other => other,
        };
        let uid = pod::uid(pod);
        let mut workers = self.0.workers.lock();
        if let Some(handle) = workers.get(uid) {
            handle.mail.send_replace(Mail { pod: pod.clone(), desired });
            handle.wake.notify_one();
        } else if desired != Desired::Gone {
            let handle = self.start(pod.clone(), desired, finished);
            workers.insert(uid.into(), handle);
        }
    }

    fn start(&self, pod: Arc<Pod>, desired: Desired, finished: &mpsc::UnboundedSender<String>) -> Handle {
        let kubelet = self.0.kubelet.clone();
        let (mail, mailbox) = watch::channel(Mail { pod: pod.clone(), desired });
        let wake = Arc::new(Notify::new());
        let (finished, uid) = (finished.clone(), pod::uid(&pod).to_string());
        let verdict = self.verdict(&pod, desired);
        let worker = Worker::new(kubelet, mailbox, wake.clone(), verdict);
        let task = tokio::spawn(async move {
            worker.run().await;
            // The set may be gone already.
            let _ = finished.send(uid);
        });
        Handle { mail, wake, task: task.abort_handle() }
    }

    /// Only Pods that never started here are judged.
    fn verdict(&self, pod: &Pod, desired: Desired) -> Option<Verdict> {
        let started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if started || desired != Desired::Present || pod::is_terminal(pod) {
            return None;
        }
        let kubelet = &self.0.kubelet;
        let allocatable = allocatable(&kubelet.facts, &kubelet.inventory.devices());
        let others: Vec<Arc<Pod>> = self
            .0
            .informer
            .list()
            .into_iter()
            .filter(|other| other.status.as_ref().is_some_and(|status| status.start_time.is_some()))
            .collect();
        admit(pod, &others, &allocatable).err()
    }

    /// A worker has finished. Should the object be there again (it cannot, uids are unique), it gets a new one.
    fn forget(&self, uid: &str, finished: &mpsc::UnboundedSender<String>) {
        self.0.workers.lock().remove(uid);
        self.0.kubelet.sources.forget(uid);
        let again = self.0.informer.list().into_iter().find(|pod| pod::uid(pod) == uid);
        if let Some(pod) = again {
            self.observe(&pod, Desired::Present, finished);
        }
    }

    fn wake(&self, uid: &str) {
        if let Some(handle) = self.0.workers.lock().get(uid) {
            handle.wake.notify_one();
        }
    }

    /// The runtime's events wake workers; a slow relist heals what they missed.
    async fn follow_runtime(&self, finished: &mpsc::UnboundedSender<String>) {
        let runtime = &self.0.kubelet.runtime;
        let mut known = RuntimeView::new();
        loop {
            let events = match runtime.events().await {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(%error, "no events from the container runtime");
                    self.0.kubelet.node_changed.notify_one();
                    tokio::time::sleep(EVENTS_RETRY).await;
                    continue;
                }
            };
            let mut events = std::pin::pin!(events);
            self.relist(&mut known, finished).await;
            let mut tick = tokio::time::interval(RELIST);
            tick.reset();
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Some(event) => self.wake(&event.pod_uid),
                        None => break,
                    },
                    _ = tick.tick() => self.relist(&mut known, finished).await,
                }
            }
            tracing::warn!("the container runtime's event stream ended");
            self.0.kubelet.node_changed.notify_one();
            tokio::time::sleep(EVENTS_RETRY).await;
        }
    }

    async fn relist(&self, known: &mut RuntimeView, finished: &mpsc::UnboundedSender<String>) {
        let view = match self.0.kubelet.runtime.list().await {
            Ok(view) => view,
            Err(error) => return tracing::warn!(%error, "containers not listed"),
        };
        for (uid, pod) in &view {
            if known.get(uid) != Some(pod) {
                self.wake(uid);
            }
            if !self.0.workers.lock().contains_key(uid) {
                self.adopt_orphan(pod, finished);
            }
        }
        known.keys().filter(|uid| !view.contains_key(*uid)).for_each(|uid| self.wake(uid));
        *known = view;
        self.clean_folders(known).await;
    }

    /// Containers whose Pod the API does not know: ended in order by a worker of their own.
    fn adopt_orphan(&self, view: &PodView, finished: &mpsc::UnboundedSender<String>) {
        let PodIdentity { uid, namespace, name } = view.identity.clone();
        tracing::info!(uid, namespace, name, "containers of a Pod that is gone");
        let metadata =
            ObjectMeta { uid: Some(uid.clone()), namespace: Some(namespace), name: Some(name), ..Default::default() };
        let seconds = |container: &ContainerStatus| container.labels.get(labels::GRACE)?.parse().ok();
        let grace = view.containers.iter().filter_map(seconds).max();
        let spec = PodSpec { termination_grace_period_seconds: grace, ..Default::default() };
        let pod = Arc::new(Pod { metadata, spec: Some(spec), status: None });
        let handle = self.start(pod, Desired::Gone, finished);
        self.0.workers.lock().insert(uid, handle);
    }

    /// Folders of Pods that neither the API nor the runtime knows.
    async fn clean_folders(&self, view: &RuntimeView) {
        let kubelet = &self.0.kubelet;
        if kubelet.config.hollow {
            return;
        }
        let Ok(folders) = std::fs::read_dir(kubelet.config.root_dir.join("pods")) else { return };
        let names: BTreeSet<String> =
            folders.flatten().filter_map(|folder| folder.file_name().into_string().ok()).collect();
        for uid in names {
            let used = view.contains_key(&uid) || self.0.workers.lock().contains_key(&uid);
            if !used && let Err(error) = volume::clean(&kubelet.pod_dir(&uid)).await {
                tracing::warn!(uid, %error, "folder of a Pod that is gone not removed");
            }
        }
    }
}

struct StopWorkers(PodSet);

impl Drop for StopWorkers {
    fn drop(&mut self) {
        self.0.0.workers.lock().clear();
    }
}
