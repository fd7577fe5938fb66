//! Definitions: JSON Schema in the words of OpenAPI 2 or 3.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Dialect, group_version_kind};
use crate::{Descriptor, kind::Subresource};

pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The type of a patch's body.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// What subresources exchange, by group, version and kind.
const EXCHANGED: &[(&str, &str, &str, &str)] = &[
    ("autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale"),
    ("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction"),
    ("", "v1", "Binding", "io.k8s.api.core.v1.Binding"),
    ("authentication.k8s.io", "v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
];

/// Group and version of what a subresource exchanges: its parent's where it names none.
pub(super) fn group_version<'a>(parent: &'a Descriptor, subresource: &Subresource) -> (&'a str, &'a str) {
    match (subresource.group, subresource.version) {
        ("", "") => (&parent.group, &parent.version),
        other => other,
    }
}

/// The definition of what a subresource exchanges, if that is an object.
pub(super) fn exchanged<'a>(parent: &'a Descriptor, subresource: &Subresource) -> Option<&'a str> {
    if subresource.kind == parent.kind {
        return Some(&parent.schema_name);
    }
    let (group, version) = group_version(parent, subresource);
    let known = EXCHANGED.iter().find(|known| (known.0, known.1, known.2) == (group, version, subresource.kind));
    known.map(|known| known.3)
}

pub(super) fn list_name(kind: &Descriptor) -> String {
    format!("{}List", kind.schema_name)
}

/// The definitions that `kinds` need, closed under references. `all` are the kinds of the server.
pub(super) fn render(
    kinds: &[&Descriptor],
    all: &[&Descriptor],
    definitions: &Map<String, Value>,
    dialect: Dialect,
) -> Map<String, Value> {
    let roots = kinds.iter().map(|kind| kind.schema_name.as_str());
    let exchanged =
        kinds.iter().flat_map(|kind| kind.subresources.iter().filter_map(|subresource| exchanged(kind, subresource)));
    let mut needed = BTreeSet::new();
    for root in roots.chain(exchanged).chain([DELETE_OPTIONS, STATUS, LIST_META]) {
        collect(root, definitions, &mut needed);
    }
    let mut rendered = Map::new();
    for name in needed {
        let schema =
            definitions.get(&name).map_or_else(|| json!({}), |definition| translate(&name, definition, dialect));
        rendered.insert(name, schema);
    }
    for kind in kinds {
        rendered.insert(list_name(kind), list(kind, dialect));
    }
    rendered.insert(PATCH.into(), patch());
    name_kinds(&mut rendered, all);
    rendered
}

/// `name` and everything it refers to.
fn collect(name: &str, definitions: &Map<String, Value>, needed: &mut BTreeSet<String>) {
    if let (Some(definition), true) = (definitions.get(name), needed.insert(name.to_owned())) {
        collect_references(definition, definitions, needed);
    }
}

fn collect_references(schema: &Value, definitions: &Map<String, Value>, needed: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(target) = map.get("$ref").and_then(Value::as_str).and_then(|target| target.rsplit('/').next()) {
                collect(target, definitions, needed);
            }
            map.values().for_each(|value| collect_references(value, definitions, needed));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, definitions, needed)),
        _ => {}
    }
}

fn patch() -> Value {
    let description = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";
    json!({"description": description, "type": "object"})
}

fn list(kind: &Descriptor, dialect: Dialect) -> Value {
    let items = match dialect {
        Dialect::V2 => dialect.reference(&kind.schema_name),
        Dialect::V3 => json!({"allOf": [dialect.reference(&kind.schema_name)], "default": {}}),
    };
    let name = &kind.kind;
    json!({
        "description": format!("{name}List is a list of {name} objects."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "APIVersion defines the versioned schema of this representation of an object."},
            "kind": {"type": "string", "description": "Kind is a string value representing the REST resource this object represents."},
            "metadata": dialect.reference(LIST_META),
            "items": {"type": "array", "items": items, "description": format!("Items is the list of {name} objects.")},
        },
    })
}

/// Says which kinds the definitions are.
fn name_kinds(rendered: &mut Map<String, Value>, all: &[&Descriptor]) {
    let mut name = |definition: &str, kinds: Value| {
        if let Some(definition) = rendered.get_mut(definition).and_then(Value::as_object_mut) {
            definition.insert("x-kubernetes-group-version-kind".into(), kinds);
        }
    };
    for kind in all {
        let Descriptor { group, version, kind: kind_name, .. } = kind;
        name(&kind.schema_name, json!([group_version_kind(group, version, kind_name)]));
        name(&list_name(kind), json!([group_version_kind(group, version, &format!("{kind_name}List"))]));
    }
    for (group, version, kind, definition) in EXCHANGED {
        name(definition, json!([group_version_kind(group, version, kind)]));
    }
    let versions: BTreeSet<(&str, &str)> =
        all.iter().map(|kind| (kind.group.as_str(), kind.version.as_str())).collect();
    let options = versions.iter().map(|(group, version)| group_version_kind(group, version, "DeleteOptions"));
    name(DELETE_OPTIONS, options.collect());
    name(STATUS, json!([group_version_kind("", "v1", "Status")]));
}

fn translate(name: &str, definition: &Value, dialect: Dialect) -> Value {
    if name.ends_with(".resource.Quantity") {
        let description = definition.get("description").cloned().unwrap_or_default();
        return match dialect {
            Dialect::V2 => json!({"description": description, "type": "string"}),
            Dialect::V3 => json!({"description": description, "oneOf": [{"type": "string"}, {"type": "number"}]}),
        };
    }
    translated(definition, dialect)
}

fn translated(schema: &Value, dialect: Dialect) -> Value {
    let Value::Object(schema) = schema else { return json!({}) };
    let mut out = Map::new();
    for (key, value) in schema {
        let value = match (key.as_str(), value) {
            ("$ref" | "x-kubernetes-int-or-string", _) => continue,
            // Upstream publishes defaults in v3 only.
            ("default", _) if dialect == Dialect::V2 => continue,
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter().map(|(name, field)| (name.clone(), translated(field, dialect)));
                Value::Object(properties.collect())
            }
            ("items" | "additionalProperties" | "not", Value::Object(_)) => translated(value, dialect),
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                parts.iter().map(|part| translated(part, dialect)).collect()
            }
            (_, value) => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        out.insert("format".into(), "int-or-string".into());
        match dialect {
            Dialect::V2 => out.insert("type".into(), "string".into()),
            Dialect::V3 => out.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}])),
        };
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.rsplit('/').next()) {
        let reference = dialect.reference(target);
        match dialect {
            // Version 3 forbids anything beside a reference.
            Dialect::V3 if !out.is_empty() => {
                out.insert("allOf".into(), json!([reference]));
            }
            _ => {
                out.insert("$ref".into(), reference["$ref"].clone());
            }
        }
    }
    Value::Object(out)
}
