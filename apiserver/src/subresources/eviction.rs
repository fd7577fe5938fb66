//! `pods/eviction`: deletes a Pod if its PodDisruptionBudget allows that.

use std::sync::Arc;

use api::{Object, Status, object::ObjectExt, selector::Selector};
use axum::body::Body;
use k8s_openapi::{api::policy::v1::PodDisruptionBudget, apimachinery::pkg::apis::meta::v1::LabelSelector};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answered, admit, builtin, call_about, created, disruption, kubelet, posted};
use crate::{
    Server,
    call::Call,
    options::DeleteOptions,
    registry::{Change, Part},
    respond::parse,
    view::View as _,
};

/// How often a Pod that needs no budget is looked at again because it moved.
const ATTEMPTS_MAX: usize = 20;

pub(super) fn create(server: Arc<Server>, mut call: Call, body: Body) -> Answered {
    Box::pin(async move {
        let mut eviction = posted(&mut call, body, "Eviction").await?;
        if eviction.name() != call.name() {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut options = match eviction.get("deleteOptions") {
            Some(options) if !options.is_null() => DeleteOptions::from_body(options)?,
            _ => DeleteOptions::default(),
        };
        options.dry_run |= call.options.dry_run;
        call.options.dry_run = options.dry_run;
        admit(&server, &call, &mut eviction).await?;
        evict(&server, &call, &options).await?;
        Ok(created())
    })
}

async fn evict(server: &Server, call: &Call, options: &DeleteOptions) -> Result<(), Status> {
    for _ in 0..ATTEMPTS_MAX {
        let pod = kubelet::pod(server, call)?;
        if is_beyond_budgets(&pod) {
            match delete(server, call, &pinned(options, &pod)).await {
                Err(status) if status.code == 409 && options.resource_version.is_none() => continue,
                result => return result,
            }
        }
        return within_budget(server, call, options, &pod).await;
    }
    Err(Status::modified(call.resource(), call.name()))
}

/// Ended, not yet begun, or leaving already: its end disrupts nothing.
fn is_beyond_budgets(pod: &Object) -> bool {
    matches!(pod.text("/status/phase"), "Succeeded" | "Failed" | "Pending") || pod.is_deleting()
}

/// With the Pod's present state as a precondition, so that it cannot get ready in between.
fn pinned(options: &DeleteOptions, pod: &Object) -> DeleteOptions {
    let ended = matches!(pod.text("/status/phase"), "Succeeded" | "Failed") || pod.is_deleting();
    let version = (!ended).then(|| pod.resource_version().to_owned());
    DeleteOptions { resource_version: options.resource_version.clone().or(version), ..options.clone() }
}

async fn within_budget(server: &Server, call: &Call, options: &DeleteOptions, pod: &Object) -> Result<(), Status> {
    let budgets = budgets_of(server, pod);
    let budget = match budgets.as_slice() {
        [] => return delete(server, call, options).await,
        [one] => one,
        _ => {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::unknown(why));
        }
    };
    if !disruption::is_ready(pod) {
        let mut typed = PodDisruptionBudget::deserialize(&**budget).map_err(Status::internal)?;
        refresh(server, &mut typed, call.namespace());
        if disruption::may_go_unhealthy(&typed) {
            let pinned = DeleteOptions {
                resource_version: options.resource_version.clone().or(Some(pod.resource_version().into())),
                ..options.clone()
            };
            return match delete(server, call, &pinned).await {
                Err(status) if status.code == 409 && options.resource_version.is_none() => {
                    let why =
                        format!("The disruption budget {} is still being processed by the server.", budget.name());
                    Err(disruption::refused(&why, 10))
                }
                result => result,
            };
        }
    }
    take_disruption(server, call, budget.name(), pod.name()).await?;
    delete(server, call, options).await
}

fn budgets_of(server: &Server, pod: &Object) -> Vec<Arc<Object>> {
    let mut budgets = server.cache.list("policy", "poddisruptionbudgets", Some(pod.namespace()));
    budgets.retain(|budget| selects(budget, pod));
    budgets
}

