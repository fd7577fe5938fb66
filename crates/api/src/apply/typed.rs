//! Objects under a schema: what they consist of, how two differ, how they merge, how parts are taken out
//! (upstream: structured-merge-diff's `typed`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, PathElement, below_schema, print_path};
use crate::schema::{ListType, Schema, Type};

/// How managers see a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum View {
    /// One value: scalars, and what the schema calls atomic.
    Leaf,
    Map,
    List,
}

fn view(value: &Value, schema: Schema<'_>) -> View {
    match (value, schema.r#type()) {
        (Value::Object(_), Type::Object | Type::Map | Type::Any) if !schema.is_atomic() => View::Map,
        (Value::Array(_), Type::List) if schema.list_type() != ListType::Atomic => View::List,
        _ => View::Leaf,
    }
}

/// What tells `item` apart in a list. `Err`: the key field that is missing and has no default.
fn element(item: &Value, list: Schema<'_>) -> Result<PathElement, String> {
    let ListType::Map(keys) = list.list_type() else { return Ok(PathElement::value(item)) };
    let mut values = BTreeMap::new();
    for key in keys {
        let default = || list.items().field(key).and_then(Schema::default);
        let value = item.get(key).or_else(default).ok_or_else(|| key.clone())?;
        values.insert(key.clone(), value.clone());
    }
    Ok(PathElement::key(&values))
}

/// The same for an object that is there already: an item without its keys is told apart by its value.
fn element_of_live(item: &Value, list: Schema<'_>) -> PathElement {
    element(item, list).unwrap_or_else(|_| PathElement::value(item))
}

/// The paths that an object consists of.
pub(super) fn field_set(value: &Value, schema: Schema<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    match (view(value, schema), value) {
        (View::Map, Value::Object(map)) => {
            for (name, value) in map {
                let field = schema.field_or_any(name);
                let empty = value.as_object().is_some_and(Map::is_empty);
                let member = empty || !schema.is_named_field(name) || view(value, field) == View::Leaf;
                set.graft(PathElement::field(name), member, field_set(value, field));
            }
        }
        (View::List, Value::Array(items)) => {
            for item in items {
                set.graft(element_of_live(item, schema), true, field_set(item, schema.items()));
            }
        }
        _ => {}
    }
    set
}

/// How two objects differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Comparison {
    pub added: FieldSet,
    pub removed: FieldSet,
    pub modified: FieldSet,
}

impl Comparison {
    /// Without what a request cannot change.
    pub fn without(self, reset: &FieldSet) -> Self {
        Self {
            added: self.added.without(reset),
            removed: self.removed.without(reset),
            modified: self.modified.without(reset),
        }
    }
}

pub(super) fn compare(old: &Value, new: &Value, schema: Schema<'_>) -> Comparison {
    let mut comparison = Comparison::default();
    compare_at(Some(old), Some(new), schema, &mut Vec::new(), &mut comparison);
    comparison
}

fn compare_at(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: Schema<'_>,
    path: &mut Vec<PathElement>,
    out: &mut Comparison,
) {
    let views = (old.map(|old| view(old, schema)), new.map(|new| view(new, schema)));
    let is_empty = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        _ => true,
    };
    let leaf = (is_empty(old) && is_empty(new))
        || matches!(views, (Some(View::Leaf), _) | (_, Some(View::Leaf)))
        || matches!(views, (Some(old), Some(new)) if old != new);
    if leaf {
        match (old, new) {
            (None, Some(_)) => out.added.insert(path),
            (Some(_), None) => out.removed.insert(path),
            (Some(old), Some(new)) if old != new => out.modified.insert(path),
            _ => {}
        }
        return;
    }
    match views.0.or(views.1) {
        Some(View::List) => compare_lists(old, new, schema, path, out),
        _ => compare_maps(old, new, schema, path, out),
    }
    match (old, new) {
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        _ => {}
    }
}

