//! `metadata.managedFields`: who set what.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::field_set::FieldSet;

/// More managers than this with operation `Update` are not kept apart: the oldest become one.
const UPDATE_MANAGERS_MAX: usize = 10;
const ANCIENT_CHANGES: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What makes two entries one.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Manager {
    pub name: String,
    pub operation: Operation,
    /// Empty for `Apply`: a manager has one applied configuration, whatever version it was written in.
    pub api_version: String,
    pub subresource: String,
}

impl Manager {
    pub fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        let name = if name.is_empty() { "unknown" } else { name };
        Self { name: name.into(), operation, api_version: api_version.into(), subresource: subresource.into() }
    }

    /// `"kubectl" using apps/v1`, as conflicts name it.
    pub fn printed(&self) -> String {
        let mut printed = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            printed += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            printed += &format!(" using {}", self.api_version);
        }
        printed
    }
}

/// The fields of one manager.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub api_version: String,
    /// RFC 3339 in whole seconds, so that order is time; empty where it is not known.
    pub time: String,
    pub fields: FieldSet,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managed(pub BTreeMap<Manager, Entry>);

impl Managed {
    /// Of an object; fails with what is wrong with its managedFields.
    pub fn decode(object: &Value) -> Result<Self, String> {
        let mut managed = Self::default();
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        for (index, entry) in entries.into_iter().flatten().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
            }
            let fields = match entry.get("fieldsV1") {
                None | Some(Value::Null) => FieldSet::default(),
                Some(fields) => FieldSet::from_fields_v1(fields)?,
            };
            let manager = Manager {
                name: text("manager").into(),
                ..Manager::new("", operation, text("apiVersion"), text("subresource"))
            };
            let entry = Entry { api_version: text("apiVersion").into(), time: text("time").into(), fields };
            managed.0.insert(manager, entry);
        }
        Ok(managed)
    }

    /// As `managedFields`; `Null` when there are none.
    pub fn encode(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let mut entries: Vec<(&Manager, &Entry)> = self.0.iter().collect();
        entries.sort_by_key(|(manager, entry)| {
            let Manager { name, operation, subresource, .. } = manager;
            (operation, &entry.time, name, &entry.api_version, subresource)
        });
        let encoded = entries.into_iter().map(|(manager, entry)| {
            let mut out = Map::new();
            let texts = [
                ("manager", manager.name.as_str()),
                ("operation", manager.operation.as_str()),
                ("apiVersion", &entry.api_version),
                ("time", &entry.time),
                ("fieldsType", "FieldsV1"),
                ("subresource", &manager.subresource),
            ];
            for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
                out.insert(name.into(), text.into());
            }
            out.insert("fieldsV1".into(), entry.fields.to_fields_v1());
            Value::Object(out)
        });
        Value::Array(encoded.collect())
    }

    /// Whether a writer asks for all entries to be forgotten: an empty list, or one empty entry.
    pub fn is_reset(object: &Value) -> bool {
        match object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice) {
            Some([]) => true,
            Some([only]) => *only == json!({}),
            _ => false,
        }
    }

    /// What anybody owns.
    pub fn all_fields(&self) -> FieldSet {
        self.0.values().fold(FieldSet::default(), |all, entry| all.union(&entry.fields))
    }

    /// Merges the oldest `Update` entries until no more than [`UPDATE_MANAGERS_MAX`] are left.
    pub fn cap(&mut self) {
        let mut updaters: Vec<(String, Manager)> = self
            .0
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update)
            .map(|(manager, entry)| (entry.time.clone(), manager.clone()))
            .collect();
        let mut excess = updaters.len().saturating_sub(UPDATE_MANAGERS_MAX);
        updaters.sort();
        // Per version, the first is only remembered: one entry alone would not get fewer by being renamed.
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if excess == 0 {
                return;
            }
            let version = manager.api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, manager);
                continue;
            };
            let bucket = Manager::new(ANCIENT_CHANGES, Operation::Update, &version, "");
            if !self.0.contains_key(&bucket)
                && let Some(entry) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), entry);
            }
            if bucket == manager {
                continue;
            }
            if let (Some(entry), Some(old)) = (self.0.remove(&manager), self.0.get_mut(&bucket)) {
                old.fields = old.fields.union(&entry.fields);
                old.time = entry.time;
                excess -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, minute: usize) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": format!("2026-01-01T00:{minute:02}:00Z"), "fieldsV1": {format!("f:{manager}"): {}}})
    }

    #[test]
    fn entries_read_back_in_upstreams_order() {
        let apply = json!({"manager": "z", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:data": {".": {}, "f:a": {}}}});
        let status = json!({"manager": "k", "operation": "Update", "apiVersion": "v1", "subresource": "status",
            "fieldsType": "FieldsV1", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:status": {}}});
        let fields = json!([apply, status, entry("b", 1), entry("a", 2)]);
        let object = json!({"metadata": {"managedFields": fields}});
        assert_eq!(Managed::decode(&object).unwrap().encode(), fields);
    }

    #[test]
    fn garbage_is_refused() {
        for (field, sentence) in [
            ("operation", "operation must be `Apply` or `Update`"),
            ("apiVersion", "apiVersion must not be empty"),
            ("fieldsType", "missing fieldsType in managed fields entry 0"),
        ] {
            let mut broken = entry("a", 1);
            broken[field] = "".into();
            let object = json!({"metadata": {"managedFields": [broken]}});
            assert_eq!(Managed::decode(&object).unwrap_err(), sentence);
        }
    }

    #[test]
    fn the_oldest_updaters_become_one() {
        let entries: Vec<Value> = (0..13).map(|n| entry(&format!("m{n:02}"), n)).collect();
        let mut managed = Managed::decode(&json!({"metadata": {"managedFields": entries}})).unwrap();
        managed.cap();
        assert_eq!(managed.0.len(), UPDATE_MANAGERS_MAX);
        let encoded = managed.encode();
        let ancient = &encoded[0];
        assert_eq!(ancient["manager"], ANCIENT_CHANGES);
        assert_eq!(ancient["fieldsV1"], json!({"f:m00": {}, "f:m01": {}, "f:m02": {}, "f:m03": {}}));
        assert_eq!(ancient["time"], "2026-01-01T00:03:00Z");
    }
}
