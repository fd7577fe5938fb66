//! Reading and writing the metadata of an object that is held as a JSON value.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

/// A Kubernetes object as JSON.
pub type Object = Value;

/// Metadata accessors over a JSON object. Missing and mistyped read as absent.
pub trait ObjectExt {
    fn text(&self, pointer: &str) -> &str;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn uid(&self) -> &str;
    fn resource_version(&self) -> &str;
    fn generation(&self) -> i64;
    fn is_deleting(&self) -> bool;
    /// Typed metadata; default where it does not decode.
    fn object_meta(&self) -> ObjectMeta;
    /// The metadata map, made where it is missing.
    fn metadata_mut(&mut self) -> &mut Map<String, Value>;
    /// Sets `metadata.<field>`; `Null` removes it.
    fn set_metadata(&mut self, field: &str, value: Value);
    fn set_object_meta(&mut self, meta: &ObjectMeta);
}

impl ObjectExt for Value {
    fn text(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
    fn name(&self) -> &str {
        self.text("/metadata/name")
    }
    fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }
    fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }
    fn resource_version(&self) -> &str {
        self.text("/metadata/resourceVersion")
    }
    fn generation(&self) -> i64 {
        self.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0)
    }
    fn is_deleting(&self) -> bool {
        self.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null())
    }
    fn object_meta(&self) -> ObjectMeta {
        self.get("metadata").and_then(|meta| serde_json::from_value(meta.clone()).ok()).unwrap_or_default()
    }
    fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        if !self.is_object() {
            *self = Value::Object(Map::new());
        }
        let meta = &mut self["metadata"];
        if !meta.is_object() {
            *meta = Value::Object(Map::new());
        }
        match meta {
            Value::Object(map) => map,
            _ => unreachable!("made an object above"),
        }
    }
    fn set_metadata(&mut self, field: &str, value: Value) {
        let meta = self.metadata_mut();
        match value {
            Value::Null => meta.remove(field),
            value => meta.insert(field.to_owned(), value),
        };
    }
    fn set_object_meta(&mut self, meta: &ObjectMeta) {
        if let Ok(meta) = serde_json::to_value(meta) {
            self.metadata_mut();
            self["metadata"] = meta;
        }
    }
}
