//! The smallest strategic merge patch from one PodStatus to another. Pure.
//!
//! Only what changed is sent, so that conditions which others own are never overwritten by an old copy.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Lists that the server merges by a key; all others are replaced whole.
const MERGED_LISTS: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// `None` when there is nothing to change. The uid makes sure that no namesake gets this Pod's status.
pub fn status_patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (fields(old), fields(new));
    let mut patch = Map::new();
    for (name, value) in &new {
        let before = old.get(name);
        if before == Some(value) {
            continue;
        }
        let merged = MERGED_LISTS.iter().find(|(list, _)| list == name);
        let change = match (merged, before) {
            (Some((_, key)), Some(Value::Array(before))) => list_patch(key, before, value),
            _ => value.clone(),
        };
        patch.insert(name.clone(), change);
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": patch}))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn list_patch(key: &str, before: &[Value], after: &Value) -> Value {
    let after = after.as_array().map(Vec::as_slice).unwrap_or_default();
    let same = |a: &Value, b: &Value| a.get(key) == b.get(key);
    let changed = after.iter().filter(|item| !before.contains(item)).map(|item| {
        let mut item = item.clone();
        let old = before.iter().find(|old| same(old, &item)).and_then(Value::as_object);
        if let (Some(old), Some(fields)) = (old, item.as_object_mut()) {
            for name in old.keys() {
                fields.entry(name).or_insert(Value::Null);
            }
        }
        item
    });
    let removed = before.iter().filter(|old| !after.iter().any(|item| same(old, item)));
    let removed = removed.map(|old| json!({"$patch": "delete", key: old.get(key)}));
    Value::Array(changed.chain(removed).collect())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(old: Value, new: Value, expected: Expect) {
        let status = |value| serde_json::from_value(value).unwrap();
        let patch = status_patch("u", &status(old), &status(new));
        expected.assert_eq(&patch.map_or("nothing".into(), |patch| patch["status"].to_string()));
    }

    #[test]
    fn only_what_changed_is_sent() {
        let ready = json!({"type": "Ready", "status": "False", "reason": "X"});
        let gate = json!({"type": "example.com/gate", "status": "True"});
        let old =
            json!({"phase": "Pending", "message": "m", "conditions": [ready, gate], "podIPs": [{"ip": "10.0.0.1"}]});
        check(old.clone(), old.clone(), expect!["nothing"]);
        let new = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}, gate],
                         "podIPs": [{"ip": "10.0.0.2"}]});
        check(
            old,
            new,
            expect![[
                r#"{"conditions":[{"reason":null,"status":"True","type":"Ready"}],"message":null,"phase":"Running","podIPs":[{"ip":"10.0.0.2"},{"$patch":"delete","ip":"10.0.0.1"}]}"#
            ]],
        );
    }
}
