//! The whole cluster under seeds and faults. `SKIFF_SEED=n` runs one seed.

use std::{collections::BTreeSet, fmt::Debug, future::Future, pin::Pin, time::Duration};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::{
    cluster::Cluster,
    history::{Write, is_heartbeat},
};

/// Seeds that every change must pass.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;
/// What is lost in faults is found again by retries, whose pauses have grown meanwhile.
const CONVERGED_WITHIN: Duration = Duration::from_secs(180);
/// The last words of what has just converged: events, conditions, retries that find nothing to do.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(240);
/// Upstream's default of --node-monitor-grace-period, and of the tolerations that admission adds.
const NODE_GRACE: Duration = Duration::from_secs(40);
const TOLERATION: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(2);
/// A run without faults would show nothing.
const FAULTS_MIN: usize = 100;
const RECENT_WRITES: usize = 60;

type Scenario = for<'a> fn(&'a mut Cluster) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// Runs a scenario under each seed, in a runtime of its own that takes everything with it.
fn simulate(nodes: u8, scenario: Scenario) {
    let one = std::env::var("SKIFF_SEED").ok().map(|seed| seed.parse().expect("SKIFF_SEED is a number"));
    for seed in one.map_or(SEEDS, |seed| seed..=seed) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().expect("a runtime can be made");
        runtime.block_on(async {
            let mut cluster = Cluster::start(seed, nodes).await.expect("the cluster starts");
            let outcome = scenario(&mut cluster).await.and_then(|()| always(&cluster));
            if let Err(error) = outcome {
                let (now, recent) = (cluster.clock.now(), cluster.history.recent(RECENT_WRITES));
                let faults = cluster.faults.injected();
                panic!(
                    "SKIFF_SEED={seed} failed at {now} after {faults} faults: {error:#}\nthe last writes:\n{recent}"
                );
            }
        });
    }
}

/// What must hold at any time.
fn always(cluster: &Cluster) -> anyhow::Result<()> {
    let violations = cluster.history.violations();
    ensure!(violations.is_empty(), "{}", violations.join("; "));
    ensure!(cluster.ended().is_empty(), "ended by themselves: {:?}", cluster.ended());
    Ok(())
}

/// Looks until the condition holds.
async fn eventually<F>(within: Duration, what: &str, mut condition: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let deadline = tokio::time::Instant::now() + within;
    loop {
        match condition().await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(error.context(format!("not within {within:?}: {what}")));
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Once settled nobody writes any more, except that they live.
async fn quiet(cluster: &Cluster) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLED_WITHIN).await;
    let from = cluster.history.len();
    tokio::time::sleep(QUIET).await;
    let says_nothing = |write: &Write| is_heartbeat(write) || write.key.starts_with("nodes/");
    let writes: Vec<String> =
        cluster.history.since(from).into_iter().filter(|write| !says_nothing(write)).map(|write| write.key).collect();
    ensure!(writes.is_empty(), "not quiet: {writes:?}");
    Ok(())
}

/// The user's side: one Deployment `web` behind one Service.
struct Web<'a>(&'a Cluster);

