//! `/openapi/v2` and `/openapi/v3`, each document made once, when it is first asked for.

use api::Status;
use axum::response::Response;
use http::HeaderMap;

/// `path` is what follows `/openapi`.
pub(crate) fn answer(path: &[&str], _headers: &HeaderMap, _query: &str) -> Result<Response, Status> {
    let _ = path;
    Err(Status::no_such_path())
}
