//! `pods/exec`, `pods/attach` and `pods/portforward`: the client's connection joined with the kubelet's.
//!
//! The API server speaks neither WebSocket nor SPDY: it sends the upgrade on and copies bytes.

use std::sync::Arc;

use api::{Status, object::ObjectExt};
use axum::{body::Body, response::Response};
use http::HeaderMap;

use super::{
    Answered,
    connection::{Outgoing, wanted_upgrade},
    kubelet,
};
use crate::{
    Server,
    call::Call,
    options::{is_true, pairs},
    request::RequestInfo,
};

pub(super) fn exec(server: Arc<Server>, call: Call, _body: Body) -> Answered {
    Box::pin(async move { in_container(&server, call, "exec").await })
}

pub(super) fn attach(server: Arc<Server>, call: Call, _body: Body) -> Answered {
    Box::pin(async move { in_container(&server, call, "attach").await })
}

pub(super) fn port_forward(server: Arc<Server>, call: Call, _body: Body) -> Answered {
    Box::pin(async move {
        may_create(&server, &call)?;
        let pod = kubelet::pod(&server, &call)?;
        let ports = values(&call, "ports").join(",");
        let query = if ports.is_empty() { String::new() } else { kubelet::query(&[("port", ports)]) };
        let path = format!("/portForward/{}/{}", pod.namespace(), pod.name());
        join(&server, call, pod.text("/spec/nodeName"), &path, &query).await
    })
}

async fn in_container(server: &Server, call: Call, action: &str) -> Result<Response, Status> {
    may_create(server, &call)?;
    let pod = kubelet::pod(server, &call)?;
    let named = values(&call, "container").into_iter().next().unwrap_or_default();
    let container = kubelet::container(&pod, &named)?;
    let mut query: Vec<(&str, String)> = Vec::new();
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if values(&call, ours).first().is_some_and(|value| is_true(value)) {
            query.push((theirs, "1".into()));
        }
    }
    if action == "exec" {
        query.extend(values(&call, "command").into_iter().map(|word| ("command", word)));
    }
    let path = format!("/{action}/{}/{}/{container}", pod.namespace(), pod.name());
    join(server, call, pod.text("/spec/nodeName"), &path, &kubelet::query(&query)).await
}

/// A WebSocket is opened by GET, but whoever may only read may not run commands (upstream: since 1.35).
fn may_create(server: &Server, call: &Call) -> Result<(), Status> {
    let question = RequestInfo { verb: "create".into(), ..call.info.clone() };
    server.auth.authorize(&call.user, &question).into_result(&call.user, &question)
}

/// All values of a query parameter.
fn values(call: &Call, name: &str) -> Vec<String> {
    let query = call.parts.uri.query().unwrap_or_default();
    pairs(query).filter(|(given, _)| given == name).map(|(_, value)| value).collect()
}

async fn join(server: &Server, mut call: Call, node: &str, path: &str, query: &str) -> Result<Response, Status> {
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", call.name())));
    }
    if wanted_upgrade(&call.parts.headers).is_none() {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let endpoint = kubelet::endpoint(server, node)?;
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let outgoing = Outgoing { parts: &mut call.parts, body: Body::empty(), target: &target, headers: HeaderMap::new() };
    let unreached = |error| Status::unknown(format!("error dialing backend: {error}"));
    endpoint.forward(outgoing).await.map_err(unreached)
}
