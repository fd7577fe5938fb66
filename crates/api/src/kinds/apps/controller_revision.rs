//! ControllerRevision: what a workload looked like once; it never changes.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, column},
    validation::validate_non_negative,
};

impl Kind for ControllerRevision {
    fn validate(&self, errors: &mut Errors) {
        validate_non_negative(self.revision, &Path::new("revision"), errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        let path = Path::new("data");
        match self.data.as_ref().map(|data| &data.0) {
            None | Some(Value::Null) => errors.required(&path, "data is mandatory"),
            Some(Value::Object(_)) => {}
            Some(_) => errors.required(&path, "data must be a valid JSON object"),
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.data != old.data {
            errors.invalid(&Path::new("data"), self.data.as_ref().map(|data| &data.0), "field is immutable");
        }
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            column("Controller", "Controller of the object"),
            column("Revision", "Revision indicates the revision of the state represented by Data."),
            AGE_COLUMN,
        ]
    }

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let owner = self.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let controller = owner.map_or("<none>".into(), |owner| {
            let kind = owner.kind.to_lowercase();
            match owner.api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
                None => format!("{kind}/{}", owner.name),
            }
        });
        vec![
            self.metadata.name.clone().into(),
            controller.into(),
            self.revision.into(),
            kind::age(&self.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_change, check_new, check_row};

    #[test]
    fn data_is_an_object_and_stays() {
        check_new::<ControllerRevision>(
            json!({"revision": -1}),
            expect![[r#"
            revision: Invalid value: -1: must be greater than or equal to 0
            data: Required value: data is mandatory"#]],
        );
        let revision = |data: Value| json!({"revision": 1, "data": data});
        check_new::<ControllerRevision>(
            revision(json!([])),
            expect!["data: Required value: data must be a valid JSON object"],
        );
        check_change::<ControllerRevision>(
            revision(json!({"a": 1})),
            revision(json!({"a": 2})),
            expect![[r#"data: Invalid value: {"a":2}: field is immutable"#]],
        );
    }

    #[test]
    fn row() {
        let revision = json!({"metadata": {"name": "web-7", "ownerReferences": [{"apiVersion": "apps/v1",
            "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true}]}, "revision": 7});
        check_row::<ControllerRevision>(revision, expect!["web-7 | statefulset.apps/web | 7 | <unknown>"]);
    }
}
