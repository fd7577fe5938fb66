//! What deleting an object means now: pure, after upstream's generic store.

use api::{Descriptor, Object, object::ObjectExt};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::meta::seconds;
use crate::options::DeleteOptions;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The decision.
#[derive(Debug, PartialEq)]
pub(super) enum Deletion {
    /// It goes away at once.
    Now,
    /// It is marked, and goes when its finalizers or its grace period are over.
    Mark(Object),
    /// It is on its way already and this request changes nothing.
    Pending,
}

/// What the grace period says, before finalizers are looked at.
enum Grace {
    /// The kind has none, or it is over.
    None,
    /// Running, and not to be shortened.
    Running,
    /// The object with its deadline set, so many seconds away.
    Set(Object, i64),
}

/// Decides about the deletion of `old`.
pub(super) fn decide(kind: &Descriptor, old: &Object, options: &DeleteOptions, now: Timestamp) -> Deletion {
    let is_namespace = kind.group.is_empty() && kind.kind == "Namespace";
    if is_namespace && !old.is_deleting() {
        return Deletion::Mark(terminating(kind, old, options, now));
    }
    if is_namespace && holds(old, "/spec/finalizers") {
        return Deletion::Pending;
    }
    let grace = match kind.group.is_empty() && kind.kind == "Pod" {
        true => pod_grace(old, options, now),
        false => Grace::None,
    };
    let finalizers = garbage_collection_finalizers(kind, old, options);
    match grace {
        Grace::Running => Deletion::Pending,
        Grace::None if finalizers.is_empty() => Deletion::Now,
        Grace::None => {
            let mut object = old.clone();
            mark(&mut object, now);
            set_finalizers(&mut object, finalizers);
            if object == *old { Deletion::Pending } else { Deletion::Mark(object) }
        }
        Grace::Set(_, 0) if finalizers.is_empty() => Deletion::Now,
        Grace::Set(mut object, _) => {
            set_finalizers(&mut object, finalizers);
            Deletion::Mark(object)
        }
    }
}

fn holds(object: &Object, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

fn terminating(kind: &Descriptor, old: &Object, options: &DeleteOptions, now: Timestamp) -> Object {
    let mut object = old.clone();
    object.set_metadata("deletionTimestamp", seconds(now));
    set_finalizers(&mut object, garbage_collection_finalizers(kind, old, options));
    object["status"]["phase"] = "Terminating".into();
    object
}

/// Sets the deletion timestamp of an object that has no grace period.
fn mark(object: &mut Object, now: Timestamp) {
    let deadline = deadline(object);
    if deadline.is_none() && object.generation() > 0 {
        object.set_metadata("generation", json!(object.generation() + 1));
    }
    if deadline.is_none_or(|deadline| deadline > now) {
        object.set_metadata("deletionTimestamp", seconds(now));
    }
    object.set_metadata("deletionGracePeriodSeconds", json!(0));
}

fn deadline(object: &Object) -> Option<Timestamp> {
    object.text("/metadata/deletionTimestamp").parse().ok()
}

fn set_finalizers(object: &mut Object, finalizers: Vec<String>) {
    object.set_metadata("finalizers", if finalizers.is_empty() { Value::Null } else { json!(finalizers) });
}

/// Pods leave slowly, unless no kubelet has them or they have ended.
fn pod_grace(old: &Object, options: &DeleteOptions, now: Timestamp) -> Grace {
    let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    if old.is_deleting() {
        return shortened(old, asked, now);
    }
    let declared = old.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let unscheduled = old.text("/spec/nodeName").is_empty();
    let ended = matches!(old.text("/status/phase"), "Failed" | "Succeeded");
    let period = match asked.or(declared).unwrap_or(0) {
        _ if unscheduled || ended => 0,
        period if period < 0 => 1,
        period => period,
    };
    let mut object = old.clone();
    object.set_metadata("deletionTimestamp", seconds(now + SignedDuration::from_secs(period)));
    object.set_metadata("deletionGracePeriodSeconds", json!(period));
    if old.generation() > 0 {
        object.set_metadata("generation", json!(old.generation() + 1));
    }
    Grace::Set(object, period)
}

/// A second deletion can only make the grace period shorter.
fn shortened(old: &Object, asked: Option<i64>, now: Timestamp) -> Grace {
    let running = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    if running == 0 {
        return Grace::None;
    }
    let Some(mut period) = asked.filter(|period| *period < running) else { return Grace::Running };
    let started = deadline(old).unwrap_or(now) - SignedDuration::from_secs(running);
    let mut deadline = started + SignedDuration::from_secs(period);
    if deadline < now {
        deadline = now;
        period = period.min(1);
    }
    let mut object = old.clone();
    object.set_metadata("deletionTimestamp", seconds(deadline));
    object.set_metadata("deletionGracePeriodSeconds", json!(period));
    Grace::Set(object, period)
}

/// The finalizers that the object has, with those for the garbage collector as the options want them.
fn garbage_collection_finalizers(kind: &Descriptor, old: &Object, options: &DeleteOptions) -> Vec<String> {
    let present: Vec<String> = old
        .pointer("/metadata/finalizers")
        .and_then(|finalizers| serde_json::from_value(finalizers.clone()).ok())
        .unwrap_or_default();
    let has = |name: &str| present.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        _ if kind.kind == "Event" => (false, false),
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        (None, None) if has(ORPHAN) => (true, false),
        (None, None) if has(FOREGROUND) => (false, true),
        (None, None) => (orphans_by_default(kind), false),
    };
    let others = present.iter().filter(|name| !matches!(name.as_str(), ORPHAN | FOREGROUND)).cloned();
    let asked = [(orphan, ORPHAN), (foreground, FOREGROUND)];
    others.chain(asked.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name.to_owned())).collect()
}

