//! `/openapi/v2` and `/openapi/v3`, each document made once, when it is first asked for.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, OnceLock},
};

use api::{Descriptor, Status, openapi, schema};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::{
    discovery::{GIT_VERSION, hash, with_etag},
    kinds,
    negotiate::{accept, clauses},
    respond::json_response,
};

const JSON: &str = "application/json";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

type Document = OnceLock<Bytes>;

/// Only this form is kept: kubectl asks for it.
static V2_AS_PROTOBUF: LazyLock<Bytes> = LazyLock::new(|| openapi::v2_protobuf(&v2()).into());

/// By path: `api/v1`, `apis/apps/v1`.
static V3: LazyLock<BTreeMap<String, Document>> =
    LazyLock::new(|| openapi::v3_paths(&descriptors()).into_iter().map(|path| (path, OnceLock::new())).collect());

static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(schema::definitions);

fn descriptors() -> Vec<&'static Descriptor> {
    kinds::all().map(|kind| kind.descriptor()).collect()
}

/// `path` is what follows `/openapi`.
pub(crate) fn answer(path: &[&str], headers: &HeaderMap) -> Result<Response, Status> {
    let accept = accept(headers);
    let media_type = match path {
        ["v2"] => served(&accept, &[JSON, V2_PROTOBUF]),
        _ => served(&accept, &[JSON]),
    };
    let media_type = media_type.ok_or_else(|| Status::not_acceptable(JSON))?;
    match path {
        ["v2"] if media_type == V2_PROTOBUF => Ok(with_etag(headers, V2_AS_PROTOBUF.clone(), V2_PROTOBUF)),
        ["v2"] => Ok(with_etag(headers, encoded(&v2()), JSON)),
        ["v3"] => Ok(json_response(&index())),
        ["v3", place @ ..] => {
            let place = place.join("/");
            let document = V3.get(&place).ok_or_else(Status::no_such_path)?;
            Ok(with_etag(headers, document.get_or_init(|| v3(&place)).clone(), JSON))
        }
        _ => Err(Status::no_such_path()),
    }
}

/// The first form that the client accepts and that there is.
fn served(accept: &str, forms: &[&'static str]) -> Option<&'static str> {
    let clauses = clauses(accept);
    if clauses.is_empty() {
        return Some(JSON);
    }
    let form = |media_type: &str| match media_type {
        "application/*" | "*/*" => Some(JSON),
        // The name with an at sign is what clients send and their own parsers refuse.
        other => forms.iter().copied().find(|form| *form == other.replace('@', ".")),
    };
    clauses.iter().find_map(|clause| form(clause.media_type))
}

fn v2() -> Value {
    openapi::v2(&descriptors(), &DEFINITIONS, GIT_VERSION)
}

fn v3(place: &str) -> Bytes {
    let (group, version) = match place.split('/').collect::<Vec<_>>().as_slice() {
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        [_, version] => (String::new(), (*version).to_owned()),
        _ => (String::new(), String::new()),
    };
    encoded(&openapi::v3(&descriptors(), &group, &version, &DEFINITIONS, GIT_VERSION))
}

fn encoded(document: &Value) -> Bytes {
    serde_json::to_vec(document).unwrap_or_default().into()
}

/// Where the documents are, each with the hash by which clients keep it. The hash is of the program, since the
/// documents change only with it: none has to be made for the index.
fn index() -> Value {
    let identity = hash(format!("{GIT_VERSION} {:?}", V3.keys()).as_bytes());
    let entry =
        |path: &String| (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={identity}")}));
    json!({"paths": V3.keys().map(entry).collect::<Map<_, _>>()})
}
