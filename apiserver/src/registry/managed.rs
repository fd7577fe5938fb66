//! Who owns which field: the bridge to `api::apply`.

use std::borrow::Cow;

use api::{Object, Status};
use serde_json::Value;

use crate::{Server, call::Call};

/// The ownership of a new object's fields.
pub(super) fn created(_server: &Server, _call: &Call, object: Object) -> Result<Object, Status> {
    Ok(object)
}

/// The ownership of fields after a change that is no apply.
pub(super) fn updated(_server: &Server, _call: &Call, object: Object, _old: &Object) -> Result<Object, Status> {
    Ok(object)
}

/// Whether there is nothing to write: equal but for the times in managedFields.
pub(super) fn is_same(object: &Object, old: &Object) -> bool {
    without_times(object) == without_times(old)
}

fn without_times(object: &Object) -> Cow<'_, Object> {
    if object.pointer("/metadata/managedFields").is_none() {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        if let Some(fields) = entry.as_object_mut() {
            fields.remove("time");
        }
    }
    Cow::Owned(object)
}