/// Kinds that kept their dependents before there was a choice.
pub(super) fn orphans_by_default(kind: &Descriptor) -> bool {
    matches!((kind.group.as_str(), kind.kind.as_str()), ("", "ReplicationController") | ("batch", "Job"))
}

/// Kinds whose DELETE answers the object instead of a Status (upstream: `ReturnDeletedObject`).
pub(super) fn answers_object(kind: &Descriptor) -> bool {
    const CORE: &[&str] = &[
        "namespaces",
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "podtemplates",
        "resourcequotas",
        "serviceaccounts",
        "services",
    ];
    match kind.group.as_str() {
        "" => CORE.contains(&kind.plural.as_str()),
        "storage.k8s.io" => kind.kind != "CSIStorageCapacity",
        "resource.k8s.io" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn decided(kind: &str, old: Value, options: DeleteOptions) -> String {
        let Some(found) = api::kinds::ALL.iter().find(|known| known.descriptor().kind == "ConfigMap") else {
            return String::new();
        };
        let descriptor = Descriptor { kind: kind.into(), ..found.descriptor().clone() };
        match decide(&descriptor, &old, &options, NOW.parse().unwrap()) {
            Deletion::Now => "now".into(),
            Deletion::Pending => "pending".into(),
            Deletion::Mark(object) => format!(
                "until {} grace {} finalizers {}",
                object.text("/metadata/deletionTimestamp"),
                object["metadata"]["deletionGracePeriodSeconds"],
                object["metadata"]["finalizers"]
            ),
        }
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    fn policy(name: &str) -> DeleteOptions {
        DeleteOptions { propagation_policy: Some(name.into()), ..DeleteOptions::default() }
    }

    fn running_pod(meta: Value) -> Value {
        json!({"metadata": meta, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}})
    }

    #[test]
    fn plain_objects_go_at_once_unless_finalizers_hold_them() {
        assert_eq!(decided("ConfigMap", json!({"metadata": {}}), DeleteOptions::default()), "now");
        let held = json!({"metadata": {"finalizers": ["a/b"]}});
        assert_eq!(
            decided("ConfigMap", held, DeleteOptions::default()),
            format!("until {NOW} grace 0 finalizers [\"a/b\"]")
        );
        let marked =
            json!({"metadata": {"finalizers": ["a/b"], "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0}});
        assert_eq!(decided("ConfigMap", marked, DeleteOptions::default()), "pending");
        let foreground = format!("until {NOW} grace 0 finalizers [\"foregroundDeletion\"]");
        assert_eq!(decided("ConfigMap", json!({"metadata": {}}), policy("Foreground")), foreground);
    }

    #[test]
    fn pods_leave_with_grace() {
        let marked = "until 2026-01-01T00:00:30Z grace 30 finalizers null";
        assert_eq!(decided("Pod", running_pod(json!({})), DeleteOptions::default()), marked);
        assert_eq!(decided("Pod", running_pod(json!({})), grace(0)), "now");
        assert_eq!(decided("Pod", json!({"metadata": {}}), DeleteOptions::default()), "now");
    }

    #[test]
    fn grace_can_only_be_shortened() {
        let leaving =
            running_pod(json!({"deletionTimestamp": "2026-01-01T00:00:20Z", "deletionGracePeriodSeconds": 30}));
        assert_eq!(decided("Pod", leaving.clone(), grace(60)), "pending");
        assert_eq!(decided("Pod", leaving.clone(), DeleteOptions::default()), "pending");
        assert_eq!(decided("Pod", leaving.clone(), grace(15)), "until 2026-01-01T00:00:05Z grace 15 finalizers null");
        assert_eq!(decided("Pod", leaving.clone(), grace(5)), "until 2026-01-01T00:00:00Z grace 1 finalizers null");
        assert_eq!(decided("Pod", leaving, grace(0)), "now");
    }

    #[test]
    fn namespaces_end_with_their_finalizers() {
        let namespace = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        assert_eq!(
            decided("Namespace", namespace.clone(), DeleteOptions::default()),
            format!("until {NOW} grace null finalizers null")
        );
        let mut ending = namespace;
        ending["metadata"]["deletionTimestamp"] = NOW.into();
        assert_eq!(decided("Namespace", ending.clone(), DeleteOptions::default()), "pending");
        ending["spec"]["finalizers"] = json!([]);
        assert_eq!(decided("Namespace", ending, DeleteOptions::default()), "now");
    }
}
