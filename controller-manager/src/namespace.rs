//! Empties namespaces that are being deleted, Pods first, then lets them go.
//!
//! Guarantees: deletes only in namespaces that are being deleted; gives the finalizer back only when nothing is left
//! and everything could be asked for; the conditions say what stands in the way.
//! Relies on:  the API server lets nothing new into such a namespace.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Deletion, Failure, Harness, Verb},
    informer::{Change, Informer},
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, PropagationPolicy},
};
use tokio_util::sync::CancellationToken;

use crate::{caches::Caches, discovery};

/// What the namespace's own finalizer is called.
const FINALIZER: &str = "kubernetes";
/// Between looks at a namespace whose objects were just deleted, and at one that waits for finalizers or
/// containers. Only namespaces that are being deleted are looked at again; Pods report their end themselves.
const AFTER_DELETES: Duration = Duration::from_millis(50);
const WHILE_WAITING: Duration = Duration::from_secs(2);

/// A namespace that is being deleted, and what is still in it.
pub struct Observed {
    namespace: Arc<Namespace>,
    remaining: Vec<(ApiResource, Vec<ObjectMeta>)>,
    /// Groups of the API that could not be asked.
    undiscovered: Vec<String>,
    failure: Option<Failure>,
}

pub(crate) struct Namespaces {
    namespaces: Informer<Namespace>,
    client: Client,
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default()
}

fn is_to_empty(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some() && finalizers(namespace).iter().any(|name| name == FINALIZER)
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace";
    type Observed = Observed;

    async fn observe(&self, key: &Key, failure: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        let Some(namespace) = self.namespaces.get("", &key.name).filter(|namespace| is_to_empty(namespace)) else {
            return Ok(None);
        };
        let found = discovery::discover(&self.client).await?;
        let mut remaining = Vec::new();
        for resource in found.resources.into_iter().filter(|resource| resource.namespaced) {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.name, &resource.api);
            let objects = match api.list_metadata(&ListParams::default()).await {
                Ok(list) => list.items,
                // The kind was removed, or does not offer this after all.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => continue,
                Err(error) => return Err(error.into()),
            };
            if !objects.is_empty() {
                remaining.push((resource.api, objects.into_iter().map(|object| object.metadata).collect()));
            }
        }
        Ok(Some(Observed { namespace, remaining, undiscovered: found.failures, failure }))
    }

    fn decide(&self, observed: &Observed, now: Timestamp) -> Decision {
        decide(observed, now)
    }
}

pub(crate) fn run(caches: &Caches, context: Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let controller = Namespaces { namespaces: caches.namespaces(), client: context.client.clone() };
    let (namespaces, pods) = (controller.namespaces.clone(), caches.pods());
    Harness::new(controller)
        .watch(&namespaces, |_, change| {
            Some(change.object()).filter(|namespace| is_to_empty(namespace)).map(|namespace| Key::of(&**namespace))
        })
        .watch(&pods, |this: &Namespaces, change: &Change<Pod>| {
            let Change::Deleted(pod) = change else { return None };
            let namespace = this.namespaces.get("", pod.metadata.namespace.as_deref()?)?;
            is_to_empty(&namespace).then(|| Key::of(&*namespace))
        })
        .run(context, stop)
        .boxed()
}

fn decide(observed: &Observed, now: Timestamp) -> Decision {
    let namespace = &*observed.namespace;
    let mut decision = Decision::default();
    if observed.remaining.is_empty() && observed.undiscovered.is_empty() {
        let mut emptied = namespace.clone();
        if let Some(names) = emptied.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            names.retain(|name| name != FINALIZER);
        }
        decision.actions.push(Action::replace_in("finalize", &emptied));
        return decision;
    }
    let is_pods = |resource: &ApiResource| resource.group.is_empty() && resource.plural == "pods";
    let has_pods = observed.remaining.iter().any(|(resource, _)| is_pods(resource));
    for (resource, objects) in observed.remaining.iter().filter(|(resource, _)| !has_pods || is_pods(resource)) {
        let present = objects.iter().filter(|meta| meta.deletion_timestamp.is_none());
        decision.actions.extend(present.map(|meta| delete(resource, meta)));
    }
    let pause = if decision.actions.is_empty() { WHILE_WAITING } else { AFTER_DELETES };
    decision.check_again(Some(now + pause));
    let status = NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(conditions(observed, now)) };
    decision.status = Action::status(namespace, &Namespace { status: Some(status), ..namespace.clone() });
    decision
}

