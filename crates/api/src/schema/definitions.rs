//! Built-in types as JSON Schema, from k8s-openapi's `schemars` support and the table of facts.

use k8s_openapi::{
    api::{authentication, autoscaling, core, policy},
    apimachinery::pkg::apis::meta::v1 as meta,
};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{compile::reference, facts};
use crate::kinds;

/// The definitions of all registered kinds, of what their subresources exchange and of everything they
/// refer to, with `x-kubernetes-*` facts and structural defaults. Built anew at each call: keep what you need.
pub fn definitions() -> Map<String, Value> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    for kind in kinds::ALL.iter() {
        kind.schema(&mut generator);
    }
    generator.subschema_for::<autoscaling::v1::Scale>();
    generator.subschema_for::<policy::v1::Eviction>();
    generator.subschema_for::<core::v1::Binding>();
    generator.subschema_for::<authentication::v1::TokenRequest>();
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::ObjectMeta>();
    let mut definitions = generator.take_definitions(false);
    write_facts(&mut definitions);
    write_structural_defaults(&mut definitions);
    definitions
}

fn full_name(short: &str) -> String {
    let outside = ["apimachinery.", "apiextensions-apiserver.", "kube-aggregator."];
    let prefix = if outside.iter().any(|root| short.starts_with(root)) { "io.k8s." } else { "io.k8s.api." };
    format!("{prefix}{short}")
}

/// The field that a fact is about; `None` where its type is not served.
fn field<'a>(definitions: &'a mut Map<String, Value>, short: &str) -> Option<&'a mut Map<String, Value>> {
    let (definition, field) = short.rsplit_once('.')?;
    definitions.get_mut(&full_name(definition))?.get_mut("properties")?.get_mut(field)?.as_object_mut()
}

fn write_facts(definitions: &mut Map<String, Value>) {
    for fact in facts::FIELDS {
        for name in fact.fields {
            let Some(field) = field(definitions, name) else { continue };
            let texts = [
                ("x-kubernetes-list-type", fact.list_type),
                ("x-kubernetes-patch-strategy", fact.patch_strategy),
                ("x-kubernetes-patch-merge-key", fact.patch_merge_key),
                ("x-kubernetes-map-type", fact.map_type),
            ];
            for (extension, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
                field.insert(extension.into(), text.into());
            }
            if !fact.list_map_keys.is_empty() {
                field.insert("x-kubernetes-list-map-keys".into(), json!(fact.list_map_keys));
            }
        }
    }
    for name in facts::ATOMIC {
        if let Some(definition) = definitions.get_mut(&full_name(name)).and_then(Value::as_object_mut) {
            definition.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
    }
    for (name, default) in facts::DEFAULTS {
        if let Some(field) = field(definitions, name) {
            field.insert("default".into(), serde_json::from_str(default).unwrap_or(Value::Null));
        }
    }
    for name in facts::BY_VALUE {
        if let Some(field) = field(definitions, name) {
            field.insert("default".into(), json!({}));
        }
    }
}

/// Required structures, and metadata, spec and status, are there even when empty; lists of which nothing
/// is said are atomic.
fn write_structural_defaults(definitions: &mut Map<String, Value>) {
    let structures: Vec<String> = definitions
        .iter()
        .filter(|(_, definition)| definition.get("properties").is_some())
        .map(|(name, _)| name.clone())
        .collect();
    for definition in definitions.values_mut() {
        let required: Vec<String> = match definition.get("required").and_then(Value::as_array) {
            Some(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => Vec::new(),
        };
        let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        for (name, schema) in properties {
            let by_value = required.contains(name) || matches!(name.as_str(), "metadata" | "spec" | "status");
            let structure = reference(schema).is_some_and(|target| structures.iter().any(|name| name == target));
            let list = schema.get("type").is_some_and(|kind| kind == "array");
            let Some(schema) = schema.as_object_mut() else { continue };
            if by_value && structure {
                schema.insert("default".into(), json!({}));
            }
            if list && !schema.contains_key("x-kubernetes-list-type") {
                schema.insert("x-kubernetes-list-type".into(), "atomic".into());
            }
        }
    }
}
