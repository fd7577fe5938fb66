//! JSON Schema to [`Schemas`].

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Edge, List, Node, PatchStrategy, Schemas, Shape};

const NO_STRATEGY: PatchStrategy = PatchStrategy { merge: false, replace: false, retain_keys: false, merge_key: None };

/// Node 0 is always "anything".
pub(super) static ANY: Edge = Edge { node: 0, atomic: None, patch: NO_STRATEGY, default: None };

pub(super) fn compile(definitions: &Map<String, Value>) -> Schemas {
    let any = Node { shape: Shape::Any, atomic: false };
    let index_of = definitions.keys().enumerate().map(|(at, name)| (name.as_str(), at + 1)).collect();
    let mut compiler = Compiler { nodes: vec![any; definitions.len() + 1], index_of };
    for (at, (name, definition)) in definitions.iter().enumerate() {
        let mut node = compiler.node(definition);
        if name.ends_with(".resource.Quantity") {
            node.shape = Shape::Quantity;
        }
        compiler.nodes[at + 1] = node;
    }
    let names = definitions.keys().enumerate().map(|(at, name)| (name.clone(), Edge { node: at + 1, ..ANY.clone() }));
    Schemas { names: names.collect(), nodes: compiler.nodes }
}

struct Compiler<'a> {
    nodes: Vec<Node>,
    index_of: HashMap<&'a str, usize>,
}

/// The definition that a schema refers to, directly or as the only part of `allOf`.
pub(super) fn reference(schema: &Value) -> Option<&str> {
    let target = schema.get("$ref").or_else(|| match schema.get("allOf")?.as_array()?.as_slice() {
        [only] => only.get("$ref"),
        _ => None,
    })?;
    target.as_str()?.rsplit('/').next()
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn atomic(schema: &Value) -> Option<bool> {
    match text(schema, "x-kubernetes-map-type") {
        "" => None,
        map_type => Some(map_type == "atomic"),
    }
}

impl Compiler<'_> {
    fn edge(&mut self, schema: &Value) -> Edge {
        let strategies: Vec<&str> = text(schema, "x-kubernetes-patch-strategy").split(',').collect();
        let patch = PatchStrategy {
            merge: strategies.contains(&"merge"),
            replace: strategies.contains(&"replace"),
            retain_keys: strategies.contains(&"retainKeys"),
            merge_key: schema.get("x-kubernetes-patch-merge-key").and_then(Value::as_str).map(str::to_owned),
        };
        let default = schema.get("default").cloned();
        let node = match reference(schema) {
            Some(name) => self.index_of.get(name).copied().unwrap_or(0),
            None => {
                let node = self.node(schema);
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        Edge { node, atomic: atomic(schema), patch, default }
    }

    fn node(&mut self, schema: &Value) -> Node {
        Node { shape: self.shape(schema), atomic: atomic(schema).unwrap_or(false) }
    }

    fn shape(&mut self, schema: &Value) -> Shape {
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        if flag("x-kubernetes-int-or-string") {
            return Shape::IntOrString;
        }
        match text(schema, "type") {
            "string" => Shape::String,
            "integer" => Shape::Integer,
            "number" => Shape::Number,
            "boolean" => Shape::Boolean,
            "array" => Shape::List { items: self.optional_edge(schema.get("items")), list_type: list_type(schema) },
            "object" => self.object(schema, flag("x-kubernetes-preserve-unknown-fields")),
            _ if schema.get("properties").is_some() => {
                self.object(schema, flag("x-kubernetes-preserve-unknown-fields"))
            }
            _ => Shape::Any,
        }
    }

    fn optional_edge(&mut self, schema: Option<&Value>) -> Edge {
        schema.map_or_else(|| ANY.clone(), |schema| self.edge(schema))
    }

    fn object(&mut self, schema: &Value, preserves_unknown: bool) -> Shape {
        let values = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(ANY.clone()),
            Some(values @ Value::Object(_)) => Some(self.edge(values)),
            _ => None,
        };
        match (schema.get("properties").and_then(Value::as_object), values) {
            (Some(properties), values) => {
                let fields = properties.iter().map(|(name, field)| (name.clone(), self.edge(field))).collect();
                let extra = if preserves_unknown { Some(ANY.clone()) } else { values };
                Shape::Object { fields, extra }
            }
            (None, Some(values)) => Shape::Map(values),
            (None, None) => Shape::Any,
        }
    }
}

fn list_type(schema: &Value) -> List {
    match text(schema, "x-kubernetes-list-type") {
        "set" => List::Set,
        "map" => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            List::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => List::Atomic,
    }
}
