//! ConfigMap: data for Pods.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::secret::DATA_BYTES_MAX;
use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, column},
    names,
};

impl Kind for ConfigMap {
    const SHORT_NAMES: &'static [&'static str] = &["cm"];

    fn validate(&self, errors: &mut Errors) {
        let binary = self.binary_data.as_ref();
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            let path = Path::new("data").key(key);
            validate_key(key, &path, errors);
            if binary.is_some_and(|binary| binary.contains_key(key)) {
                errors.invalid(&path, key, "duplicate of key present in binaryData");
            }
            bytes += value.len();
        }
        for (key, value) in binary.into_iter().flatten() {
            validate_key(key, &Path::new("binaryData").key(key), errors);
            bytes += value.0.len();
        }
        if bytes > DATA_BYTES_MAX {
            errors.too_long(&Path::new(""), DATA_BYTES_MAX);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if old.immutable != Some(true) {
            return;
        }
        forbid_change(self.immutable == Some(true), "immutable", errors);
        forbid_change(same(&self.data, &old.data), "data", errors);
        forbid_change(same(&self.binary_data, &old.binary_data), "binaryData", errors);
    }

    fn columns() -> Vec<Column> {
        vec![NAME_COLUMN, column("Data", "Data contains the configuration data."), AGE_COLUMN]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let count =
            self.data.as_ref().map_or(0, |data| data.len()) + self.binary_data.as_ref().map_or(0, |data| data.len());
        vec![self.metadata.name.clone().into(), count.into(), kind::age(&self.metadata, now).into()]
    }
}

/// A key that can be a file name.
pub(super) fn validate_key(key: &str, path: &Path, errors: &mut Errors) {
    for message in names::is_config_map_key(key) {
        errors.invalid(path, key, message);
    }
}

/// An error about `field` unless it is the same as before.
pub(super) fn forbid_change(same: bool, field: &str, errors: &mut Errors) {
    if !same {
        errors.forbidden(&Path::new(field), "field is immutable when `immutable` is set");
    }
}

/// Absent and empty are the same.
pub(super) fn same<T: Default + PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    let empty = T::default();
    a.as_ref().unwrap_or(&empty) == b.as_ref().unwrap_or(&empty)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_change, check_new, check_row};

    #[test]
    fn keys_and_size() {
        check_new::<ConfigMap>(
            json!({"data": {"a/b": "1", "c": "2"}, "binaryData": {"c": "AAAA"}}),
            expect![[r#"
                data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
                data[c]: Invalid value: "c": duplicate of key present in binaryData"#]],
        );
        check_new::<ConfigMap>(
            json!({"data": {"a": "x".repeat(DATA_BYTES_MAX + 1)}}),
            expect![": Too long: may not be more than 1048576 bytes"],
        );
    }

    #[test]
    fn immutable_means_it() {
        check_change::<ConfigMap>(
            json!({"immutable": true, "data": {"a": "1"}}),
            json!({"data": {"a": "2"}}),
            expect![[r#"
                immutable: Forbidden: field is immutable when `immutable` is set
                data: Forbidden: field is immutable when `immutable` is set"#]],
        );
    }

    #[test]
    fn row() {
        check_row::<ConfigMap>(
            json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "data": {"x": "1"}}),
            expect!["a | 1 | 60m"],
        );
    }
}
