//! The API server as a whole: made of parts, started, served.

use std::{
    net::IpAddr,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::Status;
use axum::{Extension, Router, response::Response};
use clock::{Chance, Clock};
use http::{HeaderMap, StatusCode, Version};
use ipnet::IpNet;
use store::{Revision, Store};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer};

use crate::{
    admission::{self, Step},
    auth::{Auth, ServiceAccountKeys, TokenConfig},
    cache::Cache,
    handler,
    metrics::Metrics,
    request::User,
    respond::{Compressible, status_response},
    tls,
    view::View,
};

/// Requests that read, at one time (upstream: `--max-requests-inflight`).
const READS_IN_FLIGHT_MAX: usize = 400;
/// Requests that write, at one time (upstream: `--max-mutating-requests-inflight`).
const WRITES_IN_FLIGHT_MAX: usize = 400;
/// History is forgotten after about this time (upstream compacts etcd as often).
const COMPACT_EVERY: Duration = Duration::from_secs(5 * 60);

/// What a server needs to know.
#[derive(Clone)]
pub struct Config {
    /// Where clients inside the cluster reach this server; the address behind the `kubernetes` Service.
    pub advertise_address: IpAddr,
    pub secure_port: u16,
    /// `None`: the server answers in process only.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub service_account_keys: ServiceAccountKeys,
    pub tokens: TokenConfig,
    /// Where Services get their addresses: one range, or one of each family.
    pub service_cluster_ip_ranges: Vec<IpNet>,
    pub service_node_port_range: RangeInclusive<u16>,
    /// How long Events are kept.
    pub event_ttl: Duration,
    /// How this server reaches kubelets; `None`: logs, exec and the like answer 503.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
}

/// One API server.
pub struct Server {
    pub config: Config,
    pub store: Arc<dyn Store>,
    pub cache: Arc<Cache>,
    pub auth: Auth,
    pub clock: Clock,
    pub chance: Chance,
    pub(crate) admission: Vec<Box<dyn Step>>,
    pub(crate) metrics: Metrics,
    pub(crate) reads_in_flight: Semaphore,
    pub(crate) writes_in_flight: Semaphore,
    ready: AtomicBool,
    stopping: AtomicBool,
}

impl Server {
    pub fn new(config: Config, store: Arc<dyn Store>, clock: Clock, chance: Chance) -> Arc<Self> {
        let cache = Arc::new(Cache::new(store.clone()));
        let view: Arc<dyn View> = cache.clone();
        let (keys, tokens) = (config.service_account_keys.clone(), config.tokens.clone());
        let auth = Auth::new(view, clock.clone(), chance.clone(), keys, tokens);
        Arc::new(Self {
            config,
            store,
            cache,
            auth,
            clock,
            chance,
            admission: admission::steps(),
            metrics: Metrics::new().expect("names and labels of metrics are constants"),
            reads_in_flight: Semaphore::new(READS_IN_FLIGHT_MAX),
            writes_in_flight: Semaphore::new(WRITES_IN_FLIGHT_MAX),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        })
    }

    /// Starts what runs behind the requests, and returns when the server is ready for them.
    pub async fn start(self: &Arc<Self>, stop: CancellationToken) -> Result<(), Status> {
        tokio::spawn(self.cache.clone().follow(stop.clone()));
        self.cache.consistent().await?;
        self.bootstrap().await?;
        self.ready.store(true, Ordering::Release);
        tokio::spawn(self.clone().background(stop));
        Ok(())
    }

    async fn background(self: Arc<Self>, stop: CancellationToken) {
        let work = async { tokio::join!(self.compact(), self.keep_endpoints()) };
        tokio::select! {
            () = stop.cancelled() => self.stopping.store(true, Ordering::Release),
            _ = work => {}
        }
    }

    /// Forgets history that is older than one interval.
    async fn compact(&self) {
        let mut before: Option<Revision> = None;
        loop {
            let now = self.cache.progress();
            if let Some(revision) = before.filter(|revision| *revision > 0) {
                self.cache.forget_until(revision);
                if let Err(error) = self.store.compact(revision).await {
                    tracing::warn!(%error, "history could not be compacted");
                }
            }
            before = Some(now);
            tokio::time::sleep(COMPACT_EVERY).await;
        }
    }

    /// Whether it has caught up with the store and the first objects are there.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// `10.0.0.1:6443`
    pub fn address(&self) -> String {
        std::net::SocketAddr::new(self.config.advertise_address, self.config.secure_port).to_string()
    }

    /// The service that answers requests from the network.
    pub fn router(self: &Arc<Self>) -> Router {
        let worth_it = |_: StatusCode, _: Version, _: &HeaderMap, extensions: &http::Extensions| {
            extensions.get::<Compressible>().is_some()
        };
        Router::new()
            .fallback(handler::handle)
            .with_state(self.clone())
            .layer(
                CompressionLayer::new()
                    .gzip(true)
                    .quality(tower_http::CompressionLevel::Fastest)
                    .compress_when(worth_it),
            )
            .layer(CatchPanicLayer::custom(panicked))
    }

    /// The same service for a component of this process: every request is made by `user`.
    pub fn in_process(self: &Arc<Self>, user: User) -> Router {
        self.router().layer(Extension(user))
    }

    /// Answers HTTPS requests until `stop`. Must be configured with TLS.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener, stop: CancellationToken) -> Result<(), Status> {
        let tls = self.config.tls.clone().ok_or_else(|| Status::internal("the server has no TLS configuration"))?;
        tls::serve(listener, tls, self.router(), stop).await;
        Ok(())
    }
}

fn panicked(payload: Box<dyn std::any::Any + Send>) -> Response {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a request panicked");
    status_response(&Status::internal("this request caused the server to panic; see its log"))
}
