//! One file a subresource that has behaviour of its own, and the table that finds them.
//!
//! `status`, `scale` and `finalize` are generic and live in `registry`; so do those that only change a part of
//! their object, whose rules are in `parts`.

mod binding;
mod connection;
mod disruption;
mod eviction;
mod kubelet;
mod log;
pub(crate) mod parts;
mod proxy;
mod session;
mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::{AnyKind, Object, Status};
use axum::{body::Body, response::Response};
use futures::future::BoxFuture;
use serde_json::Value;

use crate::{
    Server,
    admission::{Attributes, Operation},
    call::{Call, read_body},
    kinds,
    registry::body_value,
    request::RequestInfo,
    respond::status_response,
};

/// The answer of a handler.
type Answered = BoxFuture<'static, Result<Response, Status>>;

/// Answers one request. `call.body` is still empty: a handler that wants the body reads it.
pub type Handler = fn(Arc<Server>, Call, Body) -> Answered;

/// A row of the table: group, plural, subresource (empty: the resource itself, for kinds that are not stored).
type Row = (&'static str, &'static str, &'static str, Handler);

static TABLE: &[Row] = &[
    ("", "bindings", "", binding::create),
    ("", "nodes", "proxy", proxy::node),
    ("", "pods", "attach", session::attach),
    ("", "pods", "binding", binding::create),
    ("", "pods", "eviction", eviction::create),
    ("", "pods", "exec", session::exec),
    ("", "pods", "log", log::get),
    ("", "pods", "portforward", session::port_forward),
    ("", "pods", "proxy", proxy::pod),
    ("", "serviceaccounts", "token", token::create),
    ("", "services", "proxy", proxy::service),
];

/// The handler of a subresource that is not generic.
pub fn find(group: &str, resource: &str, subresource: &str) -> Option<Handler> {
    let is_meant = |row: &&Row| (row.0, row.1, row.2) == (group, resource, subresource);
    TABLE.iter().find(is_meant).map(|row| row.3)
}

/// The object that is posted. Only POST is allowed.
async fn posted(call: &mut Call, body: Body, kind: &str) -> Result<Object, Status> {
    if call.info.verb != "create" {
        return Err(Status::method_not_allowed());
    }
    call.body = read_body(body).await?;
    let object = body_value(call)?;
    match object.get("kind").and_then(Value::as_str).unwrap_or_default() {
        "" => Ok(object),
        given if given == kind => Ok(object),
        given => Err(Status::bad_request(format!("{given} cannot be handled as a {kind}"))),
    }
}

/// Lets admission change and refuse what is posted to a subresource.
async fn admit(server: &Server, call: &Call, object: &mut Object) -> Result<(), Status> {
    let attributes: Attributes<'_> = server.attributes(call, Operation::Create, call.name(), None);
    for step in &server.admission {
        step.admit(&attributes, object).await?;
    }
    for step in &server.admission {
        step.validate(&attributes, object).await?;
    }
    Ok(())
}

/// The same user's request for another object of a built-in kind.
fn call_about(call: &Call, kind: &'static dyn AnyKind, name: &str, subresource: &str) -> Call {
    let descriptor = kind.descriptor();
    let info = RequestInfo {
        verb: "update".into(),
        group: descriptor.group.clone(),
        version: descriptor.version.clone(),
        resource: descriptor.plural.clone(),
        subresource: subresource.into(),
        name: name.into(),
        ..call.info.clone()
    };
    Call {
        kind,
        info,
        user: call.user.clone(),
        options: call.options.clone(),
        parts: call.parts.clone(),
        body: call.body.clone(),
        warnings: call.warnings.clone(),
    }
}

/// A built-in kind by its plural.
fn builtin(group: &str, version: &str, plural: &str) -> Result<&'static dyn AnyKind, Status> {
    kinds::find(group, version, plural).ok_or_else(Status::no_such_path)
}

/// 201 and a Status: what posting to a subresource answers where nothing is stored.
fn created() -> Response {
    status_response(&Status { code: 201, ..Status::success() })
}
