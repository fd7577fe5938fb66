//! Strategic merge patch: maps merge, lists merge by key where the schema says so, and directives
//! (`$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`) say the rest.

use serde_json::{Map, Value};

use crate::{
    Status,
    schema::{PatchStrategy, Schema},
};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Applies `patch` to `object`. Fails with `BadRequest` where the patch cannot be understood, and with
/// `Invalid` where its directives contradict each other.
pub fn strategic_merge_patch(object: &Value, patch: &Value, schema: Schema<'_>) -> Result<Value, Status> {
    let Value::Object(patch) = patch else { return Err(Status::bad_request("Invalid JSON document")) };
    let original = object.as_object().cloned().unwrap_or_default();
    merge_map(original, patch.clone(), schema).map(Value::Object)
}

fn merge_map(mut original: Map<String, Value>, mut patch: Map<String, Value>, schema: Schema<'_>) -> Merged {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(Status::bad_request(format!("unknown patch type '{}' found in: $patch", printed(&directive)))),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut original, list, &value)?;
            continue;
        }
        let Some(before) = original.remove(&key) else {
            if !value.is_null() {
                original.extend(without_directives(value).map(|value| (key, value)));
            }
            continue;
        };
        let field = schema.field_or_any(&key);
        let merged = match (before, value) {
            (_, Value::Null) => continue,
            (Value::Object(before), Value::Object(value)) if !field.patch_strategy().replace => {
                Value::Object(merge_map(before, value, field)?)
            }
            (Value::Array(before), Value::Array(value)) if field.patch_strategy().merge => {
                Value::Array(merge_list(before, value, field)?)
            }
            // Lists of one kind of values that are not merged are taken as they come.
            (Value::Array(_), value @ Value::Array(_)) => value,
            (_, value) => match without_directives(value) {
                Some(value) => value,
                None => continue,
            },
        };
        original.insert(key, merged);
    }
    Ok(original)
}

type Merged = Result<Map<String, Value>, Status>;

fn printed(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER) || key.starts_with(DELETE_FROM_LIST)
}

/// What a patch adds where nothing was: no directives, no nulls, nothing that is marked as deleted.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.get(DIRECTIVE).is_some_and(|directive| directive == "delete") => None,
        Value::Object(map) => {
            let fields = map.into_iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
            Some(Value::Object(fields.filter_map(|(key, value)| Some((key, without_directives(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// `$retainKeys`: of the fields of the original, only these stay; the patch sets no others.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), Status> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let wrong = || Status::patch_rejected("invalid patch format of retainKeys");
    let retained = retained.as_array().cloned().ok_or_else(wrong)?;
    let retains = |key: &str| retained.iter().any(|retained| retained == key);
    let stray = |(key, value): (&String, &Value)| !value.is_null() && !is_directive(key) && !retains(key);
    if patch.iter().any(stray) {
        return Err(wrong());
    }
    original.retain(|key, _| retains(key));
    Ok(())
}

/// `$deleteFromPrimitiveList/<list>`: these values go.
fn delete_from_list(original: &mut Map<String, Value>, list: &str, values: &Value) -> Result<(), Status> {
    let Some(values) = values.as_array() else { return Err(not_a_list(list)) };
    if let Some(Value::Array(items)) = original.get_mut(list) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn not_a_list(name: &str) -> Status {
    Status::patch_rejected(format!("invalid patch format: {name} must be a list"))
}

/// `$setElementOrder/<list>`: merges the lists that have one, in the order it asks for, and takes them out
/// of the patch.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Schema<'_>,
) -> Result<(), Status> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let list = directive.strip_prefix(ELEMENT_ORDER).unwrap_or_default().to_owned();
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(not_a_list(&directive)) };
        let field = schema.field_or_any(&list);
        let key = field.patch_strategy().merge_key.as_deref();
        let before = match original.get(&list) {
            Some(Value::Array(items)) => Some(items.clone()),
            Some(Value::Null) | None => None,
            Some(_) => return Err(not_a_list(&list)),
        };
        let change = match patch.remove(&list) {
            Some(Value::Array(items)) => Some(items),
            Some(Value::Null) | None => None,
            Some(_) => return Err(not_a_list(&list)),
        };
        check_order(change.as_deref().unwrap_or_default(), &order, key)?;
        let live_order = before.clone().unwrap_or_default();
        let merged = match (before, change) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(change)) => change.into_iter().filter_map(without_directives).collect(),
            (Some(before), Some(change)) if field.patch_strategy().merge => merge_list(before, change, field)?,
            (Some(_), Some(change)) => change,
        };
        original.insert(list, Value::Array(arrange(merged, &order, &live_order, key)));
    }
    Ok(())
}

/// What is in the patch must be in the order list, in that order.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Status> {
    let mut rest = order.iter();
    let deleted = |item: &&Value| item.get(DIRECTIVE).is_some_and(|directive| directive == "delete");
    for item in change.iter().filter(|item| !deleted(item)) {
        if !rest.any(|ordered| same(ordered, item, key)) {
            let (change, order) = (Value::from(change), Value::from(order));
            let sentence =
                format!("The order in patch list:\n{change}\n doesn't match $setElementOrder list:\n{order}\n");
            return Err(Status::bad_request(sentence));
        }
    }
    Ok(())
}

