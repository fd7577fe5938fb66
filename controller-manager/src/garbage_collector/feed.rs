//! Keeps the graph up to date: a metadata-only watch of everything that can be deleted, found by discovery.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use client::{
    Key,
    informer::{Change, Informer, Selection},
    queue::WorkQueue,
};
use futures::future::join_all;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    discovery::{ApiCapabilities, Discovery, Scope, verbs},
};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    State,
    graph::{Graph, Item},
};

/// How often discovery is asked for kinds that came or went.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
/// A watch that takes longer to fill its cache is not waited for: one broken kind must not stop all collection.
const FILL_MAX: Duration = Duration::from_secs(30);

type Object = PartialObjectMeta<DynamicObject>;

/// All kinds that owners can have, by apiVersion and kind; whether they live in namespaces.
pub type Kinds = HashMap<(String, String), (ApiResource, bool)>;

/// The watches that feed the graph.
pub struct Feed {
    client: Client,
    state: Arc<State>,
    queue: WorkQueue<Key>,
    watches: HashMap<ApiResource, DropGuard>,
}

impl Feed {
    pub fn new(client: Client, state: Arc<State>, queue: WorkQueue<Key>) -> Self {
        Self { client, state, queue, watches: HashMap::new() }
    }

    /// Returns when the graph is complete for the first time: before that an owner may seem to have no dependents.
    pub async fn fill(&mut self) {
        loop {
            match self.refresh().await {
                Ok(()) => return,
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "discovery; will try again"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Follows discovery for ever.
    pub async fn follow(&mut self) {
        loop {
            tokio::time::sleep(DISCOVERY_PERIOD).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "discovery; the kinds stay as they are");
            }
        }
    }

    /// Starts the watches of kinds that are new, ends those of kinds that are gone, and has another look at
    /// all that could not be told to be in order.
    async fn refresh(&mut self) -> kube::Result<()> {
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await?;
        *self.state.kinds.write() = kinds(&discovery);
        let wanted = watchable(&discovery);
        let gone: Vec<ApiResource> = self.watches.keys().filter(|known| !wanted.contains(*known)).cloned().collect();
        for resource in gone {
            self.watches.remove(&resource);
            self.state.graph.lock().forget(&resource);
        }
        let new: Vec<ApiResource> = wanted.into_iter().filter(|known| !self.watches.contains_key(known)).collect();
        let filled: Vec<_> = new.into_iter().map(|resource| self.watch(resource)).collect();
        if tokio::time::timeout(FILL_MAX, join_all(filled)).await.is_err() {
            tracing::warn!("not all kinds could be listed within {FILL_MAX:?}; collecting without them");
        }
        self.look_at(self.state.graph.lock().suspects());
        Ok(())
    }

    fn watch(&mut self, resource: ApiResource) -> oneshot::Receiver<()> {
        let stop = CancellationToken::new();
        self.watches.insert(resource.clone(), stop.clone().drop_guard());
        let api = Api::all_with(self.client.clone(), &resource);
        let informer = Informer::start_metadata(api, Selection::default(), stop.clone());
        let (filled, is_filled) = oneshot::channel();
        let (state, queue) = (Arc::clone(&self.state), self.queue.clone());
        tokio::spawn(async move {
            let resource = Arc::new(resource);
            let pump = pump(&informer, &resource, &state, &queue, filled);
            tokio::select! { () = pump => (), () = stop.cancelled() => () }
        });
        is_filled
    }

    fn look_at(&self, uids: Vec<String>) {
        uids.into_iter().for_each(|uid| self.queue.add(Key::cluster(uid)));
    }
}

/// Carries one kind's changes into the graph. What exists at first is not looked at: owners may still be missing.
async fn pump(
    informer: &Informer<Object>,
    resource: &Arc<ApiResource>,
    state: &State,
    queue: &WorkQueue<Key>,
    filled: oneshot::Sender<()>,
) {
    informer.synced().await;
    let mut changes = informer.subscribe();
    while let Ok(change) = changes.try_recv() {
        take(&mut state.graph.lock(), resource, &change);
    }
    // Nobody listens where the kind took too long.
    let _ = filled.send(());
    while let Some(change) = changes.recv().await {
        let concerned = take(&mut state.graph.lock(), resource, &change);
        concerned.into_iter().for_each(|uid| queue.add(Key::cluster(uid)));
    }
}

/// The uids that a change concerns.
fn take(graph: &mut Graph, resource: &Arc<ApiResource>, change: &Change<Object>) -> Vec<String> {
    let uid = |object: &Object| object.metadata.uid.clone().unwrap_or_default();
    match change {
        Change::Deleted(object) => graph.remove(&uid(object)),
        Change::Applied { old, new } => {
            // A watch that had to begin again may show a namesake in place of the object.
            let replaced = old.as_ref().map(|old| uid(old)).filter(|old| *old != uid(new));
            let mut concerned = replaced.map(|old| graph.remove(&old)).unwrap_or_default();
            concerned.extend(Item::of(resource, &new.metadata).map(|item| graph.apply(item)).into_iter().flatten());
            concerned
        }
    }
}

fn kinds(discovery: &Discovery) -> Kinds {
    let groups = discovery.groups();
    let all = groups.flat_map(|group| group.versions().flat_map(|version| group.versioned_resources(version)));
    all.map(|(resource, capabilities)| {
        let key = (resource.api_version.clone(), resource.kind.clone());
        (key, (resource, capabilities.scope == Scope::Namespaced))
    })
    .collect()
}

/// One version of everything that can be listed, watched and deleted; without events, which nobody owns or is owned by.
fn watchable(discovery: &Discovery) -> HashSet<ApiResource> {
    let can = |capabilities: &ApiCapabilities| {
        [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb))
    };
    let is_event =
        |resource: &ApiResource| resource.plural == "events" && matches!(resource.group.as_str(), "" | "events.k8s.io");
    let all = discovery.groups().flat_map(|group| group.recommended_resources());
    let wanted = all.filter(|(resource, capabilities)| can(capabilities) && !is_event(resource));
    wanted.map(|(resource, _)| resource).collect()
}