fn compare_maps(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: Schema<'_>,
    path: &mut Vec<PathElement>,
    out: &mut Comparison,
) {
    let fields = |value: Option<&'_ Value>| value.and_then(Value::as_object).map(|map| map.keys().cloned().collect());
    let (old_names, new_names): (Option<Vec<String>>, Option<Vec<String>>) = (fields(old), fields(new));
    let mut names: Vec<String> = old_names.into_iter().chain(new_names).flatten().collect();
    names.sort_unstable();
    names.dedup();
    let empty = Value::Object(Map::new());
    for name in &names {
        let field = schema.field_or_any(name);
        let (mut before, mut after) = (old.and_then(|old| old.get(name)), new.and_then(|new| new.get(name)));
        if field.is_by_value() && before.or(after).is_some_and(|value| view(value, field) == View::Map) {
            // A structure that is always there is empty, not absent, in an object that does not mention it.
            before = before.or(old.map(|_| &empty));
            after = after.or(new.map(|_| &empty));
        }
        path.push(PathElement::field(name));
        compare_at(before, after, field, path, out);
        path.pop();
    }
}

fn compare_lists(
    old: Option<&Value>,
    new: Option<&Value>,
    list: Schema<'_>,
    path: &mut Vec<PathElement>,
    out: &mut Comparison,
) {
    let mut items: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old.and_then(Value::as_array).into_iter().flatten() {
        items.entry(element_of_live(item, list)).or_default().0.push(item);
    }
    for item in new.and_then(Value::as_array).into_iter().flatten() {
        items.entry(element_of_live(item, list)).or_default().1.push(item);
    }
    for (element, (before, after)) in items {
        path.push(element);
        match (before.as_slice(), after.as_slice()) {
            ([] | [_], [] | [_]) => {
                compare_at(before.first().copied(), after.first().copied(), list.items(), path, out);
            }
            // Duplicates are one value.
            ([], _) => out.added.insert(path),
            (_, []) => out.removed.insert(path),
            (before, after) if before != after => out.modified.insert(path),
            _ => {}
        }
        path.pop();
    }
}

