//! The node's own HTTPS server: logs, exec, attach, port-forward, metrics; for the API server to proxy to.
//!
//! Every request but `/healthz` is authenticated (client certificate or token) and authorized by the API
//! server (`SubjectAccessReview` on `nodes/proxy`, `nodes/metrics`, ...).

mod auth;
mod logs;
mod port_forward;
mod remote_command;
mod spdy;
mod streams;
mod tls;
mod tunnel;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::runtime::{ContainerRuntime, ContainerStatus, RuntimeError};

/// The Pods of this node, as the kubelet knows them.
pub trait Pods: Send + Sync + 'static {
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;
    fn pods(&self) -> Vec<Arc<Pod>>;
}

/// Where and as whom to serve.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub address: SocketAddr,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    /// Client certificates must be signed by this authority.
    pub client_ca_file: PathBuf,
}

/// What handlers share.
#[derive(Clone)]
pub struct Server {
    pods: Arc<dyn Pods>,
    runtime: Arc<dyn ContainerRuntime>,
    auth: Arc<auth::Auth>,
}

impl Server {
    pub fn new(pods: Arc<dyn Pods>, runtime: Arc<dyn ContainerRuntime>, client: kube::Client, node_name: &str) -> Self {
        Self { pods, runtime, auth: Arc::new(auth::Auth::new(client, node_name)) }
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// The address cannot be bound, or the certificates cannot be used.
    pub async fn serve(self, config: ServerConfig, stop: CancellationToken) -> anyhow::Result<()> {
        tls::serve(self.router(), &config, stop).await
    }

    fn router(self) -> Router {
        let protected = Router::new()
            .route("/pods", get(list_pods))
            .route("/metrics", get(metrics))
            .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
            .route("/exec/{namespace}/{pod}/{container}", any(remote_command::exec))
            .route("/exec/{namespace}/{pod}/{uid}/{container}", any(remote_command::exec))
            .route("/attach/{namespace}/{pod}/{container}", any(remote_command::attach))
            .route("/attach/{namespace}/{pod}/{uid}/{container}", any(remote_command::attach))
            .route("/portForward/{namespace}/{pod}", any(forward_ports))
            .route("/portForward/{namespace}/{pod}/{uid}", any(forward_ports))
            .layer(middleware::from_fn_with_state(self.auth.clone(), auth::require));
        Router::new().route("/healthz", get(|| async { "ok" })).merge(protected).with_state(self)
    }

    /// The newest incarnation of a container, which must be running for exec and attach.
    async fn running_container(&self, pod: &Pod, name: &str) -> Result<ContainerStatus, Failure> {
        let view = self.runtime.pod(crate::pod::uid(pod)).await?;
        let container = view.running().find(|container| container.name == name).cloned();
        container.ok_or_else(|| Failure::not_found(format!("container not found (\"{name}\")")))
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Failure> {
        self.pods.pod(namespace, name).ok_or_else(|| Failure::not_found(format!("pod \"{name}\" does not exist")))
    }
}

/// An answer that is not what was asked for: status code and a sentence, as upstream's kubelet gives.
struct Failure(StatusCode, String);

impl Failure {
    fn bad_request(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let code = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self(code, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// Path parameters of everything about one Pod.
#[derive(serde::Deserialize)]
struct Target {
    namespace: String,
    pod: String,
    #[serde(default)]
    container: String,
}

async fn list_pods(State(server): State<Server>) -> axum::Json<serde_json::Value> {
    let items: Vec<_> = server.pods.pods().iter().map(|pod| serde_json::json!(**pod)).collect();
    axum::Json(serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

async fn metrics() -> String {
    let mut text = String::new();
    let _ = prometheus::TextEncoder::new().encode_utf8(&prometheus::gather(), &mut text);
    text
}

async fn forward_ports(
    State(server): State<Server>,
    Path(target): Path<Target>,
    request: Request,
) -> Result<Response, Failure> {
    let pod = server.pod(&target.namespace, &target.pod)?;
    let view = server.runtime.pod(crate::pod::uid(&pod)).await?;
    let sandbox = view.ready_sandbox().ok_or_else(|| {
        Failure::bad_request(format!("unable to forward port because pod is not running: {}", target.pod))
    })?;
    let target = match (sandbox.pid, sandbox.ips.first()) {
        (Some(pid), _) => port_forward::Target::Namespace(format!("/proc/{pid}/ns/net").into()),
        (None, Some(ip)) => port_forward::Target::Address(*ip),
        (None, None) => port_forward::Target::Address([127, 0, 0, 1].into()),
    };
    remote_command::upgrade(
        request,
        &[port_forward::TUNNEL_PROTOCOL],
        &[port_forward::PROTOCOL],
        move |connection| async move {
            let streams = match connection {
                remote_command::Connection::WebSocket(socket) => spdy::serve(tunnel::byte_stream(*socket)),
                remote_command::Connection::Spdy { streams, .. } => streams,
            };
            port_forward::serve(streams, target).await;
        },
    )
    .await
}
