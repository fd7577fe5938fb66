//! ConfigMap: data for Pods.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, column};

impl Kind for ConfigMap {
    const SHORT_NAMES: &'static [&'static str] = &["cm"];

    fn columns() -> Vec<Column> {
        vec![NAME_COLUMN, column("Data", "Data contains the configuration data."), AGE_COLUMN]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let count = self.data.as_ref().map_or(0, |data| data.len()) + self.binary_data.as_ref().map_or(0, |data| data.len());
        vec![self.metadata.name.clone().into(), count.into(), kind::age(&self.metadata, now).into()]
    }
}
