//! One file a subresource that has behaviour of its own, and the table that finds them.
//!
//! `status`, `scale` and `finalize` are generic and live in `registry`.

use std::sync::Arc;

use api::Status;
use axum::{body::Body, response::Response};
use futures::future::BoxFuture;

use crate::{Server, call::Call};

/// Answers one request. `call.body` is still empty: a handler that wants the body reads it.
pub type Handler = fn(Arc<Server>, Call, Body) -> BoxFuture<'static, Result<Response, Status>>;

/// A row of the table: group, plural, subresource (empty: the resource itself, for kinds that are not stored).
type Row = (&'static str, &'static str, &'static str, Handler);

static TABLE: &[Row] = &[];

/// The handler of a subresource that is not generic.
pub fn find(group: &str, resource: &str, subresource: &str) -> Option<Handler> {
    let is_meant = |row: &&Row| (row.0, row.1, row.2) == (group, resource, subresource);
    TABLE.iter().find(is_meant).map(|row| row.3)
}
