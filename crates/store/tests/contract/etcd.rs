//! What etcd adds: it stops and starts under load, others use it too, and it wants certificates.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use store::{Error, Etcd, EtcdOptions, Notice, Store};
use tokio::sync::watch;

use crate::backends::{Mirror, change, changes, entry, next, put, put_for, under};

/// A real etcd on ports of its own.
pub struct Server {
    directory: tempfile::TempDir,
    client: String,
    peer: String,
    flags: Vec<String>,
    process: Option<Child>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with("http", tempfile::tempdir().unwrap(), Vec::new())
    }

    fn start_with(scheme: &str, directory: tempfile::TempDir, flags: Vec<String>) -> Self {
        // Held together, so that they differ.
        let ports = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [client, peer] = ports.map(|port| port.local_addr().unwrap());
        let (client, peer) = (format!("{scheme}://{client}"), format!("http://{peer}"));
        let mut server = Self { directory, client, peer, flags, process: None };
        server.resume();
        server
    }

    /// Starts the process, again perhaps, and waits until it serves.
    pub fn resume(&mut self) {
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.directory.path().join("data"));
        command.args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client]);
        command.args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer]);
        command.args(["--initial-cluster", &format!("default={}", self.peer)]);
        // A quick election; it also bounds how short a lease may be.
        command.args(["--heartbeat-interval=10", "--election-timeout=100"]).args(&self.flags);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut process = spawned.expect("etcd must be installed (Debian: etcd-server)");
        let mut said = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        self.process = Some(process);
        assert!(said.any(|line| line.contains("ready to serve client requests")), "etcd did not start");
        // Or it would block on a full pipe.
        std::thread::spawn(move || said.for_each(drop));
    }

    /// As `kill -9` does it.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub async fn connect(&self) -> Etcd {
        Etcd::connect(std::slice::from_ref(&self.client), EtcdOptions::default()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes keys of its own, each until it is acknowledged.
async fn write(store: Arc<Etcd>, writer: usize, acknowledged: Arc<AtomicUsize>, mut up: watch::Receiver<Option<bool>>) {
    for number in 0.. {
        let key = format!("w{writer}/{number:05}");
        loop {
            match store.commit(vec![put(&key, &key)]).await {
                Ok(_) => break,
                Err(Error::Unavailable(_)) => drop(up.wait_for(|up| *up != Some(false)).await),
                Err(error) => panic!("{error}"),
            }
        }
        acknowledged.fetch_add(1, Ordering::SeqCst);
        if up.borrow().is_none() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_may_stop_and_start_under_load() {
    let mut server = Server::start();
    let store = Arc::new(server.connect().await);
    let start = store.revision().await.unwrap();
    let mut notices = store.watch("", start).await.unwrap();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let (up, is_up) = watch::channel(Some(true));
    let writers: Vec<_> =
        (0..8).map(|writer| tokio::spawn(write(store.clone(), writer, acknowledged.clone(), is_up.clone()))).collect();

    let mut mirror = Mirror { revision: start, ..Mirror::default() };
    for outage in 1..=3 {
        while mirror.objects.len() < outage * 150 {
            mirror.see(next(&mut notices).await.unwrap());
        }
        up.send_replace(Some(false));
        server.stop();
        server.resume();
        up.send_replace(Some(true));
    }
    while mirror.objects.len() < 600 {
        mirror.see(next(&mut notices).await.unwrap());
    }
    up.send_replace(None);
    futures::future::join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
    let end = store.commit(vec![put("end", "")]).await.unwrap();
    mirror.follow(&mut notices, end).await;

    let page = store.list(under("")).await.unwrap();
    assert_eq!(mirror.entries(), page.entries);
    assert_eq!(page.entries.len(), acknowledged.load(Ordering::SeqCst) + 1);
    for writer in 0..8 {
        let keys: Vec<_> = page.entries.iter().filter(|e| e.key.starts_with(&format!("w{writer}/"))).collect();
        assert!((0..keys.len()).all(|number| *keys[number].key == *format!("w{writer}/{number:05}")), "a gap");
    }
}

#[tokio::test]
async fn two_stores_over_one_etcd_see_each_other() {
    let server = Server::start();
    let (one, two) = (server.connect().await, server.connect().await);
    let start = two.revision().await.unwrap();
    let mut watch = two.watch("pods/", start).await.unwrap();
    let revision = one.commit(vec![put("pods/a", "1"), put("nodes/n", "1")]).await.unwrap();
    assert_eq!(changes(&mut watch).await, [change("pods/a", Some("1"), None, revision)]);
    assert_eq!(two.get("pods/a").await.unwrap(), (Some(entry("pods/a", "1", revision)), revision));
    assert_eq!(
        two.watch("pods/", revision + 9).await.err(),
        Some(Error::Future { requested: revision + 9, current: revision })
    );

    // Compacted by the other, so this one still serves what it has in memory, but etcd decides about the rest.
    let last = one.commit(vec![put("pods/a", "2")]).await.unwrap();
    one.compact(last).await.unwrap();
    assert_eq!(changes(&mut watch).await[0].revision, last);
    let three = server.connect().await;
    let refused = three.watch("pods/", revision).await.err();
    assert!(matches!(refused, Some(Error::Compacted { requested, .. }) if requested == revision), "{refused:?}");
}

#[tokio::test]
async fn progress_moves_although_only_others_write() {
    let server = Server::start();
    let store = server.connect().await;
    let elsewhere = EtcdOptions { prefix: "/elsewhere/".into(), ..EtcdOptions::default() };
    let other = Etcd::connect(std::slice::from_ref(&server.client), elsewhere).await.unwrap();
    let start = store.revision().await.unwrap();
    let revision = other.commit(vec![put("k", "1")]).await.unwrap();
    let mut watch = store.watch("", start).await.unwrap();
    store.request_progress().await.unwrap();
    match next(&mut watch).await.unwrap() {
        Notice::Progress(reached) => assert!(reached >= revision),
        Notice::Changes(changes) => panic!("{changes:?}"),
    }
    assert_eq!(store.list(under("")).await.unwrap().entries, []);
    assert_eq!(store.get("k").await.unwrap().0, None);
}

#[tokio::test]
async fn keys_of_one_ttl_share_a_lease() {
    let server = Server::start();
    let store = server.connect().await;
    for n in 0..50 {
        store.commit(vec![put_for(&n.to_string(), "", std::time::Duration::from_secs(3_600))]).await.unwrap();
    }
    let mut client = etcd_client::Client::connect([&server.client], None).await.unwrap();
    let leases = client.leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1);

    // A lease that somebody revokes is replaced.
    client.lease_revoke(leases.leases()[0].id()).await.unwrap();
    let revision = store.commit(vec![put_for("again", "", std::time::Duration::from_secs(3_600))]).await.unwrap();
    assert_eq!(store.list(under("")).await.unwrap().entries, [entry("again", "", revision)]);
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let mut server = Server::start();
    let store = server.connect().await;
    server.stop();
    assert!(matches!(store.get("k").await, Err(Error::Unavailable(_))));
    assert!(matches!(store.commit(vec![put("k", "1")]).await, Err(Error::Unavailable(_))));
    let refused = Etcd::connect(std::slice::from_ref(&server.client), EtcdOptions::default()).await.err();
    assert!(matches!(&refused, Some(Error::Unavailable(why)) if why.contains("refused")), "{refused:?}");
    server.resume();
    while let Err(error) = store.get("k").await {
        assert!(matches!(error, Error::Unavailable(_)));
    }
    store.commit(vec![put("k", "1")]).await.unwrap();
}

/// Files of an authority, a server's and a client's certificate.
fn write_certificates(directory: &tempfile::TempDir) -> impl Fn(&str) -> PathBuf + use<> {
    let path = directory.path().to_owned();
    let file = move |name: &str| path.join(name);
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(file("ca.crt"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        std::fs::write(file(&format!("{name}.crt")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    file
}

#[tokio::test]
async fn tls_with_client_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let file = write_certificates(&directory);
    let flag = |name: &str, file_name: &str| format!("--{name}={}", file(file_name).display());
    let flags = vec![
        flag("cert-file", "server.crt"),
        flag("key-file", "server.key"),
        flag("trusted-ca-file", "ca.crt"),
        "--client-cert-auth".into(),
    ];
    let server = Server::start_with("https", directory, flags);
    let endpoints = std::slice::from_ref(&server.client);
    let anonymous = EtcdOptions { ca_file: Some(file("ca.crt")), ..EtcdOptions::default() };
    assert!(matches!(Etcd::connect(endpoints, anonymous.clone()).await.err(), Some(Error::Unavailable(_))));
    let half = EtcdOptions { cert_file: Some(file("client.crt")), ..anonymous.clone() };
    assert!(matches!(Etcd::connect(endpoints, half.clone()).await.err(), Some(Error::Failed(_))));

    let store = Etcd::connect(endpoints, EtcdOptions { key_file: Some(file("client.key")), ..half }).await.unwrap();
    let mut watch = store.watch("", store.revision().await.unwrap()).await.unwrap();
    let revision = store.commit(vec![put("k", "1")]).await.unwrap();
    assert_eq!(changes(&mut watch).await, [change("k", Some("1"), None, revision)]);
}
