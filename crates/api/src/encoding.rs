//! Objects as bytes: encoded once, stamped with their revision once, then shared.
//!
//! A stored value begins `{"kind":…,"apiVersion":…,"metadata":{` and has no resourceVersion, since that
//! is the commit's revision. [`stamp`] splices it in when the value enters a cache.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};

const METADATA: &[u8] = b",\"metadata\":{";

/// Encodes an object for storage. `object` must be a JSON object.
pub fn encode(object: &Value) -> Bytes {
    let empty = Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    let mut out = BytesMut::with_capacity(1024).writer();
    let kind = fields.get("kind").unwrap_or(&Value::Null);
    let api_version = fields.get("apiVersion").unwrap_or(&Value::Null);
    let _ = write!(out, "{{\"kind\":{kind},\"apiVersion\":{api_version}");
    out.get_mut().put_slice(METADATA);
    let mut separator = "";
    let meta = fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    for (name, value) in meta.iter().filter(|(name, _)| *name != "resourceVersion") {
        let _ = write!(out, "{separator}{}:{value}", Value::from(name.as_str()));
        separator = ",";
    }
    out.get_mut().put_u8(b'}');
    for (name, value) in fields {
        if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
            let _ = write!(out, ",{}:{value}", Value::from(name.as_str()));
        }
    }
    out.get_mut().put_u8(b'}');
    out.into_inner().freeze()
}

use std::io::Write as _;

/// The stored bytes with `metadata.resourceVersion` set. Bytes that [`encode`] did not make are
/// returned as they are.
pub fn stamp(stored: &Bytes, revision: u64) -> Bytes {
    let Some(at) = stored.windows(METADATA.len()).position(|window| window == METADATA) else {
        return stored.clone();
    };
    let (head, tail) = stored.split_at(at + METADATA.len());
    let comma = if tail.first() == Some(&b'}') { "" } else { "," };
    let mut out = BytesMut::with_capacity(stored.len() + 48).writer();
    out.get_mut().put_slice(head);
    let _ = write!(out, "\"resourceVersion\":\"{revision}\"{comma}");
    out.get_mut().put_slice(tail);
    out.into_inner().freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stamped_value_reads_back_as_the_object() {
        let object = json!({"data": {"a": ",\"metadata\":{"}, "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "c", "resourceVersion": "3"}});
        let stored = encode(&object);
        assert!(stored.starts_with(b"{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\""));
        let read: Value = serde_json::from_slice(&stamp(&stored, 17)).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "17");
        assert_eq!(read["data"], object["data"]);
    }

    #[test]
    fn empty_metadata_is_stamped_too() {
        let read: Value = serde_json::from_slice(&stamp(&encode(&json!({"kind": "X"})), 1)).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "1");
    }
}
