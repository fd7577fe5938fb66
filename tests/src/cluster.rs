//! All programs on one store in memory; any of them can be killed and started again.

use std::{collections::BTreeMap, future::Future, net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::anyhow;
use apiserver::{
    Server,
    auth::{ServiceAccountKeys, TokenConfig},
    request::User,
};
use clock::{Chance, Clock};
use kube::Client;
use kubelet::runtime::fake::Fake;
use store::{Memory, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{faults::Faults, history::History};

const EPOCH: &str = "2026-01-01T00:00:00Z";
const ADDRESS: &str = "10.1.2.3";
/// Events are kept for longer than any run.
const EVENT_TTL: Duration = Duration::from_secs(24 * 3600);

/// A running program.
struct Part {
    dead: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// A running cluster. It ends with its runtime.
pub struct Cluster {
    /// The administrator, whom no fault touches.
    pub admin: Client,
    pub faults: Faults,
    pub history: History,
    /// For what the scenario itself leaves to chance.
    pub chance: Chance,
    pub clock: Clock,
    server: Arc<Server>,
    parts: BTreeMap<String, Part>,
    /// The machines outlive their kubelets.
    machines: BTreeMap<String, Fake>,
}

impl Cluster {
    /// An API server, both programs of the control plane and so many nodes, `node-0` on.
    ///
    /// # Errors
    /// The API server does not start.
    pub async fn start(seed: u64, nodes: u8) -> anyhow::Result<Self> {
        let clock = Clock::starting_at(EPOCH.parse()?);
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let history = History::follow(store.clone()).await?;
        let server = Server::new(server_config()?, store, clock.clone(), Chance::seeded(seed));
        server.start(CancellationToken::new()).await.map_err(|status| anyhow!("{status}"))?;
        let admin = server.in_process(User::named("kubernetes-admin", &["system:masters"]));
        let mut cluster = Self {
            admin: client::config::in_process(admin),
            faults: Faults::seeded(seed.wrapping_add(1)),
            history,
            chance: Chance::seeded(seed.wrapping_add(2)),
            clock,
            server,
            parts: BTreeMap::new(),
            machines: BTreeMap::new(),
        };
        cluster.start_controller_manager();
        cluster.start_scheduler();
        for number in 0..nodes {
            let machine = Fake::new(cluster.clock.clone(), Ipv4Addr::new(10, 244, number, 0));
            cluster.machines.insert(format!("node-{number}"), machine);
            cluster.start_kubelet(&format!("node-{number}"));
        }
        Ok(cluster)
    }

    pub fn start_scheduler(&mut self) {
        let (clock, chance) = (self.clock.clone(), self.chance.clone());
        self.spawn("scheduler", User::named("system:kube-scheduler", &[]), |client, stop| {
            scheduler::run(client, clock, chance, scheduler::Config::default(), stop)
        });
    }

    pub fn start_controller_manager(&mut self) {
        let (clock, chance) = (self.clock.clone(), self.chance.clone());
        self.spawn("controller-manager", User::named("system:kube-controller-manager", &[]), |client, stop| {
            controller_manager::run(client, clock, chance, controller_manager::Config::default(), stop)
        });
    }

    /// Starts the kubelet of a machine, whose containers may be running.
    pub fn start_kubelet(&mut self, node: &str) {
        let (clock, chance) = (self.clock.clone(), self.chance.clone());
        let machine = self.machines[node].clone();
        let mut config = kubelet::Config::for_node(node);
        config.hollow = true;
        config.node_ips = vec![Ipv4Addr::LOCALHOST.into()];
        self.spawn(node, User::named(&format!("system:node:{node}"), &["system:nodes"]), |client, stop| {
            kubelet::run_with(Arc::new(machine), client, clock, chance, config, stop)
        });
    }

    /// Ends a program as `kill -9` does: whatever it still sends does not arrive.
    pub fn kill(&mut self, name: &str) {
        if let Some(part) = self.parts.remove(name) {
            part.dead.cancel();
            part.task.abort();
        }
    }

    /// Programs that ended by themselves.
    pub fn ended(&self) -> Vec<&str> {
        self.parts.iter().filter(|(_, part)| part.task.is_finished()).map(|(name, _)| name.as_str()).collect()
    }

    fn spawn<F>(&mut self, name: &str, user: User, run: impl FnOnce(Client, CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let dead = CancellationToken::new();
        let client = self.faults.client(self.server.in_process(user), dead.clone());
        let task = tokio::spawn(run(client, dead.clone()));
        self.parts.insert(name.to_owned(), Part { dead, task });
    }
}

fn server_config() -> anyhow::Result<apiserver::Config> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok(apiserver::Config {
        advertise_address: ADDRESS.parse()?,
        secure_port: 6443,
        tls: None,
        service_account_keys: ServiceAccountKeys::from_pems(&[key.serialize_pem()])?,
        tokens: TokenConfig::in_cluster(&format!("{ADDRESS}:6443")),
        service_cluster_ip_ranges: vec!["10.96.0.0/16".parse()?],
        service_node_port_range: 30_000..=32_767,
        event_ttl: EVENT_TTL,
        kubelet_tls: None,
    })
}
