//! Makes the cluster become what its objects say.
//!
//! **Knows:** what each controller promises; the API through `client`.
//! **Does not know:** the store, the machines, how anything runs.
//! **Invariants:** a controller reads its caches, decides in a pure function and writes through the one harness in
//! `client::controller`; controllers never talk to each other; nothing polls.
//! **Start reading at:** [`run`], then [`replicaset`] as the model of all others.

mod caches;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod garbage_collector;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod ownership;
mod pod;
mod pod_gc;
mod replicaset;
mod root_ca;
mod service;
mod serviceaccount;

use std::{sync::Arc, time::Duration};

use client::{
    controller::Context,
    events::EventRecorder,
    leader::{LeaderConfig, lead},
};
use clock::{Chance, Clock};
use futures::future::{BoxFuture, join_all};
use ipnet::Ipv4Net;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;

/// The component's name: field manager, event source, lease.
pub const COMPONENT: &str = "kube-controller-manager";
/// How long a Node may be silent before it is called Unknown.
pub const NODE_MONITOR_GRACE_PERIOD: Duration = Duration::from_secs(40);
/// Ended Pods that may stay: upstream's default.
pub const TERMINATED_PODS_MAX: usize = 12_500;

/// The client that a controller writes with, by the name of its ServiceAccount in kube-system.
pub type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// What may be chosen.
#[derive(Clone)]
pub struct Config {
    /// Names as in [`names`]; `*` for all, `-name` for all but.
    pub controllers: Vec<String>,
    /// Where Nodes get their Pod addresses from; `None`: nowhere.
    pub cluster_cidr: Option<Ipv4Net>,
    /// PEM, published in each namespace; `None`: nothing is.
    pub root_ca: Option<String>,
    pub leader_elect: bool,
    pub node_monitor_grace_period: Duration,
    pub terminated_pods_max: usize,
    /// Each controller acts as its own ServiceAccount with this; otherwise all act as the component itself.
    pub client_for: Option<ClientFor>,
    /// The name of this machine, for events and the lease.
    pub host: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controllers: vec!["*".into()],
            cluster_cidr: "10.244.0.0/16".parse().ok(),
            root_ca: None,
            leader_elect: false,
            node_monitor_grace_period: NODE_MONITOR_GRACE_PERIOD,
            terminated_pods_max: TERMINATED_PODS_MAX,
            client_for: None,
            host: String::new(),
        }
    }
}

impl Config {
    /// Whether a controller is wanted.
    fn enables(&self, name: &str) -> bool {
        let says = |choice: &str| self.controllers.iter().any(|given| given == choice);
        !says(&format!("-{name}")) && (says(name) || says("*"))
    }
}

/// Starts one controller.
type Start = fn(&Caches, &Config, Context, CancellationToken) -> Option<BoxFuture<'static, ()>>;

/// One line a controller: its name, its ServiceAccount, how it starts.
const CONTROLLERS: &[(&str, &str, Start)] = &[
    ("deployment-controller", "deployment-controller", |caches, _, context, stop| {
        Some(deployment::run(caches, context, stop))
    }),
    ("replicaset-controller", "replicaset-controller", |caches, _, context, stop| {
        Some(replicaset::run(caches, context, stop))
    }),
    ("endpointslice-controller", "endpointslice-controller", |caches, _, context, stop| {
        Some(endpointslice::run(caches, context, stop))
    }),
    ("endpoints-controller", "endpoint-controller", |caches, _, context, stop| {
        Some(endpoints::run(caches, context, stop))
    }),
    ("namespace-controller", "namespace-controller", |caches, _, context, stop| {
        Some(namespace::run(caches, context, stop))
    }),
    ("garbage-collector-controller", "generic-garbage-collector", |caches, _, context, stop| {
        Some(garbage_collector::run(caches, context, stop))
    }),
    ("node-lifecycle-controller", "node-controller", |caches, config, context, stop| {
        let grace_period = config.node_monitor_grace_period;
        let config = node_lifecycle::Config { grace_period, ..node_lifecycle::Config::default() };
        Some(node_lifecycle::run(caches, context, config, stop))
    }),
    ("node-ipam-controller", "node-controller", |caches, config, context, stop| {
        config.cluster_cidr.map(|cidr| node_ipam::run(caches, context, cidr, stop))
    }),
    ("pod-garbage-collector-controller", "pod-garbage-collector", |caches, config, context, stop| {
        Some(pod_gc::run(caches, context, config.terminated_pods_max, stop))
    }),
    ("disruption-controller", "disruption-controller", |caches, _, context, stop| {
        Some(disruption::run(caches, context, stop))
    }),
    ("serviceaccount-controller", "service-account-controller", |caches, _, context, stop| {
        Some(serviceaccount::run(caches, context, stop))
    }),
    ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", |caches, config, context, stop| {
        config.root_ca.clone().map(|bundle| root_ca::run(caches, context, bundle, stop))
    }),
];

/// The names of all controllers, as `--controllers` takes them.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONTROLLERS.iter().map(|(name, ..)| *name)
}

/// Runs the controllers until `stop`, as the leader where leaders are elected.
///
/// # Errors
/// Leadership was lost: the process should end.
pub async fn run(
    client: Client,
    clock: Clock,
    chance: Chance,
    config: Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if !config.leader_elect {
        work(client, clock, config, stop).await;
        return Ok(());
    }
    let identity = format!("{}_{}", config.host, chance.uuid());
    let lease = LeaderConfig::new(COMPONENT, identity);
    lead(client.clone(), clock.clone(), lease, stop, |stop| async move {
        work(client, clock, config, stop).await;
        Ok(())
    })
    .await
}

async fn work(client: Client, clock: Clock, config: Config, stop: CancellationToken) {
    let caches = Caches::new(client.clone(), stop.clone());
    let mut running = Vec::new();
    for (name, account, start) in CONTROLLERS.iter().filter(|(name, ..)| config.enables(name)) {
        let client = config.client_for.as_ref().map_or_else(|| client.clone(), |client_for| client_for(account));
        let recorder = EventRecorder::new(client.clone(), clock.clone(), account, "");
        let context = Context { client, clock: clock.clone(), recorder, manager: COMPONENT.into() };
        let Some(controller) = start(&caches, &config, context, stop.clone()) else { continue };
        tracing::debug!(controller = name, "started");
        running.push(controller);
    }
    join_all(running).await;
}