/// `live` with `config` laid over it.
pub(super) fn merge(live: &Value, config: &Value, schema: Schema<'_>) -> Value {
    match (live, config, view(live, schema), view(config, schema)) {
        (Value::Object(live), Value::Object(config), View::Map, View::Map) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let value = match live.get(name) {
                    Some(before) => merge(before, value, schema.field_or_any(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(config), View::List, View::List) => {
            Value::Array(merge_lists(live, config, schema))
        }
        _ => config.clone(),
    }
}

/// The items of both: shared ones in the order of `config`, the others of `live` where they were.
fn merge_lists(live: &[Value], config: &[Value], list: Schema<'_>) -> Vec<Value> {
    let elements = |items: &[Value]| items.iter().map(|item| element_of_live(item, list)).collect::<Vec<_>>();
    let (live_elements, config_elements) = (elements(live), elements(config));
    let shared: Vec<&PathElement> = config_elements.iter().filter(|element| live_elements.contains(element)).collect();
    let mut shared = shared.into_iter().peekable();
    let mut merged = Vec::with_capacity(live.len() + config.len());
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        if l < live.len() && c < config.len() {
            if live_elements[l] == config_elements[c] {
                merged.push(merge(&live[l], &config[c], list.items()));
                (l, c) = (l + 1, c + 1);
                shared.next();
                continue;
            }
            if config_elements.contains(&live_elements[l])
                && shared.peek().is_some_and(|next| **next != live_elements[l])
            {
                l += 1;
                continue;
            }
        }
        if l < live.len() && !config_elements.contains(&live_elements[l]) {
            merged.push(live[l].clone());
            l += 1;
            continue;
        }
        if c < config.len() {
            let before = live_elements.iter().position(|element| *element == config_elements[c]);
            merged.push(match before {
                Some(at) => merge(&live[at], &config[c], list.items()),
                None => config[c].clone(),
            });
            shared.next_if(|next| **next == config_elements[c]);
            c += 1;
        } else {
            l += 1;
        }
    }
    merged
}

/// `value` without these paths and what is below them; what is emptied by that goes, too (`None`).
pub(super) fn remove(value: &Value, paths: &FieldSet, schema: Schema<'_>) -> Option<Value> {
    let keep = |element: &PathElement, value: &Value| {
        let below_schema = below_schema(schema, element);
        let kept = match paths.below(element) {
            _ if paths.contains_element(element) => None,
            Some(below) => remove(value, below, below_schema),
            None => Some(value.clone()),
        };
        // A structure that is always there is emptied, not removed.
        let stays = below_schema.is_by_value() && value.is_object();
        kept.or_else(|| stays.then(|| Value::Object(Map::new())))
    };
    match (view(value, schema), value) {
        (View::Map, Value::Object(map)) if !map.is_empty() => {
            let kept =
                map.iter().filter_map(|(name, value)| Some((name.clone(), keep(&PathElement::field(name), value)?)));
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (View::List, Value::Array(items)) if !items.is_empty() => {
            let kept = items.iter().filter_map(|item| keep(&element_of_live(item, schema), item));
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

/// What is wrong with an applied object, in upstream's words; nothing if all is well.
pub(super) fn problems(value: &Value, schema: Schema<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    check(value, schema, &mut Vec::new(), &mut problems);
    problems
}

fn check(value: &Value, schema: Schema<'_>, path: &mut Vec<PathElement>, problems: &mut Vec<String>) {
    let expected = match (schema.r#type(), value) {
        (_, Value::Null)
        | (Type::Any, _)
        | (Type::IntOrString | Type::Quantity, Value::String(_) | Value::Number(_)) => return,
        (Type::Object | Type::Map, Value::Object(map)) => return check_fields(map, schema, path, problems),
        (Type::List, Value::Array(items)) => return check_items(items, schema, path, problems),
        (Type::String, Value::String(_))
        | (Type::Integer | Type::Number, Value::Number(_))
        | (Type::Boolean, Value::Bool(_)) => return,
        (Type::Object | Type::Map, _) => "map",
        (Type::List, _) => "list",
        (Type::String, _) => "string",
        (Type::Integer | Type::Number, _) => "numeric (int or float)",
        (Type::Boolean, _) => "boolean",
        (Type::IntOrString | Type::Quantity, _) => "scalar",
    };
    problems.push(format!("{}: expected {expected}, got {value}", print_path(path)));
}

fn check_fields(map: &Map<String, Value>, schema: Schema<'_>, path: &mut Vec<PathElement>, problems: &mut Vec<String>) {
    for (name, value) in map {
        path.push(PathElement::field(name));
        match schema.field(name) {
            Some(field) => check(value, field, path, problems),
            None => problems.push(format!("{}: field not declared in schema", print_path(path))),
        }
        path.pop();
    }
}

fn check_items(items: &[Value], list: Schema<'_>, path: &mut Vec<PathElement>, problems: &mut Vec<String>) {
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = match list.list_type() {
            ListType::Atomic => PathElement::Index(index),
            _ => match element(item, list) {
                Ok(at) => at,
                Err(key) => {
                    let sentence = "associative list with keys has an element that omits key field";
                    let sentence = format!("element {index}: {sentence} {key:?} (and doesn't have default value)");
                    problems.push(format!("{}: {sentence}", print_path(path)));
                    continue;
                }
            },
        };
        if seen.contains(&at) {
            problems.push(format!("{}: duplicate entries for key {at}", print_path(path)));
        }
        path.push(at.clone());
        check(item, list.items(), path, problems);
        path.pop();
        seen.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schemas;
    use serde_json::json;

    pub(crate) fn schemas() -> Schemas {
        let definitions = json!({
            "Item": {"type": "object", "properties": {
                "name": {"type": "string"}, "image": {"type": "string"}, "args": {"type": "array"},
                "protocol": {"type": "string", "default": "TCP"}, "resources": {"$ref": "#/$defs/Sub", "default": {}}}},
            "Sub": {"type": "object", "properties": {"a": {"type": "string"}}},
            "Thing": {"type": "object", "properties": {
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"]},
                "ports": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name", "protocol"]},
                "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "spec": {"$ref": "#/$defs/Sub", "default": {}}, "count": {"type": "integer"}, "any": {"type": "object"},
            }},
        });
        Schemas::compile(definitions.as_object().unwrap())
    }

    fn printed(set: &FieldSet) -> Vec<String> {
        set.paths().iter().map(|path| print_path(path)).collect()
    }

    #[test]
    fn objects_consist_of_paths() {
        let schemas = schemas();
        let object = json!({"labels": {"a": "1"}, "items": [{"name": "x", "args": ["1"]}], "set": ["s"],
            "spec": {}, "any": {"k": {"l": [1]}}, "ports": [{"name": "p"}]});
        assert_eq!(
            printed(&field_set(&object, schemas.get("Thing").unwrap())),
            [
                ".any.k",
                ".any.k.l",
                ".items[name=\"x\"]",
                ".items[name=\"x\"].args",
                ".items[name=\"x\"].name",
                ".labels.a",
                ".ports[name=\"p\",protocol=\"TCP\"]",
                ".ports[name=\"p\",protocol=\"TCP\"].name",
                ".set[=\"s\"]",
                ".spec",
            ]
        );
    }

    #[test]
    fn differences() {
        let schemas = schemas();
        let old = json!({"labels": {"a": "1"}, "items": [{"name": "x", "image": "1"}, {"name": "y"}], "count": 1});
        let new = json!({"labels": {"b": "1"}, "items": [{"name": "z", "resources": {"a": "1"}}, {"name": "x", "image": "2"}],
            "spec": {"a": "1"}});
        let Comparison { added, removed, modified } = compare(&old, &new, schemas.get("Thing").unwrap());
        assert_eq!(
            printed(&added),
            [
                ".items[name=\"z\"]",
                ".items[name=\"z\"].name",
                ".items[name=\"z\"].resources",
                ".items[name=\"z\"].resources.a",
                ".labels.b",
                ".spec.a",
            ]
        );
        assert_eq!(printed(&removed), [".count", ".items[name=\"y\"]", ".items[name=\"y\"].name", ".labels.a"]);
        assert_eq!(printed(&modified), [".items[name=\"x\"].image"]);
    }

    #[test]
    fn merging_keeps_what_the_config_does_not_mention() {
        let schemas = schemas();
        let live = json!({"items": [{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}], "set": ["x", "y"], "count": 1});
        let config = json!({"items": [{"name": "c"}, {"name": "n"}, {"name": "a", "args": ["z"]}], "set": ["z", "x"]});
        assert_eq!(
            merge(&live, &config, schemas.get("Thing").unwrap()),
            json!({"items": [{"name": "b"}, {"name": "c"}, {"name": "n"}, {"name": "a", "image": "1", "args": ["z"]}],
                "set": ["z", "x", "y"], "count": 1})
        );
    }

    #[test]
    fn removing_drops_what_it_empties() {
        let schemas = schemas();
        let thing = schemas.get("Thing").unwrap();
        let object = json!({"labels": {"a": "1"}, "items": [{"name": "x", "image": "1"}], "count": 1});
        let paths = FieldSet::from_fields_v1(
            &json!({"f:labels": {"f:a": {}}, "f:items": {"k:{\"name\":\"x\"}": {"f:image": {}}}}),
        );
        assert_eq!(remove(&object, &paths.unwrap(), thing), Some(json!({"items": [{"name": "x"}], "count": 1})));
    }

    #[test]
    fn problems_are_named() {
        let schemas = schemas();
        let object =
            json!({"nope": 1, "count": "x", "set": ["a", "a"], "items": [{"image": "i"}, {"name": 1}], "labels": []});
        assert_eq!(
            problems(&object, schemas.get("Thing").unwrap()),
            [
                ".count: expected numeric (int or float), got \"x\"",
                ".items: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have \
             default value)",
                ".items[name=1].name: expected string, got 1",
                ".labels: expected map, got []",
                ".nope: field not declared in schema",
                ".set: duplicate entries for key [=\"a\"]",
            ]
        );
    }
}
