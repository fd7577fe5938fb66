//! What managers of fields may expect, told as stories: who writes what, who owns what then.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::Schemas;

fn schemas() -> Schemas {
    let definitions = json!({
        "Deployment": {"type": "object", "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"$ref": "#/$defs/Meta", "default": {}},
            "spec": {"$ref": "#/$defs/Spec", "default": {}},
            "status": {"$ref": "#/$defs/Status", "default": {}}}},
        "Meta": {"type": "object", "properties": {
            "name": {"type": "string"}, "uid": {"type": "string"}, "managedFields": {"type": "array"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}}}},
        "Spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "selector": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
            "containers": {"type": "array", "items": {"$ref": "#/$defs/Container"}, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"]},
            "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}}},
        "Container": {"type": "object", "properties": {
            "name": {"type": "string"}, "image": {"type": "string"},
            "args": {"type": "array", "items": {"type": "string"}},
            "env": {"type": "array", "items": {"$ref": "#/$defs/Container"}, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"]}}},
        "Status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    });
    Schemas::compile(definitions.as_object().unwrap())
}

/// An object over time.
struct Story {
    schemas: Schemas,
    object: Option<Value>,
    minute: i64,
}

impl Story {
    fn new() -> Self {
        Self { schemas: schemas(), object: None, minute: 0 }
    }

    fn write<T>(
        &mut self,
        manager: &str,
        subresource: &str,
        write: impl FnOnce(&Option<Value>, &Writer<'_>) -> T,
    ) -> T {
        self.minute += 1;
        let reset = match subresource {
            "status" => FieldSet::of_fields(&[&["spec"], &["metadata"]]),
            _ => FieldSet::of_fields(&[&["status"]]),
        };
        let writer = Writer {
            manager,
            api_version: "apps/v1",
            kind: "Deployment",
            subresource,
            now: Timestamp::from_second(self.minute * 60).unwrap(),
            schema: self.schemas.get("Deployment").unwrap(),
            reset: &reset,
        };
        write(&self.object, &writer)
    }

    fn try_apply(&mut self, manager: &str, spec: Value, force: bool) -> Result<(), Status> {
        let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
        self.apply_whole(manager, config, force)
    }

    fn apply_whole(&mut self, manager: &str, config: Value, force: bool) -> Result<(), Status> {
        let applied = self.write(manager, "", |live, writer| apply(live.as_ref(), &config, writer, force));
        let mut applied = applied?;
        applied.set_metadata("uid", "u".into());
        self.object = Some(applied);
        Ok(())
    }

    fn apply(&mut self, manager: &str, spec: Value) -> &mut Self {
        self.try_apply(manager, spec, false).unwrap();
        self
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) -> &mut Self {
        self.update_through(manager, "", change)
    }

    fn update_through(&mut self, manager: &str, subresource: &str, change: impl FnOnce(&mut Value)) -> &mut Self {
        let fresh = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
        let mut new = self.object.clone().unwrap_or(fresh);
        change(&mut new);
        self.write(manager, subresource, |old, writer| track_update(old.as_ref(), &mut new, writer));
        new.set_metadata("uid", "u".into());
        self.object = Some(new);
        self
    }

    fn spec(&self) -> Value {
        self.object.as_ref().map_or(Value::Null, |object| object["spec"].clone())
    }

    /// `manager operation: paths`, a line an entry.
    fn owners(&self) -> Vec<String> {
        let managed = Managed::decode(self.object.as_ref().unwrap()).unwrap();
        let line = |(manager, entry): (&Manager, &Entry)| {
            let paths: Vec<String> = entry.fields.paths().iter().map(|path| print_path(path)).collect();
            format!("{} {:?}: {}", manager.name, manager.operation, paths.join(" "))
        };
        managed.0.iter().map(line).collect()
    }
}

#[test]
fn a_conflict_names_manager_and_field() {
    let mut story = Story::new();
    story.update("kubectl-create", |object| object["spec"] = json!({"replicas": 3, "selector": {"a": "b"}}));
    let failure = story.try_apply("me", json!({"replicas": 5}), false).unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        failure.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    let cause = &failure.details.unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".spec.replicas"));
    assert_eq!(cause.message, "conflict with \"kubectl-create\" using apps/v1");

    let failure = story.try_apply("me", json!({"replicas": 5, "selector": {"c": "d"}}), false).unwrap_err();
    assert_eq!(
        failure.message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.replicas\n- .spec.selector"
    );
    story.try_apply("me", json!({"replicas": 5}), true).unwrap();
    assert_eq!(story.spec(), json!({"replicas": 5, "selector": {"a": "b"}}));
    assert_eq!(story.owners(), ["kubectl-create Update: .spec.selector", "me Apply: .spec.replicas"]);
}

#[test]
fn agreeing_is_no_conflict_and_shares_ownership() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1})).apply("b", json!({"replicas": 1}));
    assert_eq!(story.owners(), ["a Apply: .spec.replicas", "b Apply: .spec.replicas"]);
    story.apply("a", json!({}));
    assert_eq!(story.spec(), json!({"replicas": 1}), "b still wants it");
    story.apply("b", json!({}));
    assert_eq!(story.spec().get("replicas"), None);
}

