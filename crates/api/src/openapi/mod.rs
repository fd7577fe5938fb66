//! OpenAPI documents, derived from the registry: what `kubectl explain`, validation and client-side
//! strategic merge patches read.
//!
//! Both functions are pure and slow (milliseconds): call them when the set of kinds changes and keep the
//! bytes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::Descriptor;

mod paths;
mod protobuf;
mod types;

pub use protobuf::v2_protobuf;

/// The two versions of OpenAPI that Kubernetes serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Dialect {
    fn reference(self, definition: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{definition}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{definition}")}),
        }
    }
}

/// `/openapi/v2`: everything in one document. `definitions` as of [`crate::schema::definitions`];
/// `version` is the server's (`v1.36.0`).
pub fn v2(kinds: &[&Descriptor], definitions: &Map<String, Value>, version: &str) -> Value {
    let mut paths = Map::new();
    for kind in kinds {
        paths::add(&mut paths, kind, Dialect::V2);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": types::render(kinds, kinds, definitions, Dialect::V2),
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    })
}

/// `/openapi/v3/apis/<group>/<version>` (core: `/openapi/v3/api/v1`): one group version, with the
/// definitions that it needs. `kinds` are those of all groups.
pub fn v3(
    kinds: &[&Descriptor],
    group: &str,
    version: &str,
    definitions: &Map<String, Value>,
    server_version: &str,
) -> Value {
    let own: Vec<&Descriptor> =
        kinds.iter().copied().filter(|kind| kind.group == group && kind.version == version).collect();
    let mut paths = Map::new();
    for kind in &own {
        paths::add(&mut paths, kind, Dialect::V3);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": server_version},
        "paths": paths,
        "components": {
            "schemas": types::render(&own, kinds, definitions, Dialect::V3),
            "securitySchemes": {"BearerToken": bearer_token()},
        },
    })
}

/// The group versions there is a v3 document for, as path segments: `api/v1`, `apis/apps/v1`.
pub fn v3_paths(kinds: &[&Descriptor]) -> Vec<String> {
    let paths: BTreeSet<String> =
        kinds.iter().map(|kind| group_version_path(kind).trim_start_matches('/').into()).collect();
    paths.into_iter().collect()
}

fn group_version_path(kind: &Descriptor) -> String {
    match kind.group.as_str() {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    }
}

fn bearer_token() -> Value {
    json!({"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"})
}

fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds, schema};

    fn descriptors() -> Vec<&'static Descriptor> {
        kinds::ALL.iter().map(|kind| kind.descriptor()).collect()
    }

    fn dangling(document: &Value, prefix: &str, known: &Map<String, Value>, found: &mut Vec<String>) {
        match document {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    match target.strip_prefix(prefix) {
                        Some(name) if known.contains_key(name) => {}
                        _ => found.push(target.clone()),
                    }
                }
                map.values().for_each(|value| dangling(value, prefix, known, found));
            }
            Value::Array(items) => items.iter().for_each(|item| dangling(item, prefix, known, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let (kinds, definitions) = (descriptors(), schema::definitions());
        let mut found = Vec::new();
        let v2 = v2(&kinds, &definitions, "v1.36.0");
        dangling(&v2, "#/definitions/", v2["definitions"].as_object().unwrap(), &mut found);
        for path in v3_paths(&kinds) {
            let segments: Vec<&str> = path.split('/').collect();
            let (group, version) = if segments[0] == "api" { ("", segments[1]) } else { (segments[1], segments[2]) };
            let v3 = v3(&kinds, group, version, &definitions, "v1.36.0");
            let known = v3["components"]["schemas"].as_object().unwrap();
            dangling(&v3, "#/components/schemas/", known, &mut found);
            assert!(!v3["paths"].as_object().unwrap().is_empty(), "{path}");
        }
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn kubectl_finds_what_it_looks_for() {
        let (kinds, definitions) = (descriptors(), schema::definitions());
        let v3 = v3(&kinds, "", "v1", &definitions, "v1.36.0");
        let gvk = json!({"group": "", "kind": "ConfigMap", "version": "v1"});
        let patch = &v3["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
        assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun") && names.contains(&"force"));
        let schema = &v3["components"]["schemas"]["io.k8s.api.core.v1.ConfigMap"];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk]));
        let meta = &v3["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
        assert_eq!(meta["properties"]["ownerReferences"]["x-kubernetes-patch-merge-key"], "uid");
        let list = &v3["components"]["schemas"]["io.k8s.api.core.v1.ConfigMapList"];
        assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "ConfigMapList");
    }
}