fn selects(budget: &Object, pod: &Object) -> bool {
    let selector =
        budget.pointer("/spec/selector").cloned().and_then(|it| serde_json::from_value::<LabelSelector>(it).ok());
    let labels = pod.object_meta().labels.unwrap_or_default();
    selector.is_some_and(|selector| Selector::from_api(Some(&selector)).is_ok_and(|selector| selector.matches(&labels)))
}

/// Notes in the budget's status, by compare-and-swap, that the Pod goes.
async fn take_disruption(server: &Server, call: &Call, budget: &str, pod: &str) -> Result<(), Status> {
    let call = call_about(call, builtin("policy", "v1", "poddisruptionbudgets")?, budget, "status");
    let make = |old: Option<&Object>| {
        let Some(old) = old else { return Err(call.not_found()) };
        let mut typed = PodDisruptionBudget::deserialize(old).map_err(Status::internal)?;
        refresh(server, &mut typed, call.namespace());
        disruption::take(&mut typed, pod, server.clock.now())?;
        serde_json::to_value(typed).map_err(Status::internal)
    };
    match server.change(&call, &Change { part: Part::Status, make: &make, creates: false }).await {
        // The budget is gone: nothing guards the Pod any more.
        Err(status) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

/// Brings the numbers of a stale budget up to date.
fn refresh(server: &Server, budget: &mut PodDisruptionBudget, namespace: &str) {
    let Ok(object) = serde_json::to_value(&*budget) else { return };
    let mut pods = server.cache.list("", "pods", Some(namespace));
    pods.retain(|pod| selects(&object, pod));
    let pods: Vec<&Object> = pods.iter().map(|pod| &**pod).collect();
    let expected = expected_pods(server, namespace, &pods);
    disruption::refresh(budget, &disruption::Guarded { pods, expected });
}

/// The sum of what the Pods' controllers want; a Pod without one counts for itself.
fn expected_pods(server: &Server, namespace: &str, pods: &[&Object]) -> i32 {
    let mut seen: Vec<&str> = Vec::new();
    let mut expected = 0;
    for pod in pods {
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        let wanted = owner.and_then(|owner| wanted_by(server, namespace, owner));
        match (owner, wanted) {
            (Some(owner), Some(_)) if seen.contains(&owner.text("/uid")) => {}
            (Some(owner), Some(wanted)) => {
                seen.push(owner.text("/uid"));
                expected += wanted;
            }
            _ => expected += 1,
        }
    }
    expected
}

fn wanted_by(server: &Server, namespace: &str, owner: &Value) -> Option<i32> {
    let (group, resource) = match owner.text("/kind") {
        "ReplicaSet" => ("apps", "replicasets"),
        "StatefulSet" => ("apps", "statefulsets"),
        "ReplicationController" => ("", "replicationcontrollers"),
        _ => return None,
    };
    let controller = server.cache.get(group, resource, namespace, owner.text("/name"))?;
    i32::try_from(controller.pointer("/spec/replicas")?.as_i64()?).ok()
}

/// Says on the Pod why it goes, and deletes it.
async fn delete(server: &Server, call: &Call, options: &DeleteOptions) -> Result<(), Status> {
    let mut options = options.clone();
    if !options.dry_run {
        let make = |pod: Option<&Object>| {
            let pod = pod.ok_or_else(|| call.not_found())?;
            options.check(call.resource(), call.name(), pod)?;
            Ok(marked(pod, server.clock.now()))
        };
        let written = server.change(call, &Change { part: Part::Whole, make: &make, creates: false }).await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(parse(&written.bytes).resource_version().to_owned());
        }
    }
    server.delete_named(call, &options).await
}

fn marked(pod: &Object, now: jiff::Timestamp) -> Object {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut pod = pod.clone();
    let conditions = &mut pod["status"]["conditions"];
    let mut list = conditions.as_array().cloned().unwrap_or_default();
    let is_set = |condition: &Value| condition["type"] == "DisruptionTarget" && condition["status"] == "True";
    if !list.iter().any(is_set) {
        list.retain(|condition| condition["type"] != "DisruptionTarget");
        list.push(json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": now}));
        *conditions = list.into();
    }
    pod
}
