//! The work queues' metrics, under upstream's names, in prometheus' default registry.

use std::sync::LazyLock;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, core::Collector, exponential_buckets, register,
};

fn registered<M: Collector + Clone + 'static>(metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("names and labels below are well-formed");
    // A second registration can only come from a second copy of this crate in one process; its figures are then lost.
    let _ = register(Box::new(metric.clone()));
    metric
}

fn seconds(name: &str, help: &str) -> HistogramVec {
    let buckets = exponential_buckets(1e-8, 10.0, 10).expect("positive start and factor");
    registered(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &["name"]))
}

fn counter(name: &str, help: &str) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), &["name"]))
}

pub(crate) static DEPTH: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    registered(IntGaugeVec::new(Opts::new("workqueue_depth", "Current depth of workqueue"), &["name"]))
});
pub(crate) static ADDS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("workqueue_adds_total", "Total number of adds handled by workqueue"));
pub(crate) static RETRIES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("workqueue_retries_total", "Total number of retries handled by workqueue"));
pub(crate) static QUEUE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    seconds(
        "workqueue_queue_duration_seconds",
        "How long in seconds an item stays in workqueue before being requested.",
    )
});
pub(crate) static WORK_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    seconds("workqueue_work_duration_seconds", "How long in seconds processing an item from workqueue takes.")
});