/// Whether two items of a list are the same item.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// Items named by the patch in its order, the others in the live order, interleaved so that the live
/// order holds wherever both can.
fn arrange(items: Vec<Value>, patch_order: &[Value], live_order: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut patched, mut others): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| position(patch_order, item, key).is_some());
    patched.sort_by_key(|item| position(patch_order, item, key));
    others.sort_by_key(|item| position(live_order, item, key).unwrap_or(usize::MAX));
    let mut arranged = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), patched.peek()) {
            (Some(other), Some(item)) => {
                let live = (position(live_order, other, key), position(live_order, item, key));
                matches!(live, (Some(other), Some(item)) if other < item)
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        match if other_first { others.next() } else { patched.next() } {
            Some(item) => arranged.push(item),
            None => return arranged,
        }
    }
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, field: Schema<'_>) -> Result<Vec<Value>, Status> {
    let PatchStrategy { merge_key, .. } = field.patch_strategy();
    let is_map = |items: &[Value]| items.first().is_some_and(Value::is_object);
    if !is_map(&patch) && !is_map(&original) {
        return Ok(merge_scalars(original, patch));
    }
    let Some(key) = merge_key.as_deref() else {
        return Err(Status::bad_request("cannot merge lists without merge key"));
    };
    let (mut merged, patch) = delete_and_replace(original, patch, key)?;
    let live_order = merged.clone();
    let patch_order = patch.clone();
    for item in patch {
        let Value::Object(item) = item else { return Err(no_merge_key(&item, key)) };
        let Some(value) = item.get(key).cloned() else { return Err(no_merge_key(&Value::Object(item), key)) };
        match merged.iter_mut().find(|other| other.get(key) == Some(&value)) {
            Some(other) => {
                let before = other.as_object().cloned().unwrap_or_default();
                *other = Value::Object(merge_map(before, item, field.items())?);
            }
            None => merged.extend(without_directives(Value::Object(item))),
        }
    }
    Ok(arrange(merged, &patch_order, &live_order, Some(key)))
}

fn no_merge_key(item: &Value, key: &str) -> Status {
    Status::bad_request(format!("map: {item} does not contain declared merge key: {key}"))
}

/// The union, in the patch's order where it has one.
fn merge_scalars(original: Vec<Value>, patch: Vec<Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
    for item in original.iter().chain(&patch) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    arrange(merged, &patch, &original, None)
}

