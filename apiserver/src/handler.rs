//! The one handler behind every path: who are you, may you, what is it, do it.

use std::{sync::Arc, time::Duration};

use api::{Object, Status};
use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request,
    header::{self, HeaderName},
    request::Parts,
};
use tokio::sync::SemaphorePermit;

use crate::{
    Server,
    auth::is_review,
    call::{Call, read_body},
    discovery, health, kinds, openapi,
    options::{Options, percent_decode},
    registry::any_body,
    request::{RequestInfo, User},
    respond::{bytes_response, json_response, respond, status_response},
    subresources,
    warnings::Warnings,
};

/// What is no watch, log, proxy or session must be answered within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a request waits for its turn when too many are in flight.
const TURN_WAIT_MAX: Duration = Duration::from_secs(1);

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("no-cache, private");

pub(crate) async fn handle(State(server): State<Arc<Server>>, request: Request<Body>) -> Response {
    let started = server.clock.now();
    let (parts, body) = request.into_parts();
    let path = percent_decode(parts.uri.path());
    let info = RequestInfo::parse(&parts.method, &path, parts.uri.query().unwrap_or_default());
    let audit_id = parts.headers.get(AUDIT_ID).cloned();
    let warnings = Warnings::default();
    let _running = server.metrics.begin(&info, is_long_running(&info));
    let result = limited(&server, &info, parts, body, warnings.clone()).await;
    let mut response = result.unwrap_or_else(|status| status_response(&status));
    let headers = response.headers_mut();
    warnings.write_to(headers);
    let audit_id = audit_id.or_else(|| HeaderValue::from_str(&server.chance.uuid().to_string()).ok());
    headers.extend(audit_id.map(|id| (AUDIT_ID, id)));
    headers.entry(header::CACHE_CONTROL).or_insert(CACHE_CONTROL);
    server.metrics.end(&info, response.status().as_u16(), server.clock.now().duration_since(started));
    response
}

/// The request within its limits of time and number.
async fn limited(
    server: &Arc<Server>,
    info: &RequestInfo,
    parts: Parts,
    body: Body,
    warnings: Warnings,
) -> Result<Response, Status> {
    let user = server.auth.authenticate(&parts).await?;
    let user = server.auth.impersonate(user, info, &parts.headers)?;
    server.auth.authorize(&user, info).into_result(&user, info)?;
    let work = dispatch(server, info.clone(), user, parts, body, warnings);
    if is_long_running(info) {
        return work.await;
    }
    let _turn = turn(server, info).await?;
    let late = |_| Status::timeout("request did not complete within the allotted timeout");
    tokio::time::timeout(REQUEST_TIMEOUT, work).await.map_err(late)?
}

/// Waits its turn among the requests in flight; 429 when it does not come.
async fn turn<'a>(server: &'a Server, info: &RequestInfo) -> Result<SemaphorePermit<'a>, Status> {
    let reads = matches!(info.verb.as_str(), "get" | "list" | "head");
    let turns = if reads { &server.reads_in_flight } else { &server.writes_in_flight };
    let busy = || Status::too_many_requests("too many requests, please try again later", 1);
    let permit = tokio::time::timeout(TURN_WAIT_MAX, turns.acquire()).await.map_err(|_| busy())?;
    permit.map_err(|_| busy())
}

fn is_long_running(info: &RequestInfo) -> bool {
    info.verb == "watch" || matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
}

async fn dispatch(
    server: &Arc<Server>,
    info: RequestInfo,
    user: User,
    parts: Parts,
    body: Body,
    warnings: Warnings,
) -> Result<Response, Status> {
    match info.is_resource {
        true => resource(server, info, user, parts, body, warnings).await,
        false => plain(server, &info, &parts).await,
    }
}

/// Paths under `/api/<version>/` and `/apis/<group>/<version>/`.
async fn resource(
    server: &Arc<Server>,
    info: RequestInfo,
    user: User,
    parts: Parts,
    body: Body,
    warnings: Warnings,
) -> Result<Response, Status> {
    if info.verb == "create" && info.subresource.is_empty() && is_review(&info.group, &info.resource) {
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let object = any_body(content_type.unwrap_or_default(), &read_body(body).await?)?;
        return review(server, &info, &user, object).await;
    }
    let kind = kinds::find(&info.group, &info.version, &info.resource).ok_or_else(Status::no_such_path)?;
    if !kind.descriptor().is_namespaced() && !info.namespace.is_empty() && info.resource != "namespaces" {
        return Err(Status::no_such_path());
    }
    let options = match info.subresource.as_str() {
        // The query is for what is behind the proxy.
        "proxy" => Options::default(),
        _ => Options::parse(parts.uri.query().unwrap_or_default(), options_kind(&info.verb))?,
    };
    let mut call = Call { kind, info, user, options, parts, body: Bytes::new(), warnings };
    if let Some(handler) = subresources::find(&call.info.group, &call.info.resource, &call.info.subresource) {
        return handler(server.clone(), call, body).await;
    }
    if matches!(call.info.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection") {
        call.body = read_body(body).await?;
    }
    let answer = server.act(&call).await?;
    respond(&call, answer, server.clock.now())
}

async fn review(server: &Server, info: &RequestInfo, user: &User, object: Object) -> Result<Response, Status> {
    let answer = server.auth.review(user, info, object).await?;
    let mut response = json_response(&answer);
    *response.status_mut() = http::StatusCode::CREATED;
    Ok(response)
}

/// What upstream calls the options of a verb, in its sentences.
fn options_kind(verb: &str) -> &'static str {
    match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        "delete" => "DeleteOptions",
        _ => "ListOptions",
    }
}

/// Paths that are no resource.
async fn plain(server: &Arc<Server>, info: &RequestInfo, parts: &Parts) -> Result<Response, Status> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::no_such_path());
    }
    let segments: Vec<&str> = info.path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        [""] => Ok(discovery::root()),
        ["version" | "version.json"] => Ok(json_response(&discovery::version())),
        ["healthz" | "livez" | "readyz", ..] => {
            health::check(server, &segments, parts.uri.query().unwrap_or_default()).await
        }
        ["metrics"] => Ok(server.metrics.render(&server.cache)),
        ["api"] => discovery::legacy_groups(&parts.headers, &server.address()),
        ["apis"] => discovery::groups(&parts.headers),
        ["apis", group] => discovery::group(group),
        ["api", version] => discovery::resources("", version),
        ["apis", group, version] => discovery::resources(group, version),
        ["openapi", rest @ ..] => openapi::answer(rest, &parts.headers),
        [".well-known", "openid-configuration"] => Ok(json_response(&server.auth.openid_configuration())),
        ["openid", "v1", "jwks"] => {
            let keys = serde_json::to_vec(&server.auth.jwks()).unwrap_or_default();
            Ok(bytes_response(200, keys.into(), "application/jwk-set+json"))
        }
        _ => Err(Status::no_such_path()),
    }
}