#[test]
fn what_is_applied_no_longer_goes_unless_owned() {
    let mut story = Story::new();
    story.apply("a", json!({"containers": [{"name": "x", "image": "1", "args": ["z"]}, {"name": "y", "image": "1"}]}));
    story.update("b", |object| object["spec"]["containers"][0]["env"] = json!([{"name": "E"}]));
    story.apply("a", json!({"containers": [{"name": "x", "image": "2"}]}));
    assert_eq!(story.spec(), json!({"containers": [{"name": "x", "image": "2", "env": [{"name": "E"}]}]}));
    assert_eq!(
        story.owners(),
        [
            "a Apply: .spec.containers[name=\"x\"] .spec.containers[name=\"x\"].image .spec.containers[name=\"x\"].name",
            "b Update: .spec.containers[name=\"x\"].env .spec.containers[name=\"x\"].env[name=\"E\"] \
         .spec.containers[name=\"x\"].env[name=\"E\"].name",
        ]
    );
}

#[test]
fn what_a_manager_never_applied_stays() {
    let mut story = Story::new();
    story.update("b", |object| object["spec"] = json!({"replicas": 1, "finalizers": ["p"]}));
    story.apply("a", json!({"finalizers": ["q"]})).apply("a", json!({}));
    assert_eq!(story.spec(), json!({"replicas": 1, "finalizers": ["p"]}));
}

#[test]
fn an_update_takes_fields_over() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1, "containers": [{"name": "x", "image": "1"}]}));
    story.update("b", |object| {
        object["spec"]["replicas"] = 2.into();
        object["spec"]["containers"] = json!([]);
    });
    assert_eq!(story.owners(), ["b Update: .spec.replicas"]);
    story.update_through("c", "status", |object| object["status"] = json!({"replicas": 2}));
    assert_eq!(story.owners(), ["b Update: .spec.replicas", "c Update: .status.replicas"]);
    let fields = story.object.as_ref().unwrap().pointer("/metadata/managedFields").unwrap();
    assert_eq!(fields[1]["subresource"], "status");
    assert_eq!(fields[1]["time"], "1970-01-01T00:03:00Z");
}

#[test]
fn a_create_owns_containers_of_values_and_not_structures_that_are_always_there() {
    let mut story = Story::new();
    story.update("kubectl", |object| {
        object["metadata"]["labels"] = json!({"app": "x"});
        object["spec"] = json!({"containers": [{"name": "c", "image": "i"}]});
        object["status"] = json!({"replicas": 9});
    });
    let fields = &story.object.as_ref().unwrap()["metadata"]["managedFields"][0]["fieldsV1"];
    let container = json!({".": {}, "f:image": {}, "f:name": {}});
    assert_eq!(
        *fields,
        json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {".": {}, "k:{\"name\":\"c\"}": container}}})
    );
}

#[test]
fn objects_from_before_any_record() {
    let mut story = Story::new();
    story.object = Some(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "uid": "u"},
        "spec": {"replicas": 1}}));
    story.update("x", |object| object["spec"]["replicas"] = 2.into());
    assert_eq!(story.owners(), [""; 0], "nothing is recorded before the first apply");
    let failure = story.try_apply("me", json!({"replicas": 3}), false).unwrap_err();
    assert!(failure.message.contains("conflict with \"before-first-apply\" using apps/v1: .spec.replicas"));
}

