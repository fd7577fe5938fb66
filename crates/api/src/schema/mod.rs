//! The shape of objects, for everything that works on JSON: patches, server-side apply, unknown fields.
//!
//! A [`Schemas`] is compiled once from JSON Schema (with `x-kubernetes-*` extensions), whether that came
//! from built-in types or from a CustomResourceDefinition. A [`Schema`] is a cheap pointer into it.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value};

mod compile;
mod definitions;
mod facts;
mod quantities;

pub use definitions::definitions;
pub use quantities::canonicalize_quantities;

static BUILTIN: LazyLock<Schemas> = LazyLock::new(|| Schemas::compile(&definitions()));

/// The schemas of every built-in type, by definition name (`io.k8s.api.core.v1.Pod`).
pub fn builtin() -> &'static Schemas {
    &BUILTIN
}

/// The schema of whatever nothing is known about: fields of any name, lists replaced as a whole.
pub fn any() -> Schema<'static> {
    static ANY: LazyLock<Schemas> = LazyLock::new(|| Schemas::compile(&Map::new()));
    ANY.any()
}

/// Compiled schemas that refer to each other.
#[derive(Debug)]
pub struct Schemas {
    nodes: Vec<Node>,
    names: HashMap<String, Edge>,
}

/// A value's shape.
#[derive(Clone, Debug)]
enum Shape {
    /// Anything: what is found tells the shape.
    Any,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    Quantity,
    /// Known fields, and perhaps more of one shape (`extra`).
    Object {
        fields: HashMap<String, Edge>,
        extra: Option<Edge>,
    },
    Map(Edge),
    List {
        items: Edge,
        list_type: List,
    },
}

#[derive(Clone, Debug)]
enum List {
    Atomic,
    Set,
    Map(Vec<String>),
}

#[derive(Clone, Debug)]
struct Node {
    shape: Shape,
    atomic: bool,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PatchStrategy {
    /// A list is merged; without it, lists are replaced.
    pub merge: bool,
    /// A map is replaced; without it, maps are merged.
    pub replace: bool,
    /// `$retainKeys` is understood.
    pub retain_keys: bool,
    /// What tells the items of a merged list of maps apart.
    pub merge_key: Option<String>,
}

/// A use of a node: by a field, as items, as values.
#[derive(Clone, Debug)]
struct Edge {
    node: usize,
    /// Overrides the node's own.
    atomic: Option<bool>,
    patch: PatchStrategy,
    default: Option<Value>,
}

/// How the items of a list are told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListType<'a> {
    /// Not at all: the list is one value.
    Atomic,
    /// By their values.
    Set,
    /// By the values of these fields.
    Map(&'a [String]),
}

/// What a value must be, as far as one word can say it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    Any,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    Quantity,
    /// Fields by name, of known names.
    Object,
    /// Fields by name, of any name.
    Map,
    List,
}

/// A pointer to one schema.
#[derive(Clone, Copy, Debug)]
pub struct Schema<'a> {
    all: &'a Schemas,
    edge: &'a Edge,
}

impl Schemas {
    /// From JSON Schema definitions by name. What is not understood is taken as "anything".
    pub fn compile(definitions: &Map<String, Value>) -> Self {
        compile::compile(definitions)
    }

    pub fn get(&self, name: &str) -> Option<Schema<'_>> {
        self.names.get(name).map(|edge| Schema { all: self, edge })
    }

    /// The schema of anything.
    pub fn any(&self) -> Schema<'_> {
        Schema { all: self, edge: &compile::ANY }
    }
}

