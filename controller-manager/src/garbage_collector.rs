//! Removes what has lost all its owners, and sees owners off whose dependents go first or stay.
//!
//! Guarantees: an object is deleted only when the server itself has just said that none of its owners exists (or
//! that the remaining ones wait for it), in exactly the state in which it named them; a dependent is let go before
//! the finalizer `orphan` is.
//! Relies on:  uids are never used twice; the API server sets the finalizers that a deletion's propagation asks for.

mod absent;
mod feed;
mod graph;

use std::sync::Arc;

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Deletion, Failure, Harness, Note, Verb},
    events::EventType,
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PropagationPolicy},
};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{
    absent::Absent,
    feed::{Feed, Kinds},
    graph::{FOREGROUND, Graph, Item, Leaving, ORPHAN, has_finalizer},
};
use crate::caches::Caches;

/// What the collector knows of the cluster.
#[derive(Default)]
pub(crate) struct State {
    graph: Mutex<Graph>,
    kinds: RwLock<Kinds>,
    absent: Mutex<Absent>,
}

/// How an owner stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Solid,
    /// Its foreground deletion waits for its dependents.
    Waiting,
    Absent,
    /// There is no such owner where the object could be owned from, but there is elsewhere.
    Elsewhere,
    /// A namespaced owner of a cluster-scoped object: it cannot be looked up anywhere.
    Nowhere,
}

/// An object, live, and its relations.
pub struct Observed {
    resource: Arc<ApiResource>,
    key: Key,
    meta: ObjectMeta,
    /// Only of an object that is not leaving yet.
    owners: Vec<(OwnerReference, Standing)>,
    dependents: Vec<Arc<Item>>,
}

/// Keys are uids.
pub(crate) struct GarbageCollector {
    client: Client,
    state: Arc<State>,
}

impl GarbageCollector {
    async fn observe(&self, uid: &str) -> anyhow::Result<Option<Observed>> {
        let (item, dependents) = {
            let graph = self.state.graph.lock();
            let Some(item) = graph.get(uid) else { return Ok(None) };
            (item, graph.dependents(uid))
        };
        if item.leaving == Leaving::Plainly {
            return Ok(None);
        }
        let live = self.api(&item.resource, &item.key.namespace).get_metadata_opt(&item.key.name).await?;
        let Some(live) = live.filter(|live| live.metadata.uid.as_deref() == Some(uid)) else {
            // The watch will say so, too.
            return Ok(None);
        };
        let mut owners = Vec::new();
        if Leaving::of(&live.metadata) == Leaving::No {
            for owner in live.metadata.owner_references.iter().flatten() {
                owners.push((owner.clone(), self.standing(owner, &item.key.namespace).await?));
            }
        }
        let (resource, key) = (Arc::clone(&item.resource), item.key.clone());
        Ok(Some(Observed { resource, key, meta: live.metadata, owners, dependents }))
    }

    /// Asks the server about an owner named in `namespace`, unless its absence is known.
    async fn standing(&self, owner: &OwnerReference, namespace: &str) -> anyhow::Result<Standing> {
        if self.state.absent.lock().contains(owner, namespace) {
            return Ok(self.absence(owner, namespace));
        }
        let kind = (owner.api_version.clone(), owner.kind.clone());
        let Some((resource, is_namespaced)) = self.state.kinds.read().get(&kind).cloned() else {
            anyhow::bail!("the server has no kind {} in {}", owner.kind, owner.api_version);
        };
        if is_namespaced && namespace.is_empty() {
            return Ok(Standing::Nowhere);
        }
        let api = self.api(&resource, if is_namespaced { namespace } else { "" });
        match api.get_metadata_opt(&owner.name).await? {
            Some(found) if found.metadata.uid.as_ref() == Some(&owner.uid) => {
                let waits = Leaving::of(&found.metadata) == Leaving::Foreground;
                Ok(if waits { Standing::Waiting } else { Standing::Solid })
            }
            Some(_) | None => {
                self.state.absent.lock().add(owner, namespace);
                Ok(self.absence(owner, namespace))
            }
        }
    }

    fn absence(&self, owner: &OwnerReference, namespace: &str) -> Standing {
        let known = self.state.graph.lock().get(&owner.uid);
        let is_elsewhere = known.is_some_and(|item| !item.key.namespace.is_empty() && item.key.namespace != namespace);
        if is_elsewhere { Standing::Elsewhere } else { Standing::Absent }
    }

    fn api(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        match namespace {
            "" => Api::all_with(self.client.clone(), resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, resource),
        }
    }
}

impl Controller for GarbageCollector {
    const NAME: &'static str = "garbage_collector";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        self.observe(&key.name).await
    }

    fn decide(&self, observed: &Observed, _: Timestamp) -> Decision {
        decide(observed)
    }
}

pub(crate) fn run(_: &Caches, context: Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let state = Arc::new(State::default());
    let harness = Harness::new(GarbageCollector { client: context.client.clone(), state: Arc::clone(&state) });
    let mut feed = Feed::new(context.client.clone(), state, harness.queue());
    async move {
        let work = async {
            feed.fill().await;
            tokio::join!(feed.follow(), harness.run(context, stop.clone()));
        };
        tokio::select! { () = work => (), () = stop.cancelled() => () }
    }
    .boxed()
}

fn decide(observed: &Observed) -> Decision {
    let actions = match Leaving::of(&observed.meta) {
        Leaving::No => return collect(observed),
        Leaving::Plainly => Vec::new(),
        Leaving::Foreground => finish_foreground(observed),
        Leaving::Orphaning => finish_orphaning(observed),
    };
    Decision { actions, ..Decision::default() }
}