fn delete(resource: &ApiResource, meta: &ObjectMeta) -> Action {
    let key = Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let deletion =
        Deletion { uid: meta.uid.clone(), propagation: Some(PropagationPolicy::Background), ..Deletion::default() };
    Action::new(resource.clone(), key, Verb::Delete(deletion))
}

/// What stands in the way, by type; upstream's reasons and sentences.
fn conditions(observed: &Observed, now: Timestamp) -> Vec<NamespaceCondition> {
    let mut resources: Vec<String> = Vec::new();
    let mut by_finalizer: BTreeMap<&str, usize> = BTreeMap::new();
    for (resource, objects) in &observed.remaining {
        let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        let dot = if group.is_empty() { "." } else { "" };
        resources.push(format!("{}{group}{dot} has {} resource instances", resource.plural, objects.len()));
        for name in objects.iter().flat_map(|meta| meta.finalizers.iter().flatten()) {
            *by_finalizer.entry(name).or_default() += 1;
        }
    }
    resources.sort_unstable();
    let finalizers: Vec<String> =
        by_finalizer.into_iter().map(|(name, number)| format!("{name} in {number} resource instances")).collect();
    let undiscovered = Some(&observed.undiscovered).filter(|failures| !failures.is_empty()).map(|failures| {
        let message = format!("Discovery failed for some groups, {} failing: {}", failures.len(), failures.join(", "));
        ("DiscoveryFailed", message)
    });
    let undeleted = observed.failure.as_ref().map(|failure| {
        ("ContentDeletionFailed", format!("Failed to delete all resource types, 1 remaining: {}", failure.message))
    });
    let remaining = (!resources.is_empty())
        .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", resources.join(", "))));
    let finalizing = (!finalizers.is_empty()).then(|| {
        let list = finalizers.join(", ");
        ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {list}"))
    });
    let fine = [
        ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
        ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    ];
    let wrong = [undiscovered, None, undeleted, remaining, finalizing];
    let known = observed.namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let pairs = fine.into_iter().zip(wrong);
    pairs.map(|((r#type, reason, message), wrong)| condition(known, r#type, (reason, message), wrong, now)).collect()
}

fn condition(
    known: &[NamespaceCondition],
    r#type: &str,
    fine: (&str, &str),
    wrong: Option<(&str, String)>,
    now: Timestamp,
) -> NamespaceCondition {
    let status = if wrong.is_some() { "True" } else { "False" };
    let (reason, message) = wrong.unwrap_or((fine.0, fine.1.to_owned()));
    let old = known.iter().find(|old| old.type_ == r#type && old.status == status);
    NamespaceCondition {
        type_: r#type.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(now))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(remaining: &[(&str, &[(&str, bool)])]) -> Vec<String> {
        let namespace = serde_json::json!({
            "metadata": {"name": "dev", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]},
        });
        let meta = |name: &str, leaving: bool| ObjectMeta {
            name: Some(name.into()),
            namespace: Some("dev".into()),
            deletion_timestamp: leaving.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        let resource = |plural: &str| ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: plural.into(),
            plural: plural.into(),
        };
        let remaining = remaining.iter().map(|(plural, objects)| {
            (resource(plural), objects.iter().map(|(name, leaving)| meta(name, *leaving)).collect())
        });
        let observed = Observed {
            namespace: Arc::new(serde_json::from_value(namespace).unwrap()),
            remaining: remaining.collect(),
            undiscovered: Vec::new(),
            failure: None,
        };
        let decision = decide(&observed, Timestamp::UNIX_EPOCH);
        decision.actions.iter().chain(&decision.status).map(ToString::to_string).collect()
    }

    #[test]
    fn pods_go_first_then_the_rest_then_the_finalizer() {
        let first = check(&[("configmaps", &[("c", false)]), ("pods", &[("p", false), ("q", true)])]);
        assert_eq!(first, ["delete pods dev/p Background", "replace Namespace/status dev"]);
        let then = check(&[("configmaps", &[("c", false)])]);
        assert_eq!(then, ["delete configmaps dev/c Background", "replace Namespace/status dev"]);
        assert_eq!(check(&[]), ["replace Namespace/finalize dev"]);
    }
}
