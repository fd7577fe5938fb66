//! `/metrics`, under upstream's names.

use axum::response::Response;
use jiff::SignedDuration;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::{cache::Cache, request::RequestInfo, respond::bytes_response};

const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// The server's counters.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    long_running: IntGaugeVec,
    in_flight: IntGaugeVec,
    objects: IntGaugeVec,
    revision: IntGauge,
}

/// Counts a request as running until it is dropped.
pub struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let labels = ["verb", "group", "version", "resource", "subresource", "scope", "component"];
        let with_code = [&labels[..], &["code"]].concat();
        let requests = Opts::new("apiserver_request_total", "Counter of apiserver requests.");
        let durations =
            HistogramOpts::new("apiserver_request_duration_seconds", "Response latency distribution in seconds.");
        let long_running =
            Opts::new("apiserver_longrunning_requests", "Gauge of all active long-running apiserver requests.");
        let in_flight = Opts::new("apiserver_current_inflight_requests", "Requests in flight, per request kind.");
        let objects = Opts::new("apiserver_storage_objects", "Number of stored objects, per resource.");
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(requests, &with_code)?,
            durations: HistogramVec::new(durations.buckets(BUCKETS.to_vec()), &labels)?,
            long_running: IntGaugeVec::new(long_running, &labels)?,
            in_flight: IntGaugeVec::new(in_flight, &["request_kind"])?,
            objects: IntGaugeVec::new(objects, &["resource"])?,
            revision: IntGauge::new("apiserver_storage_revision", "Revision up to which the watch cache has come.")?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.durations.clone()))?;
        metrics.registry.register(Box::new(metrics.long_running.clone()))?;
        metrics.registry.register(Box::new(metrics.in_flight.clone()))?;
        metrics.registry.register(Box::new(metrics.objects.clone()))?;
        metrics.registry.register(Box::new(metrics.revision.clone()))?;
        Ok(metrics)
    }

    pub fn begin(&self, info: &RequestInfo, is_long_running: bool) -> Running {
        let gauge = match is_long_running {
            true => self.long_running.with_label_values(&labels(info)),
            false => {
                let reads = matches!(info.verb.as_str(), "get" | "list" | "head");
                self.in_flight.with_label_values(&[if reads { "readOnly" } else { "mutating" }])
            }
        };
        gauge.inc();
        Running(gauge)
    }

    pub fn end(&self, info: &RequestInfo, code: u16, duration: SignedDuration) {
        let code = code.to_string();
        let with_code = [&labels(info)[..], &[code.as_str()]].concat();
        self.requests.with_label_values(&with_code).inc();
        self.durations.with_label_values(&labels(info)).observe(duration.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub fn render(&self, cache: &Cache) -> Response {
        self.objects.reset();
        for (resource, count) in cache.counts() {
            self.objects.with_label_values(&[resource.as_str()]).set(count as i64);
        }
        self.revision.set(cache.progress() as i64);
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        bytes_response(200, text.into(), "text/plain; version=0.0.4; charset=utf-8")
    }
}

/// Only what the registry of kinds bounds: an unknown resource counts as none.
fn labels(info: &RequestInfo) -> [&str; 7] {
    let known = info.is_resource && crate::kinds::find(&info.group, &info.version, &info.resource).is_some();
    let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    };
    let verb = match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    };
    match known {
        true => [verb, &info.group, &info.version, &info.resource, known_subresource(info), scope, "apiserver"],
        false => [verb, "", "", "", "", scope, "apiserver"],
    }
}

fn known_subresource(info: &RequestInfo) -> &str {
    let kind = crate::kinds::find(&info.group, &info.version, &info.resource);
    match kind.is_some_and(|kind| kind.descriptor().has_subresource(&info.subresource)) {
        true => &info.subresource,
        false => "",
    }
}
