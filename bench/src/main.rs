//! `bench`: what the API server does in a second, over each store, through the in-process client.
//!
//! Prints one line a figure. Run it in a release build: `cargo run --release -p bench -- --store embedded`.

use std::{net::IpAddr, sync::Arc, time::Instant};

use apiserver::{
    Config, Server,
    auth::{ServiceAccountKeys, TokenConfig},
    pki::Pki,
    request::User,
};
use clap::{Parser, ValueEnum};
use clock::{Chance, Clock};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use store::Store;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Backend {
    Memory,
    Embedded,
}

#[derive(Parser)]
struct Flags {
    #[arg(long, value_enum, default_value = "memory")]
    store: Backend,
    /// ConfigMaps of 1 KiB that are created.
    #[arg(long, default_value_t = 5000)]
    objects: usize,
    /// Requests on their way at once.
    #[arg(long, default_value_t = 64)]
    clients: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let directory = tempfile::tempdir()?;
    let (clock, chance, stop) = (Clock::machine(), Chance::from_os(), CancellationToken::new());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pki = Pki::open(directory.path(), clock.clone(), chance.clone())?;
    let store: Arc<dyn Store> = match flags.store {
        Backend::Memory => Arc::new(store::Memory::new()),
        Backend::Embedded => {
            Arc::new(store::Embedded::open(directory.path().join("store"), store::Options::default()).await?)
        }
    };
    let config = Config {
        advertise_address: IpAddr::from([127, 0, 0, 1]),
        secure_port: 6443,
        tls: None,
        service_account_keys: ServiceAccountKeys::from_pems(&[pki.service_account_key()?])?,
        tokens: TokenConfig::in_cluster("127.0.0.1:6443"),
        service_cluster_ip_ranges: vec!["10.96.0.0/16".parse()?],
        service_node_port_range: 30_000..=32_767,
        event_ttl: std::time::Duration::from_secs(3600),
        kubelet_tls: None,
    };
    let began = Instant::now();
    let server = Server::new(config, store, clock, chance);
    server.start(stop.clone()).await?;
    println!("{:?} store: ready after {:.2} s", flags.store, began.elapsed().as_secs_f64());
    let router = server.in_process(User::named("bench", &["system:masters"]));
    let maps: Api<ConfigMap> = Api::namespaced(client::config::in_process(router), "default");
    measure(&maps, &flags).await?;
    stop.cancel();
    Ok(())
}

async fn measure(maps: &Api<ConfigMap>, flags: &Flags) -> kube::Result<()> {
    let map = |number: usize| ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some(format!("bench-{number}")), ..Default::default() },
        data: Some([("text".to_owned(), "x".repeat(1024))].into()),
        ..ConfigMap::default()
    };
    let began = Instant::now();
    let creates = stream::iter(0..flags.objects)
        .map(|number| async move { maps.create(&PostParams::default(), &map(number)).await });
    creates.buffer_unordered(flags.clients).try_for_each(|_| async { Ok(()) }).await?;
    report("creates of 1 KiB", flags.objects, began, flags.clients);
    let began = Instant::now();
    let gets = stream::iter(0..flags.objects).map(|number| async move { maps.get(&format!("bench-{number}")).await });
    gets.buffer_unordered(flags.clients).try_for_each(|_| async { Ok(()) }).await?;
    report("gets", flags.objects, began, flags.clients);
    let began = Instant::now();
    let lists = 10;
    for _ in 0..lists {
        maps.list(&ListParams::default()).await?;
    }
    report(&format!("lists of {}", flags.objects), lists, began, 1);
    Ok(())
}

fn report(what: &str, count: usize, began: Instant, clients: usize) {
    println!("{what}: {:.0}/s with {clients} at once", count as f64 / began.elapsed().as_secs_f64());
}
