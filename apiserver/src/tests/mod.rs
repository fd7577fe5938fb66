//! The server as its clients see it: requests in, answers out, on the memory store.

mod discovery;
mod lists;
mod objects;
mod watches;
mod workloads;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, response::Response};
use clock::{Chance, Clock};
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use crate::{
    Config, Server,
    auth::{ServiceAccountKeys, TokenConfig},
    request::User,
};

/// A running server and its administrator.
pub(crate) struct Harness {
    pub server: Arc<Server>,
    router: Router,
    _stop: DropGuard,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// `409 AlreadyExists: configmaps "a" already exists`
    pub fn failure(&self) -> String {
        let text = |field: &str| self.body[field].as_str().unwrap_or_default();
        format!("{} {}: {}", self.code, text("reason"), text("message"))
    }

    pub fn warnings(&self) -> Vec<String> {
        self.headers.get_all(header::WARNING).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    /// Names of a list's items.
    pub fn names(&self) -> Vec<&str> {
        self.body["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect()
    }
}

pub(crate) fn config() -> Config {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    Config {
        advertise_address: "10.1.2.3".parse().unwrap(),
        secure_port: 6443,
        tls: None,
        service_account_keys: ServiceAccountKeys::from_pems(&[key.serialize_pem()]).unwrap(),
        tokens: TokenConfig::in_cluster("10.1.2.3:6443"),
        service_cluster_ip_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        service_node_port_range: 30_000..=32_767,
        event_ttl: Duration::from_secs(3600),
        kubelet_tls: None,
    }
}

/// What the server's clock reads at first.
const EPOCH: &str = "2026-01-01T00:00:00Z";

impl Harness {
    pub async fn new() -> Self {
        Self::over(Arc::new(store::Memory::new())).await
    }

    /// A server over a store that may have been used before.
    pub async fn over(store: Arc<dyn store::Store>) -> Self {
        Self::with(store, Clock::stopped_at(EPOCH.parse().unwrap())).await
    }

    /// A server whose clock follows tokio's.
    pub async fn in_time() -> Self {
        Self::with(Arc::new(store::Memory::new()), Clock::starting_at(EPOCH.parse().unwrap())).await
    }

    async fn with(store: Arc<dyn store::Store>, clock: Clock) -> Self {
        let server = Server::new(config(), store, clock, Chance::seeded(1));
        let stop = CancellationToken::new();
        server.start(stop.clone()).await.unwrap();
        let router = server.in_process(User::named("admin", &["system:masters"]));
        Self { server, router, _stop: stop.drop_guard() }
    }

    /// The same server to another user.
    pub fn as_user(&self, name: &str) -> Router {
        self.server.in_process(User::named(name, &[]))
    }

    pub async fn respond(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn send_as(&self, method: &str, path: &str, media_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media_type);
        let request = request.header(header::USER_AGENT, "test/1.0").body(body.into()).unwrap();
        read(self.respond(request).await).await
    }

    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send_as(method, path, "application/json", body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send_as("GET", path, "application/json", "").await
    }

    pub async fn get_accepting(&self, path: &str, accept: &str) -> Answer {
        let request = Request::builder().uri(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        read(self.respond(request).await).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send_as("DELETE", path, "application/json", "").await
    }

    /// Creates a ConfigMap in `default`; answers its resourceVersion.
    pub async fn config_map(&self, name: &str) -> u64 {
        let answer = self.send("POST", CONFIG_MAPS, &config_map(name)).await;
        assert_eq!(answer.code, 201, "{}", answer.body);
        version(&answer.body)
    }

    /// A watch's lines, as they come.
    pub async fn watch(&self, path: &str) -> Lines {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.respond(request).await;
        assert_eq!(response.status(), 200);
        Lines { body: response.into_body(), buffer: Vec::new() }
    }
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) fn config_map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": {"app": name}}, "data": {"k": "v"}})
}

pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub(crate) async fn read(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
    Answer { code: parts.status.as_u16(), headers: parts.headers, body }
}

/// The lines of a watch.
pub(crate) struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next event, or `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.buffer.extend_from_slice(&frame.into_data().unwrap());
        }
    }

    /// `ADDED a`, `BOOKMARK`, `ERROR 410`
    pub async fn text(&mut self) -> String {
        let Some(event) = self.next().await else { return "end".into() };
        let object = &event["object"];
        let what = match object["code"].as_u64() {
            Some(code) => code.to_string(),
            None => object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        };
        format!("{} {what}", event["type"].as_str().unwrap()).trim_end().to_owned()
    }
}