/// Whether an object that is not leaving may stay, and under which references.
fn collect(observed: &Observed) -> Decision {
    let mut decision = Decision { why: observed.misplaced_owners(), ..Decision::default() };
    let is = |standing: Standing| observed.owners.iter().any(|(_, other)| *other == standing);
    if observed.owners.is_empty() || is(Standing::Nowhere) {
        return decision;
    }
    let action = if is(Standing::Solid) {
        let is_solid = |(_, standing): &&(OwnerReference, Standing)| *standing == Standing::Solid;
        let solid: Vec<&OwnerReference> = observed.owners.iter().filter(is_solid).map(|(owner, _)| owner).collect();
        // Owners that wait are let go as well: else they would wait for ever.
        (solid.len() < observed.owners.len()).then(|| observed.patch("ownerReferences", json!(solid)))
    } else if is(Standing::Waiting) && !observed.dependents.is_empty() {
        Some(observed.unblock().unwrap_or_else(|| observed.delete(PropagationPolicy::Foreground)))
    } else if has_finalizer(&observed.meta, ORPHAN) {
        Some(observed.delete(PropagationPolicy::Orphan))
    } else if has_finalizer(&observed.meta, FOREGROUND) {
        Some(observed.delete(PropagationPolicy::Foreground))
    } else {
        Some(observed.delete(PropagationPolicy::Background))
    };
    decision.actions.extend(action);
    decision
}

/// The owner goes when nothing that blocks it is left. The graph queues it with each dependent that goes.
fn finish_foreground(observed: &Observed) -> Vec<Action> {
    let is_blocked = observed.dependents.iter().any(|dependent| dependent.blocks(observed.uid()));
    if is_blocked { Vec::new() } else { vec![observed.without_finalizer(FOREGROUND)] }
}

/// Every dependent is let go; the owner follows in a later pass, when the graph shows that none is left.
fn finish_orphaning(observed: &Observed) -> Vec<Action> {
    if observed.dependents.is_empty() {
        return vec![observed.without_finalizer(ORPHAN)];
    }
    let let_go = |dependent: &Arc<Item>| {
        let others: Vec<_> = dependent.owners.iter().filter(|owner| owner.uid != observed.uid()).collect();
        let (uid, revision) = (Some(dependent.uid.as_str()), dependent.revision.as_deref());
        patch(&dependent.resource, &dependent.key, uid, revision, "ownerReferences", json!(others))
    };
    observed.dependents.iter().map(let_go).collect()
}

impl Observed {
    fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    fn delete(&self, propagation: PropagationPolicy) -> Action {
        let deletion = Deletion {
            uid: self.meta.uid.clone(),
            revision: self.meta.resource_version.clone(),
            propagation: Some(propagation),
            ..Deletion::default()
        };
        Action::new(ApiResource::clone(&self.resource), self.key.clone(), Verb::Delete(deletion))
    }

    /// Sets one field of the metadata.
    fn patch(&self, field: &str, value: Value) -> Action {
        let (uid, revision) = (self.meta.uid.as_deref(), self.meta.resource_version.as_deref());
        patch(&self.resource, &self.key, uid, revision, field, value)
    }

    fn without_finalizer(&self, name: &str) -> Action {
        let others: Vec<_> = self.meta.finalizers.iter().flatten().filter(|finalizer| *finalizer != name).collect();
        self.patch("finalizers", json!(others))
    }

    /// Two objects that own each other would wait for each other: where a dependent already waits for its own
    /// dependents, this one first stops blocking its owners.
    fn unblock(&self) -> Option<Action> {
        let may_be_cycle = self.dependents.iter().any(|dependent| dependent.leaving == Leaving::Foreground);
        let blocks = self.owners.iter().any(|(owner, _)| owner.block_owner_deletion == Some(true));
        let free = |(owner, _): &(OwnerReference, Standing)| OwnerReference {
            block_owner_deletion: Some(false),
            ..owner.clone()
        };
        (may_be_cycle && blocks)
            .then(|| self.patch("ownerReferences", json!(self.owners.iter().map(free).collect::<Vec<_>>())))
    }

    /// What its user should know about owners that can never own it.
    fn misplaced_owners(&self) -> Vec<Note> {
        let misplaced = |standing: Standing| matches!(standing, Standing::Elsewhere | Standing::Nowhere);
        let owners = self.owners.iter().filter(|(_, standing)| misplaced(*standing));
        owners.map(|(owner, _)| self.misplaced(owner)).collect()
    }

    fn misplaced(&self, owner: &OwnerReference) -> Note {
        let OwnerReference { api_version, kind, name, uid, .. } = owner;
        let namespace = &self.key.namespace;
        let about = ObjectReference {
            api_version: Some(self.resource.api_version.clone()),
            kind: Some(self.resource.kind.clone()),
            name: Some(self.key.name.clone()),
            namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: self.meta.uid.clone(),
            ..ObjectReference::default()
        };
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
             namespace {namespace:?}"
        );
        Note { about, r#type: EventType::Warning, reason: "OwnerRefInvalidNamespace", message }
    }
}

/// A merge patch of one field of the metadata of an object in exactly this state.
fn patch(
    resource: &ApiResource,
    key: &Key,
    uid: Option<&str>,
    revision: Option<&str>,
    field: &str,
    value: Value,
) -> Action {
    let patch = json!({"metadata": {"uid": uid, "resourceVersion": revision, field: value}});
    Action::new(resource.clone(), key.clone(), Verb::Patch { patch, subresource: None })
}

#[cfg(test)]
mod tests;