impl<'a> Schema<'a> {
    fn node(self) -> &'a Node {
        &self.all.nodes[self.edge.node]
    }

    fn at(self, edge: &'a Edge) -> Schema<'a> {
        Schema { all: self.all, edge }
    }

    pub fn r#type(self) -> Type {
        match self.node().shape {
            Shape::Any => Type::Any,
            Shape::String => Type::String,
            Shape::Integer => Type::Integer,
            Shape::Number => Type::Number,
            Shape::Boolean => Type::Boolean,
            Shape::IntOrString => Type::IntOrString,
            Shape::Quantity => Type::Quantity,
            Shape::Object { .. } => Type::Object,
            Shape::Map(_) => Type::Map,
            Shape::List { .. } => Type::List,
        }
    }

    /// The schema of a field of an object or a value of a map; `None` for a field that is not known.
    pub fn field(self, name: &str) -> Option<Schema<'a>> {
        match &self.node().shape {
            Shape::Object { fields, extra } => fields.get(name).or(extra.as_ref()).map(|edge| self.at(edge)),
            Shape::Map(values) => Some(self.at(values)),
            Shape::Any => Some(self.all.any()),
            _ => None,
        }
    }

    /// The same; anything where the field is not known.
    pub fn field_or_any(self, name: &str) -> Schema<'a> {
        self.field(name).unwrap_or_else(|| self.all.any())
    }

    /// Whether `name` is one of the fields with a name of their own.
    pub fn is_named_field(self, name: &str) -> bool {
        matches!(&self.node().shape, Shape::Object { fields, .. } if fields.contains_key(name))
    }

    /// The schema of a list's items; anything where it is no list.
    pub fn items(self) -> Schema<'a> {
        match &self.node().shape {
            Shape::List { items, .. } => self.at(items),
            _ => self.all.any(),
        }
    }

    pub fn list_type(self) -> ListType<'a> {
        match &self.node().shape {
            Shape::List { list_type: List::Set, .. } => ListType::Set,
            Shape::List { list_type: List::Map(keys), .. } => ListType::Map(keys),
            _ => ListType::Atomic,
        }
    }

    /// Whether an object or a map is one value to its managers.
    pub fn is_atomic(self) -> bool {
        self.edge.atomic.unwrap_or(self.node().atomic)
    }

    pub fn patch_strategy(self) -> &'a PatchStrategy {
        &self.edge.patch
    }

    pub fn default(self) -> Option<&'a Value> {
        self.edge.default.as_ref()
    }

    /// Whether the field holds a structure that exists even where nothing in it is set.
    pub fn is_by_value(self) -> bool {
        self.r#type() == Type::Object && matches!(&self.edge.default, Some(Value::Object(map)) if map.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schemas() -> Schemas {
        let definitions = json!({
            "Pod": {"type": "object", "properties": {
                "spec": {"$ref": "#/$defs/Spec", "description": "x", "default": {}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }},
            "Spec": {"type": "object", "properties": {
                "containers": {"type": "array", "items": {"$ref": "#/$defs/Spec"}, "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"], "x-kubernetes-patch-strategy": "merge,retainKeys",
                    "x-kubernetes-patch-merge-key": "name"},
                "port": {"x-kubernetes-int-or-string": true},
                "selector": {"type": "object", "additionalProperties": {"type": "string"},
                    "x-kubernetes-map-type": "atomic"},
            }},
        });
        Schemas::compile(definitions.as_object().unwrap())
    }

    #[test]
    fn fields_resolve_through_references() {
        let schemas = schemas();
        let pod = schemas.get("Pod").unwrap();
        let spec = pod.field("spec").unwrap();
        assert!(spec.is_by_value() && !spec.is_atomic());
        let containers = spec.field("containers").unwrap();
        assert_eq!(containers.list_type(), ListType::Map(&["name".to_owned()]));
        let strategy = containers.patch_strategy();
        assert!(strategy.merge && strategy.retain_keys && strategy.merge_key.as_deref() == Some("name"));
        assert_eq!(containers.items().field("port").unwrap().r#type(), Type::IntOrString);
        assert!(spec.field("selector").unwrap().is_atomic());
        assert_eq!(pod.field("labels").unwrap().field("x").unwrap().r#type(), Type::String);
        assert_eq!(pod.field("raw").unwrap().field("x").unwrap().r#type(), Type::Any);
        assert!(pod.field("nope").is_none());
    }

    #[test]
    fn every_fact_is_about_a_type_that_exists_or_is_not_served() {
        let all = definitions();
        let pod = builtin().get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
        assert_eq!(pod.field("finalizers").unwrap().list_type(), ListType::Set);
        assert!(pod.field("ownerReferences").unwrap().items().is_atomic());
        for (name, definition) in &all {
            assert!(definition.is_object(), "{name}");
        }
    }
}