#[test]
fn managed_fields_can_be_reset_and_not_applied() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1}));
    story.update("b", |object| object["metadata"]["managedFields"] = json!([{}]));
    assert_eq!(story.owners(), [""; 0]);
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"managedFields": []}});
    let failure = story.apply_whole("a", config, false).unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (400, "metadata.managedFields must be nil"));
}

#[test]
fn kubectl_moves_from_client_side_to_server_side() {
    let last = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 1, "containers": [{"name": "c", "image": "1"}]}});
    let mut story = Story::new();
    story.update("kubectl-client-side-apply", |object| {
        object["spec"] = last["spec"].clone();
        object["metadata"]["annotations"] = json!({LAST_APPLIED: last.to_string()});
    });
    assert!(story.try_apply("someone", json!({"containers": [{"name": "c", "image": "2"}]}), false).is_err());
    story.apply("kubectl", json!({"replicas": 1, "containers": [{"name": "c", "image": "2"}]}));
    assert_eq!(story.spec()["containers"][0]["image"], "2");
    let annotation = story.object.as_ref().unwrap()["metadata"]["annotations"][LAST_APPLIED].clone();
    assert!(annotation.as_str().unwrap().contains("\"image\":\"2\""));
}

#[test]
fn what_is_no_object_of_the_kind_is_refused() {
    let mut story = Story::new();
    let failure = story.try_apply("a", json!({"replicas": 1, "nope": 1}), false).unwrap_err();
    assert_eq!(
        failure.message,
        "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.nope: field not declared in schema"
    );
    let failure = story.apply_whole("a", json!({"apiVersion": "v1", "kind": "Pod"}), false).unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (400, "invalid object type: /v1, Kind=Pod"));
}

#[test]
fn user_agents_name_managers() {
    assert_eq!(manager_of_user_agent("kubectl/v1.35.2 (linux/amd64) kubernetes/abc"), "kubectl");
    assert_eq!(manager_of_user_agent(""), "");
    assert_eq!(manager_of_user_agent(&"a".repeat(500)).len(), MANAGER_BYTES_MAX);
}

fn specs() -> impl Strategy<Value = Value> {
    let container = ("[ab]", "[12]", proptest::option::of("[xy]")).prop_map(|(name, image, arg)| {
        let mut container = json!({"name": name, "image": image});
        if let Some(arg) = arg {
            container["args"] = json!([arg]);
        }
        container
    });
    let containers = proptest::collection::vec(container, 0..3).prop_map(|containers| {
        let mut kept: Vec<Value> = Vec::new();
        for container in containers {
            if !kept.iter().any(|other| other["name"] == container["name"]) {
                kept.push(container);
            }
        }
        kept
    });
    (proptest::option::of(0..3i64), containers, proptest::collection::btree_set("[pqr]", 0..3)).prop_map(
        |(replicas, containers, finalizers)| {
            let mut spec = json!({});
            if let Some(replicas) = replicas {
                spec["replicas"] = replicas.into();
            }
            if !containers.is_empty() {
                spec["containers"] = containers.into();
            }
            if !finalizers.is_empty() {
                spec["finalizers"] = json!(finalizers);
            }
            spec
        },
    )
}

proptest! {
    #[test]
    fn apply_is_idempotent(first in specs(), other in specs(), second in specs()) {
        let mut story = Story::new();
        story.try_apply("a", first, true).unwrap();
        story.try_apply("b", other, true).unwrap();
        story.try_apply("a", second.clone(), true).unwrap();
        let once = story.object.clone();
        story.apply("a", second);
        prop_assert_eq!(once, story.object);
    }

    #[test]
    fn a_sole_manager_gets_what_it_applies(first in specs(), second in specs()) {
        let mut story = Story::new();
        story.apply("a", first).apply("a", second.clone());
        let mut spec = story.spec();
        // An emptied structure may be gone altogether.
        if spec.is_null() {
            spec = json!({});
        }
        prop_assert_eq!(sorted(&spec), sorted(&second));
    }
}

/// Lists whose order says nothing, in one order.
fn sorted(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for list in ["containers", "finalizers"] {
        if let Some(items) = spec.get_mut(list).and_then(Value::as_array_mut) {
            items.sort_by_key(Value::to_string);
        }
    }
    spec
}
