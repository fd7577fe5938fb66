//! JSON patch (RFC 6902).

use json_patch::PatchOperation;
use serde_json::Value;

use crate::Status;

/// More operations than this in one patch are refused.
pub const OPERATIONS_MAX: usize = 10_000;
/// How much `copy` may make an object grow: patches are small, what they copy need not be.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Applies the operations in order; all or none.
pub fn json_patch(object: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > OPERATIONS_MAX {
        return Err(Status::too_many_patch_operations(operations, OPERATIONS_MAX));
    }
    let operations: Vec<PatchOperation> = serde_json::from_value(patch.clone())
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = object.clone();
    let mut copied_bytes = 0;
    for operation in &operations {
        if let PatchOperation::Copy(copy) = operation {
            copied_bytes += patched.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied_bytes > COPIED_BYTES_MAX {
                let sentence = "Unable to copy, the accumulated size increase of copy is";
                let sentence = format!("{sentence} {copied_bytes}, exceeding the limit {COPIED_BYTES_MAX}");
                return Err(Status::patch_rejected(sentence));
            }
        }
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation))
            .map_err(|error| Status::patch_rejected(refusal(operation, &error.kind)))?;
    }
    Ok(patched)
}

fn refusal(operation: &PatchOperation, kind: &json_patch::PatchErrorKind) -> String {
    let path = operation.path();
    match operation {
        PatchOperation::Test(_) => format!("testing value {path} failed: test failed"),
        PatchOperation::Add(_) => {
            format!("add operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        PatchOperation::Remove(_) => {
            format!("remove operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        PatchOperation::Replace(_) => {
            format!("replace operation does not apply: doc is missing path: {path}: missing value")
        }
        PatchOperation::Move(_) => format!("error in move for path: '{path}': {kind}"),
        PatchOperation::Copy(_) => format!("error in copy for path: '{path}': {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations_apply_in_order_or_not_at_all() {
        let object = json!({"spec": {"replicas": 1, "list": ["a", "b"]}});
        let patched = json_patch(
            &object,
            &json!([
                {"op": "test", "path": "/spec/replicas", "value": 1},
                {"op": "replace", "path": "/spec/replicas", "value": 2},
                {"op": "add", "path": "/spec/list/-", "value": "c"},
                {"op": "remove", "path": "/spec/list/0"},
                {"op": "add", "path": "/metadata", "value": {"labels": {"a/b": "c"}}},
                {"op": "replace", "path": "/metadata/labels/a~1b", "value": "d"},
            ]),
        );
        let expected = json!({"spec": {"replicas": 2, "list": ["b", "c"]}, "metadata": {"labels": {"a/b": "d"}}});
        assert_eq!(patched.unwrap(), expected);
    }

    #[test]
    fn refusals() {
        let failure = |patch: Value| json_patch(&json!({"a": 1, "big": "x".repeat(1 << 20)}), &patch).unwrap_err();
        assert_eq!(failure(json!({"op": "add"})).code, 400);
        let status = failure(json!([{"op": "remove", "path": "/b"}]));
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        assert_eq!(status.message, "the server rejected our request due to an error in our request");
        let copies: Vec<Value> =
            (0..40).map(|n| json!({"op": "copy", "from": "/big", "path": format!("/c{n}")})).collect();
        assert_eq!(failure(copies.into()).code, 422);
        let many = vec![json!({"op": "test", "path": "/a", "value": 1}); OPERATIONS_MAX + 1];
        assert_eq!(failure(many.into()).message, "The allowed maximum operations in a JSON patch is 10000, got 10001");
    }
}