impl Web<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.0.admin.clone(), "default")
    }

    async fn list<K>(&self) -> anyhow::Result<Vec<K>>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let all = ListParams::default().labels("app=web");
        Ok(self.api::<K>().list(&all).await?.items)
    }

    async fn create(&self, replicas: i32) -> anyhow::Result<()> {
        let labels = json!({"app": "web"});
        let service = json!({
            "metadata": {"name": "web", "labels": labels},
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        });
        self.api::<Service>().create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        let deployment = json!({
            "metadata": {"name": "web", "labels": labels},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "web", "image": "web:1"}]},
                },
            },
        });
        self.api::<Deployment>().create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
        Ok(())
    }

    async fn patch(&self, spec: Value) -> anyhow::Result<()> {
        let patch = Patch::Strategic(json!({"spec": spec}));
        self.api::<Deployment>().patch("web", &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn scale(&self, replicas: i32) -> anyhow::Result<()> {
        self.patch(json!({"replicas": replicas})).await
    }

    async fn roll(&self, image: &str) -> anyhow::Result<()> {
        self.patch(json!({"template": {"spec": {"containers": [{"name": "web", "image": image}]}}})).await
    }

    async fn delete(&self) -> anyhow::Result<()> {
        self.api::<Deployment>().delete("web", &DeleteParams::background()).await?;
        Ok(())
    }

    async fn converged(&self, replicas: i32, image: &str) -> anyhow::Result<()> {
        let what = format!("{replicas} of {image}");
        eventually(CONVERGED_WITHIN, &what, || self.is(replicas, image)).await
    }

    /// Whether the cluster is exactly what the Deployment says.
    async fn is(&self, replicas: i32, image: &str) -> anyhow::Result<()> {
        let deployment = self.api::<Deployment>().get("web").await?;
        let status = deployment.status.clone().unwrap_or_default();
        ensure!(status.observed_generation == deployment.metadata.generation, "the generation was not observed");
        let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
        ensure!(counts == [Some(replicas); 4], "the Deployment counts {counts:?}");
        ensure!(status.unavailable_replicas.unwrap_or(0) == 0, "the Deployment counts unavailable Pods");
        let sets: Vec<ReplicaSet> = self.list().await?;
        let in_use: Vec<&ReplicaSet> = sets.iter().filter(|set| size(set) != 0).collect();
        let [current] = in_use[..] else { bail!("{} ReplicaSets are in use", in_use.len()) };
        ensure!(size(current) == replicas, "the ReplicaSet wants {}", size(current));
        ensure!(sets.iter().all(|set| is_owned_by(set, &deployment)), "a ReplicaSet is an orphan");
        let pods: Vec<Pod> = self.list().await?;
        ensure!(pods.len() == replicas as usize, "there are {} Pods", pods.len());
        for pod in &pods {
            let spec = pod.spec.as_ref().context("a Pod without spec")?;
            ensure!(is_ready(pod), "{} is not ready", pod.name_any());
            ensure!(is_owned_by(pod, current), "{} is an orphan", pod.name_any());
            ensure!(spec.node_name.is_some(), "{} is not bound", pod.name_any());
            ensure!(spec.containers[0].image.as_deref() == Some(image), "{} is of another image", pod.name_any());
        }
        self.endpoints_are(&pods).await
    }

    /// The EndpointSlices hold the addresses of the ready Pods, each once.
    async fn endpoints_are(&self, pods: &[Pod]) -> anyhow::Result<()> {
        let of_service = ListParams::default().labels("kubernetes.io/service-name=web");
        let slices = self.api::<EndpointSlice>().list(&of_service).await?;
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready) == Some(true));
        let listed: Vec<&String> = ready.flat_map(|endpoint| &endpoint.addresses).collect();
        let addresses: BTreeSet<&String> = listed.iter().copied().collect();
        let wanted: BTreeSet<&String> = pods.iter().filter(|pod| is_ready(pod)).filter_map(address).collect();
        ensure!(listed.len() == addresses.len(), "an endpoint is listed twice");
        ensure!(addresses == wanted, "endpoints {addresses:?}, ready Pods {wanted:?}");
        Ok(())
    }

    async fn is_gone(&self) -> anyhow::Result<()> {
        ensure!(self.api::<Deployment>().get_opt("web").await?.is_none(), "the Deployment is there");
        ensure!(self.list::<ReplicaSet>().await?.is_empty(), "a ReplicaSet is there");
        ensure!(self.list::<Pod>().await?.is_empty(), "a Pod is there");
        self.endpoints_are(&[]).await
    }

    async fn on(&self, node: &str) -> anyhow::Result<Vec<Pod>> {
        let mut pods: Vec<Pod> = self.list().await?;
        pods.retain(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node));
        Ok(pods)
    }
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
}

