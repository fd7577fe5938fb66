//! Objects as rows: what `kubectl get` prints.

use api::{AnyKind, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A Table of these objects. `include` says what of the object each row carries: `None`, `Metadata`
/// (also when empty) or `Object`.
pub fn table(
    kind: &dyn AnyKind,
    objects: impl IntoIterator<Item = Object>,
    metadata: Value,
    version: &str,
    include: &str,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|object| row(kind, object, version, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": columns(kind),
        "rows": rows,
    })
}

/// The column definitions alone.
pub fn columns(kind: &dyn AnyKind) -> Vec<Value> {
    let column = |column: api::Column| {
        json!({
            "name": column.name,
            "type": column.r#type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    kind.columns().into_iter().map(column).collect()
}

fn row(kind: &dyn AnyKind, object: Object, version: &str, include: &str, now: Timestamp) -> Value {
    let cells = kind.row(&object, now);
    let object = match include {
        "None" => Value::Null,
        "Object" => object,
        _ => metadata_only(&object, version),
    };
    json!({"cells": cells, "object": object})
}

/// The object without spec and status.
pub fn metadata_only(object: &Object, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}