/// Carries out the directives among the items; what is left of the patch is to be merged.
fn delete_and_replace(original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let mut original = original;
    let mut items = Vec::with_capacity(patch.len());
    let mut replaces = false;
    for item in patch {
        match item.get(DIRECTIVE).and_then(Value::as_str) {
            None if item.get(DIRECTIVE).is_none() => items.push(item),
            Some("delete") => match item.get(key) {
                Some(value) => original.retain(|other| other.get(key) != Some(value)),
                None => return Err(Status::bad_request("delete patch type with no merge key defined")),
            },
            Some("replace") => replaces = true,
            Some("merge") => return Err(Status::bad_request("merging lists cannot yet be specified in the patch")),
            _ => {
                let directive = item.get(DIRECTIVE).map(printed).unwrap_or_default();
                return Err(Status::bad_request(format!("unknown patch type '{directive}' found in: $patch")));
            }
        }
    }
    if replaces {
        return Ok((items.into_iter().filter_map(without_directives).collect(), Vec::new()));
    }
    Ok((original, items))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schemas;
    use proptest::prelude::*;
    use serde_json::json;

    fn schemas() -> Schemas {
        let item = json!({"type": "object", "properties": {
            "name": {"type": "string"}, "value": {"type": "string"}, "args": {"type": "array", "items": {"type": "string"}},
            "env": {"type": "array", "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
                "items": {"$ref": "#/$defs/Item"}},
        }});
        let spec = json!({"type": "object", "properties": {
            "items": {"type": "array", "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
                "items": {"$ref": "#/$defs/Item"}},
            "finalizers": {"type": "array", "x-kubernetes-patch-strategy": "merge", "items": {"type": "string"}},
            "atomic": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "selector": {"type": "object", "x-kubernetes-patch-strategy": "replace",
                "additionalProperties": {"type": "string"}},
            "strategy": {"type": "object", "x-kubernetes-patch-strategy": "retainKeys",
                "additionalProperties": {"type": "string"}},
        }});
        Schemas::compile(json!({"Item": item, "Spec": spec}).as_object().unwrap())
    }

    fn patched(object: Value, patch: Value) -> Result<Value, Status> {
        let schemas = schemas();
        strategic_merge_patch(&object, &patch, schemas.get("Spec").unwrap())
    }

    fn check(object: Value, patch: Value, expected: Value) {
        assert_eq!(patched(object, patch).unwrap(), expected);
    }

    #[test]
    fn maps_merge() {
        check(
            json!({"labels": {"a": "1", "b": "2"}, "atomic": ["x"]}),
            json!({"labels": {"b": null, "c": "3"}, "atomic": ["y"], "gone": null, "new": {"k": null, "l": 1}}),
            json!({"labels": {"a": "1", "c": "3"}, "atomic": ["y"], "new": {"l": 1}}),
        );
        check(json!({"selector": {"a": "1"}}), json!({"selector": {"b": "2"}}), json!({"selector": {"b": "2"}}));
        check(
            json!({"labels": {"a": "1"}}),
            json!({"labels": {"$patch": "replace", "b": "2"}}),
            json!({"labels": {"b": "2"}}),
        );
        check(json!({"labels": {"a": "1"}}), json!({"labels": {"$patch": "delete"}}), json!({"labels": {}}));
    }

    #[test]
    fn lists_of_maps_merge_by_key() {
        check(
            json!({"items": [{"name": "a", "value": "1"}, {"name": "b", "args": ["x"]}]}),
            json!({"items": [{"name": "c"}, {"name": "b", "args": ["y"], "env": [{"name": "E", "value": "1"}]}]}),
            json!({"items": [{"name": "c"}, {"name": "a", "value": "1"},
                {"name": "b", "args": ["y"], "env": [{"name": "E", "value": "1"}]}]}),
        );
        check(
            json!({"items": [{"name": "a"}, {"name": "b"}]}),
            json!({"items": [{"name": "a", "$patch": "delete"}, {"name": "zz", "$patch": "delete"}]}),
            json!({"items": [{"name": "b"}]}),
        );
        check(
            json!({"items": [{"name": "a"}, {"name": "b"}]}),
            json!({"items": [{"name": "c"}, {"$patch": "replace"}]}),
            json!({"items": [{"name": "c"}]}),
        );
    }

    #[test]
    fn element_order_rules_what_the_patch_names() {
        check(
            json!({"items": [{"name": "a"}, {"name": "b"}, {"name": "server"}, {"name": "c"}]}),
            json!({"$setElementOrder/items": [{"name": "c"}, {"name": "new"}, {"name": "a"}],
                "items": [{"name": "new"}, {"name": "b", "$patch": "delete"}]}),
            json!({"items": [{"name": "server"}, {"name": "c"}, {"name": "new"}, {"name": "a"}]}),
        );
        check(
            json!({"finalizers": ["a", "b", "c"]}),
            json!({"$setElementOrder/finalizers": ["c", "a"]}),
            json!({"finalizers": ["b", "c", "a"]}),
        );
        let failure = patched(
            json!({"items": [{"name": "a"}]}),
            json!({"$setElementOrder/items": [{"name": "a"}], "items": [{"name": "b"}]}),
        );
        assert!(failure.unwrap_err().message.starts_with("The order in patch list:"));
    }

    #[test]
    fn lists_of_scalars_merge() {
        check(
            json!({"finalizers": ["a", "b"]}),
            json!({"finalizers": ["c", "a"]}),
            json!({"finalizers": ["c", "a", "b"]}),
        );
        check(
            json!({"finalizers": ["a", "b", "a"]}),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
            json!({"finalizers": ["b"]}),
        );
        check(json!({}), json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!({}));
    }

    #[test]
    fn retain_keys_drops_the_rest() {
        check(
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": "x"}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
            json!({"strategy": {"type": "Recreate"}}),
        );
        let failure = patched(json!({"strategy": {}}), json!({"strategy": {"$retainKeys": ["type"], "other": "x"}}));
        assert_eq!(failure.unwrap_err().code, 422);
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for patch in [
            json!([]),
            json!({"labels": {"$patch": "upsert"}}),
            json!({"items": [{"value": "no name"}]}),
            json!({"items": [{"name": "a", "$patch": "merge"}]}),
            json!({"items": [{"$patch": "delete"}]}),
        ] {
            let object = json!({"items": [{"name": "x"}], "labels": {}});
            assert_eq!(patched(object, patch.clone()).unwrap_err().code, 400, "{patch}");
        }
    }

    fn specs() -> impl Strategy<Value = Value> {
        let item = ("[ab]", "[xy]").prop_map(|(name, value)| json!({"name": name, "value": value}));
        let unique = |items: Vec<Value>| {
            let mut kept: Vec<Value> = Vec::new();
            for item in items {
                if !kept.iter().any(|other| other["name"] == item["name"]) {
                    kept.push(item);
                }
            }
            kept
        };
        let labels = proptest::collection::btree_map("[abc]", "[xy]", 0..3);
        (proptest::collection::vec(item, 0..3), labels, proptest::collection::btree_set("[abc]", 0..3))
            .prop_map(move |(items, labels, set)| json!({"items": unique(items), "labels": labels, "finalizers": set}))
    }

    proptest! {
        #[test]
        fn patching_twice_is_patching_once(object in specs(), patch in specs()) {
            let once = patched(object, patch.clone()).unwrap();
            prop_assert_eq!(patched(once.clone(), patch).unwrap(), once);
        }

        #[test]
        fn patching_with_itself_changes_nothing(object in specs()) {
            prop_assert_eq!(patched(object.clone(), object.clone()).unwrap(), object);
        }
    }
}