fn is_owned_by<K, O>(object: &K, owner: &O) -> bool
where
    K: Resource<DynamicType = ()>,
    O: Resource<DynamicType = ()>,
{
    object.owner_references().iter().any(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn address(pod: &Pod) -> Option<&String> {
    pod.status.as_ref()?.pod_ip.as_ref()
}

/// What the Node's Ready condition says.
async fn readiness(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    let node = Api::<Node>::all(cluster.admin.clone()).get(node).await?;
    let conditions = node.status.into_iter().flat_map(|status| status.conditions.unwrap_or_default());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    Ok(ready.map(|condition| condition.status).unwrap_or_default())
}

async fn ready(cluster: &Cluster, node: &str, wanted: &str, within: Duration) -> anyhow::Result<()> {
    eventually(within, &format!("{node} is Ready={wanted}"), || async {
        let is = readiness(cluster, node).await?;
        ensure!(is == wanted, "it is {is:?}");
        Ok(())
    })
    .await
}

/// The ServiceAccount that Pods of the namespace need, and all nodes.
async fn up(cluster: &Cluster, nodes: u8) -> anyhow::Result<()> {
    for number in 0..nodes {
        ready(cluster, &format!("node-{number}"), "True", CONVERGED_WITHIN).await?;
    }
    let accounts = Api::<k8s_openapi::api::core::v1::ServiceAccount>::namespaced(cluster.admin.clone(), "default");
    eventually(CONVERGED_WITHIN, "the ServiceAccount", || async {
        accounts.get("default").await?;
        Ok(())
    })
    .await
}

/// Lets the faults do their work for a while.
async fn suffer(cluster: &Cluster, seconds_max: usize) {
    cluster.faults.begin();
    let milliseconds = cluster.chance.below(seconds_max * 1000) as u64;
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[test]
fn a_deployment_lives_through_faults() {
    simulate(5, |cluster| Box::pin(a_life(cluster)));
}

async fn a_life(cluster: &mut Cluster) -> anyhow::Result<()> {
    suffer(cluster, 10).await;
    cluster.faults.heal();
    up(cluster, 5).await?;
    let web = Web(cluster);
    cluster.faults.begin();
    web.create(10).await?;
    suffer(cluster, 40).await;
    cluster.faults.heal();
    web.converged(10, "web:1").await.context("create")?;
    cluster.faults.begin();
    web.scale(20).await?;
    suffer(cluster, 40).await;
    web.roll("web:2").await?;
    suffer(cluster, 60).await;
    cluster.faults.heal();
    web.converged(20, "web:2").await.context("roll")?;
    quiet(cluster).await.context("after the rollout")?;
    cluster.faults.begin();
    web.roll("web:3").await?;
    suffer(cluster, 20).await;
    web.roll("web:2").await?;
    suffer(cluster, 40).await;
    cluster.faults.heal();
    web.converged(20, "web:2").await.context("roll back")?;
    cluster.faults.begin();
    web.delete().await?;
    suffer(cluster, 60).await;
    cluster.faults.heal();
    eventually(CONVERGED_WITHIN, "everything is deleted", || web.is_gone()).await?;
    ensure!(cluster.faults.injected() > FAULTS_MIN, "only {} faults", cluster.faults.injected());
    quiet(cluster).await.context("after the end")
}

#[test]
fn the_pods_of_a_dead_node_are_replaced() {
    simulate(3, |cluster| Box::pin(a_dead_node(cluster)));
}

async fn a_dead_node(cluster: &mut Cluster) -> anyhow::Result<()> {
    up(cluster, 3).await?;
    Web(cluster).create(9).await?;
    Web(cluster).converged(9, "web:1").await?;
    let lost = Web(cluster).on("node-1").await?.len();
    ensure!(lost > 0, "no Pod is on the node that dies");

    cluster.kill("node-1");
    // The last lease may be ten seconds old.
    tokio::time::sleep(NODE_GRACE - Duration::from_secs(15)).await;
    ensure!(readiness(cluster, "node-1").await? == "True", "the node was given up too early");
    ready(cluster, "node-1", "Unknown", Duration::from_secs(40)).await?;
    let web = Web(cluster);
    eventually(Duration::from_secs(20), "its Pods are no endpoints", || async {
        let mut pods: Vec<Pod> = web.list().await?;
        pods.retain(is_ready);
        ensure!(pods.len() == 9 - lost, "{} Pods are ready", pods.len());
        web.endpoints_are(&pods).await
    })
    .await?;

    tokio::time::sleep(TOLERATION - Duration::from_secs(40)).await;
    let pods: Vec<Pod> = web.list().await?;
    ensure!(pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()), "evicted in spite of a toleration");
    cluster.faults.begin();
    tokio::time::sleep(Duration::from_secs(45)).await;
    cluster.faults.heal();
    eventually(CONVERGED_WITHIN, "the Pods are replaced elsewhere", || async {
        let pods: Vec<Pod> = web.list().await?;
        let ready: Vec<Pod> = pods.iter().filter(|pod| is_ready(pod)).cloned().collect();
        ensure!(ready.len() == 9 && pods.len() == 9 + lost, "{} of {} Pods are ready", ready.len(), pods.len());
        web.endpoints_are(&ready).await
    })
    .await?;

    cluster.start_kubelet("node-1");
    ready(cluster, "node-1", "True", Duration::from_secs(30)).await?;
    Web(cluster).converged(9, "web:1").await.context("the node is back")?;
    quiet(cluster).await
}

#[test]
fn a_rollout_survives_restarts_of_the_control_plane() {
    simulate(4, |cluster| Box::pin(a_restart(cluster)));
}

async fn a_restart(cluster: &mut Cluster) -> anyhow::Result<()> {
    up(cluster, 4).await?;
    Web(cluster).create(12).await?;
    Web(cluster).converged(12, "web:1").await?;
    for image in ["web:2", "web:3"] {
        cluster.faults.begin();
        Web(cluster).roll(image).await?;
        suffer(cluster, 8).await;
        cluster.kill("controller-manager");
        suffer(cluster, 4).await;
        cluster.kill("scheduler");
        suffer(cluster, 10).await;
        cluster.start_controller_manager();
        suffer(cluster, 4).await;
        cluster.start_scheduler();
        suffer(cluster, 10).await;
        cluster.faults.heal();
        Web(cluster).converged(12, image).await.context(image)?;
    }
    quiet(cluster).await
}
