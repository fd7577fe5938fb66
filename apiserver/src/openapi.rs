//! `/openapi/v2` and `/openapi/v3`, each document made once, when it is first asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
};

use api::{Descriptor, Status, openapi, schema};
use axum::response::Response;
use http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::{
    discovery::{GIT_VERSION, hash, with_etag},
    kinds,
    negotiate::{accept, clauses},
    respond::json_response,
};

type Document = OnceLock<Arc<Vec<u8>>>;

static V2: Document = OnceLock::new();

/// By path: `api/v1`, `apis/apps/v1`.
static V3: LazyLock<BTreeMap<String, Document>> =
    LazyLock::new(|| openapi::v3_paths(&descriptors()).into_iter().map(|path| (path, OnceLock::new())).collect());

static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(schema::definitions);

fn descriptors() -> Vec<&'static Descriptor> {
    kinds::all().map(|kind| kind.descriptor()).collect()
}

/// `path` is what follows `/openapi`.
pub(crate) fn answer(path: &[&str], headers: &HeaderMap) -> Result<Response, Status> {
    let accepts_json = |media_type: &str| matches!(media_type, "application/json" | "application/*" | "*/*");
    let accept = accept(headers);
    if !accept.trim().is_empty() && !clauses(&accept).iter().any(|clause| accepts_json(clause.media_type)) {
        return Err(Status::not_acceptable("application/json"));
    }
    match path {
        ["v2"] => Ok(with_etag(headers, V2.get_or_init(v2).to_vec(), "application/json")),
        ["v3"] => Ok(json_response(&index())),
        ["v3", place @ ..] => {
            let place = place.join("/");
            let document = V3.get(&place).ok_or_else(Status::no_such_path)?;
            Ok(with_etag(headers, document.get_or_init(|| v3(&place)).to_vec(), "application/json"))
        }
        _ => Err(Status::no_such_path()),
    }
}

fn v2() -> Arc<Vec<u8>> {
    encoded(&openapi::v2(&descriptors(), &DEFINITIONS, GIT_VERSION))
}

fn v3(place: &str) -> Arc<Vec<u8>> {
    let (group, version) = match place.split('/').collect::<Vec<_>>().as_slice() {
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        [_, version] => (String::new(), (*version).to_owned()),
        _ => (String::new(), String::new()),
    };
    encoded(&openapi::v3(&descriptors(), &group, &version, &DEFINITIONS, GIT_VERSION))
}

fn encoded(document: &Value) -> Arc<Vec<u8>> {
    Arc::new(serde_json::to_vec(document).unwrap_or_default())
}

/// Where the documents are, each with the hash by which clients keep it. The hash is of the program, since the
/// documents change only with it: none has to be made for the index.
fn index() -> Value {
    let identity = hash(format!("{GIT_VERSION} {:?}", V3.keys()).as_bytes());
    let entry = |path: &String| (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={identity}")}));
    json!({"paths": V3.keys().map(entry).collect::<Map<_, _>>()})
}
