//! Secret: data for Pods that is not shown to everyone.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Map, Value};

use super::config_map::{forbid_change, same, validate_key};
use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, column},
};

/// All values of a Secret or ConfigMap together.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;

/// Names the ServiceAccount that a token Secret belongs to.
pub const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub const OPAQUE: &str = "Opaque";
pub const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";

impl Kind for Secret {
    fn set_defaults(&mut self) {
        if self.type_.as_deref().unwrap_or_default().is_empty() {
            self.type_ = Some(OPAQUE.into());
        }
        // Write-only: what is given as text is stored as data.
        for (key, value) in self.string_data.take().into_iter().flatten() {
            self.data.get_or_insert_default().insert(key, ByteString(value.into_bytes()));
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::new("data");
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            validate_key(key, &path.key(key), errors);
            bytes += value.0.len();
        }
        if bytes > DATA_BYTES_MAX {
            errors.too_long(&path, DATA_BYTES_MAX);
        }
        self.validate_keys_of_type(&path, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable(&Path::new("type"), &self.type_, &old.type_);
        if old.immutable == Some(true) {
            forbid_change(self.immutable == Some(true), "immutable", errors);
            forbid_change(same(&self.data, &old.data), "data", errors);
        }
    }

    fn columns() -> Vec<Column> {
        let kind = column("Type", "Used to facilitate programmatic handling of secret data.");
        vec![NAME_COLUMN, kind, column("Data", "Data contains the secret data."), AGE_COLUMN]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let count = self.data.as_ref().map_or(0, BTreeMap::len);
        let (name, age) = (self.metadata.name.clone(), kind::age(&self.metadata, now));
        vec![name.into(), self.type_.clone().into(), count.into(), age.into()]
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        vec![("type", self.type_.clone().unwrap_or_default())]
    }
}

trait KeysOfType {
    fn validate_keys_of_type(&self, path: &Path, errors: &mut Errors);
}

impl KeysOfType for Secret {
    /// The keys that a type promises.
    fn validate_keys_of_type(&self, path: &Path, errors: &mut Errors) {
        let value = |key: &str| self.data.as_ref().and_then(|data| data.get(key));
        let require = |key: &str, errors: &mut Errors| errors.required(&path.key(key), "");
        match self.type_.as_deref().unwrap_or_default() {
            SERVICE_ACCOUNT_TOKEN => {
                let annotations = self.metadata.annotations.as_ref();
                let owner = annotations.and_then(|annotations| annotations.get(SERVICE_ACCOUNT_NAME));
                if owner.is_none_or(String::is_empty) {
                    let path = Path::new("metadata").child("annotations").key(SERVICE_ACCOUNT_NAME);
                    errors.required(&path, "");
                }
            }
            "kubernetes.io/dockercfg" => validate_json(".dockercfg", value(".dockercfg"), path, errors),
            "kubernetes.io/dockerconfigjson" => {
                validate_json(".dockerconfigjson", value(".dockerconfigjson"), path, errors);
            }
            "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
                require("username", errors);
                require("password", errors);
            }
            "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(|key| key.0.is_empty()) => {
                require("ssh-privatekey", errors);
            }
            "kubernetes.io/tls" => {
                for key in ["tls.crt", "tls.key"] {
                    if value(key).is_none() {
                        require(key, errors);
                    }
                }
            }
            _ => {}
        }
    }
}

fn validate_json(key: &str, value: Option<&ByteString>, path: &Path, errors: &mut Errors) {
    match value.map(|value| serde_json::from_slice::<Map<String, Value>>(&value.0)) {
        None => errors.required(&path.key(key), ""),
        Some(Ok(_)) => {}
        Some(Err(error)) => errors.invalid(&path.key(key), "<secret contents redacted>", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_change, check_created, check_new, check_row};

    #[test]
    fn text_becomes_data() {
        check_created::<Secret>(
            json!({"data": {"a": "eA=="}, "stringData": {"a": "y"}}),
            expect![[r#"
                {
                  "apiVersion": "v1",
                  "kind": "Secret",
                  "data": {
                    "a": "eQ=="
                  },
                  "metadata": {},
                  "type": "Opaque"
                }"#]],
        );
    }

    #[test]
    fn types_promise_keys() {
        check_new::<Secret>(
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            expect!["data[tls.key]: Required value"],
        );
        check_new::<Secret>(
            json!({"type": "kubernetes.io/service-account-token"}),
            expect!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
        check_new::<Secret>(
            json!({"type": "kubernetes.io/basic-auth"}),
            expect![[r#"
                data[username]: Required value
                data[password]: Required value"#]],
        );
        check_new::<Secret>(
            json!({"type": "kubernetes.io/dockerconfigjson"}),
            expect!["data[.dockerconfigjson]: Required value"],
        );
        check_new::<Secret>(json!({"type": "my.io/own"}), expect![""]);
    }

    #[test]
    fn changes() {
        check_change::<Secret>(
            json!({"immutable": true, "stringData": {"a": "1"}}),
            json!({"immutable": true, "type": "other", "stringData": {"a": "2"}}),
            expect![[r#"
                type: Invalid value: "other": field is immutable
                data: Forbidden: field is immutable when `immutable` is set"#]],
        );
        check_row::<Secret>(
            json!({"metadata": {"name": "a"}, "stringData": {"k": "v"}}),
            expect!["a | Opaque | 1 | <unknown>"],
        );
    }
}
