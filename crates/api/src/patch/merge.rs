//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

/// Maps merge, `null` deletes, everything else replaces.
pub fn merge_patch(object: &Value, patch: &Value) -> Value {
    let mut merged = object.clone();
    json_patch::merge(&mut merged, patch);
    merged
}

/// The patch that makes `new` of `old`. A `null` inside `new` cannot be expressed and is lost.
pub fn merge_diff(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut patch = Map::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        match old.get(name) {
            Some(before) if before == value => {}
            Some(before @ Value::Object(_)) if value.is_object() => {
                patch.insert(name.clone(), merge_diff(before, value));
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn maps_merge_and_null_deletes() {
        let object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 2});
        let patch = json!({"a": {"b": null, "c": [3], "e": {"f": null, "g": 1}}, "d": {"h": 1}});
        assert_eq!(merge_patch(&object, &patch), json!({"a": {"c": [3], "e": {"g": 1}}, "d": {"h": 1}}));
    }

    fn objects() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..3i64).prop_map(Value::from)];
        let tree = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map("[abc]", tree, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn diff_then_patch_is_identity(old in objects(), new in objects()) {
            prop_assert_eq!(merge_patch(&old, &merge_diff(&old, &new)), new);
        }

        #[test]
        fn patching_twice_is_patching_once(object in objects(), patch in objects()) {
            let once = merge_patch(&object, &patch);
            prop_assert_eq!(merge_patch(&once, &patch), once);
        }
    }
}
