//! One object in the cache, and one change of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak},
};

use api::{AnyKind, Object};
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use serde_json::Value;
use store::{Key, Revision};

/// What selectors look at; extracted once, when an object is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub labels: BTreeMap<String, String>,
    /// All selectable fields, `metadata.name` and `metadata.namespace` included.
    pub fields: Vec<(&'static str, String)>,
}

impl Facts {
    pub fn of(kind: &dyn AnyKind, object: &Object) -> Self {
        Self { labels: labels_of(object), fields: kind.selectable_fields(object) }
    }
}

fn labels_of(object: &Object) -> BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    labels.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// One object as it was last written.
#[derive(Debug)]
pub struct Entry {
    /// `<resource>/<namespace>/<name>`, or `<resource>/<name>`.
    pub key: Key,
    /// JSON with its resourceVersion, as GET answers it.
    pub bytes: Bytes,
    pub revision: Revision,
    pub facts: Arc<Facts>,
    /// Kept as long as somebody uses it.
    decoded: Mutex<Weak<Object>>,
}

impl Entry {
    /// `stored` is what the store holds: without a resourceVersion.
    pub fn new(key: Key, stored: &Bytes, revision: Revision, facts: Arc<Facts>) -> Self {
        Self { key, bytes: api::encoding::stamp(stored, revision), revision, facts, decoded: Mutex::default() }
    }

    /// The object as JSON; decoded once for all who hold it at a time. `Null` if the store holds garbage.
    pub fn object(&self) -> Arc<Object> {
        let mut decoded = self.decoded.lock();
        if let Some(object) = decoded.upgrade() {
            return object;
        }
        let object = Arc::new(serde_json::from_slice(&self.bytes).unwrap_or_default());
        *decoded = Arc::downgrade(&object);
        object
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    pub old: Option<Arc<Entry>>,
    pub new: Option<Arc<Entry>>,
    pub revision: Revision,
    frame: OnceLock<Bytes>,
    gone: OnceLock<Bytes>,
}

impl Event {
    pub fn new(old: Option<Arc<Entry>>, new: Option<Arc<Entry>>, revision: Revision) -> Self {
        Self { old, new, revision, frame: OnceLock::new(), gone: OnceLock::new() }
    }

    /// What a watcher of everything reads; encoded for the first and shared by all.
    pub fn frame(&self) -> Bytes {
        let make = || match (&self.old, &self.new) {
            (None, Some(new)) => frame("ADDED", &new.bytes),
            (Some(_), Some(new)) => frame("MODIFIED", &new.bytes),
            (_, None) => frame("DELETED", &self.last_state()),
        };
        self.frame.get_or_init(make).clone()
    }

    /// The object before the change, with the change's revision: what a DELETED event carries.
    pub fn last_state(&self) -> Bytes {
        let make = || self.old.as_ref().map(|old| restamp(&old.bytes, self.revision)).unwrap_or_default();
        self.gone.get_or_init(make).clone()
    }

    /// How much memory the event keeps alive, in bytes.
    pub fn weight(&self) -> usize {
        let new = self.new.as_ref().map_or(0, |entry| entry.bytes.len());
        2 * new + 256
    }
}

/// One line of a watch: `{"type":"ADDED","object":{…}}`.
pub fn frame(r#type: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(r#type.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}

const STAMP: &[u8] = b"\"metadata\":{\"resourceVersion\":\"";

/// The same object at another revision. `stamped` begins as `api::encoding::stamp` leaves it.
pub fn restamp(stamped: &Bytes, revision: Revision) -> Bytes {
    let Some(at) = stamped.windows(STAMP.len()).position(|window| window == STAMP) else {
        return stamped.clone();
    };
    let (head, tail) = stamped.split_at(at + STAMP.len());
    let end = tail.iter().position(|byte| *byte == b'"').unwrap_or(0);
    let mut bytes = BytesMut::with_capacity(stamped.len() + 8);
    bytes.put_slice(head);
    bytes.put_slice(revision.to_string().as_bytes());
    bytes.put_slice(&tail[end..]);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_object_carries_the_revision_of_its_deletion() {
        let stored = api::encoding::encode(&serde_json::json!({"kind": "ConfigMap", "metadata": {"name": "a"}}));
        let entry = Arc::new(Entry::new("configmaps/d/a".into(), &stored, 7, Arc::default()));
        let frame = Event::new(Some(entry), None, 12).frame();
        let read: Value = serde_json::from_slice(&frame).unwrap();
        assert_eq!(read["type"], "DELETED");
        assert_eq!(read["object"]["metadata"]["resourceVersion"], "12");
        assert_eq!(read["object"]["metadata"]["name"], "a");
    }
}
