//! The same plan without nftables: listeners of our own that copy bytes to a backend.
//!
//! Serves NodePorts on every address and external IPs that are this machine's. Cluster IPs are served where
//! the machine owns the address (for example `ip addr add 10.96.0.1/32 dev lo`).
//! Unlike the nftables path, backends see the proxy's address as their client.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use clock::Chance;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::compile::{Backend, Protocol, ServicePort};

/// A UDP client without traffic for this long is forgotten.
const UDP_IDLE: Duration = Duration::from_secs(60);
/// UDP clients of one listener; further ones are dropped until old ones go.
const UDP_CLIENTS_MAX: usize = 4096;
/// Backends that are tried before a connection is given up.
const DIAL_ATTEMPTS_MAX: usize = 4;
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Where to listen.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place {
    protocol: Protocol,
    address: SocketAddr,
}

/// Chooses a backend for each client; shared by a listener and whoever updates it.
struct Balancer {
    backends: Mutex<Vec<Backend>>,
    affinity_seconds: Option<u32>,
    /// Client address -> the backend that answered last, and when that expires.
    clients: Mutex<BTreeMap<IpAddr, (Backend, tokio::time::Instant)>>,
    chance: Chance,
}

impl Balancer {
    /// `attempt` zero honours affinity; later attempts look elsewhere.
    fn pick(&self, client: IpAddr, attempt: usize) -> Option<Backend> {
        let backends = self.backends.lock().clone();
        if backends.is_empty() {
            return None;
        }
        let now = tokio::time::Instant::now();
        if let (Some(_), 0) = (self.affinity_seconds, attempt) {
            let mut clients = self.clients.lock();
            clients.retain(|_, (_, expires)| *expires > now);
            if let Some((backend, _)) = clients.get(&client)
                && backends.contains(backend)
            {
                return Some(backend.clone());
            }
        }
        let chosen = backends[self.chance.below(backends.len())].clone();
        if let Some(seconds) = self.affinity_seconds {
            self.clients.lock().insert(client, (chosen.clone(), now + Duration::from_secs(seconds.into())));
        }
        Some(chosen)
    }
}

struct Listener {
    balancer: Arc<Balancer>,
    stop: CancellationToken,
}

/// All listeners.
pub struct Userspace {
    listeners: BTreeMap<Place, Listener>,
    chance: Chance,
}

impl Userspace {
    pub fn new(chance: Chance) -> Self {
        Self { listeners: BTreeMap::new(), chance }
    }

    /// Opens, updates and closes listeners so that they are those of `ports`.
    pub async fn apply(&mut self, ports: impl Iterator<Item = &ServicePort>) {
        let mut wanted: BTreeMap<Place, (&ServicePort, &[Backend])> = BTreeMap::new();
        for port in ports {
            let mut listen = |ip: Ipv4Addr, number: u16, backends| {
                wanted.insert(Place { protocol: port.protocol, address: (ip, number).into() }, (port, backends));
            };
            if let Some(ip) = port.cluster_ip {
                listen(ip, port.port, port.internal_backends.as_slice());
            }
            port.external_ips.iter().for_each(|ip| listen(*ip, port.port, port.external_backends.as_slice()));
            if let Some(node_port) = port.node_port {
                listen(Ipv4Addr::UNSPECIFIED, node_port, port.external_backends.as_slice());
            }
        }
        // Nobody answers: closing the listener makes the kernel refuse.
        wanted.retain(|_, (_, backends)| !backends.is_empty());
        self.listeners.retain(|place, listener| {
            let is_kept =
                wanted.get(place).is_some_and(|(port, _)| port.affinity_seconds == listener.balancer.affinity_seconds);
            if !is_kept {
                listener.stop.cancel();
            }
            is_kept
        });
        for (place, (port, backends)) in wanted {
            match self.listeners.get(&place) {
                Some(listener) => *listener.balancer.backends.lock() = backends.to_vec(),
                None => self.open(place, port, backends).await,
            }
        }
    }

    async fn open(&mut self, place: Place, port: &ServicePort, backends: &[Backend]) {
        let balancer = Arc::new(Balancer {
            backends: Mutex::new(backends.to_vec()),
            affinity_seconds: port.affinity_seconds,
            clients: Mutex::default(),
            chance: self.chance.clone(),
        });
        let stop = CancellationToken::new();
        let opened = match place.protocol {
            Protocol::Tcp => TcpListener::bind(place.address).await.map(|listener| {
                tokio::spawn(accept(listener, balancer.clone(), stop.clone()));
            }),
            Protocol::Udp => UdpSocket::bind(place.address).await.map(|socket| {
                tokio::spawn(relay_datagrams(Arc::new(socket), balancer.clone(), stop.clone()));
            }),
        };
        match opened {
            Ok(()) => drop(self.listeners.insert(place, Listener { balancer, stop })),
            // Cluster IPs are usually nobody's address on this machine.
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                debug!(?place, "not an address of this machine")
            }
            Err(error) => warn!(%error, ?place, service = port.name, "cannot listen"),
        }
    }
}

async fn accept(listener: TcpListener, balancer: Arc<Balancer>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, from)) => drop(tokio::spawn(forward(client, from.ip(), balancer.clone()))),
            Err(error) => warn!(%error, "accept failed"),
        }
    }
}

async fn forward(mut client: TcpStream, from: IpAddr, balancer: Arc<Balancer>) {
    for attempt in 0..DIAL_ATTEMPTS_MAX {
        let Some(backend) = balancer.pick(from, attempt) else { return };
        let dial = TcpStream::connect((backend.ip, backend.port));
        if let Ok(Ok(mut server)) = tokio::time::timeout(DIAL_TIMEOUT, dial).await {
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

async fn relay_datagrams(socket: Arc<UdpSocket>, balancer: Arc<Balancer>, stop: CancellationToken) {
    let clients: Arc<Mutex<BTreeMap<SocketAddr, Arc<UdpSocket>>>> = Arc::default();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((length, from)) = received else { continue };
        let known = clients.lock().get(&from).cloned();
        let upstream = match known {
            Some(upstream) => upstream,
            None if clients.lock().len() >= UDP_CLIENTS_MAX => continue,
            None => {
                let Some(backend) = balancer.pick(from.ip(), 0) else { continue };
                let Ok(upstream) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { continue };
                if upstream.connect((backend.ip, backend.port)).await.is_err() {
                    continue;
                }
                let upstream = Arc::new(upstream);
                clients.lock().insert(from, upstream.clone());
                tokio::spawn(return_datagrams(socket.clone(), upstream.clone(), from, clients.clone(), stop.clone()));
                upstream
            }
        };
        let _ = upstream.send(&buffer[..length]).await;
    }
}

async fn return_datagrams(
    socket: Arc<UdpSocket>,
    upstream: Arc<UdpSocket>,
    client: SocketAddr,
    clients: Arc<Mutex<BTreeMap<SocketAddr, Arc<UdpSocket>>>>,
    stop: CancellationToken,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => break,
            received = tokio::time::timeout(UDP_IDLE, upstream.recv(&mut buffer)) => received,
        };
        match received {
            Ok(Ok(length)) => drop(socket.send_to(&buffer[..length], client).await),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    clients.lock().remove(&client);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn port(protocol: Protocol, node_port: u16, backends: Vec<Backend>) -> ServicePort {
        ServicePort {
            name: "d/s/tcp/p".into(),
            protocol,
            port: 80,
            cluster_ip: None,
            external_ips: BTreeSet::new(),
            node_port: Some(node_port),
            affinity_seconds: None,
            internal_backends: Vec::new(),
            has_backends_anywhere: !backends.is_empty(),
            external_backends: backends,
            is_external_local: false,
        }
    }

    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_node_port_reaches_its_backend_and_closes_without_one() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend { ip: Ipv4Addr::LOCALHOST, port: server.local_addr().unwrap().port(), is_local: true };
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
        });
        let mut userspace = Userspace::new(Chance::seeded(1));
        let node_port = free_port().await;
        userspace.apply([port(Protocol::Tcp, node_port, vec![backend])].iter()).await;
        let mut text = String::new();
        TcpStream::connect(("127.0.0.1", node_port)).await.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        userspace.apply([port(Protocol::Tcp, node_port, vec![])].iter()).await;
        assert!(userspace.listeners.is_empty());
    }

    #[tokio::test]
    async fn datagrams_come_back_to_the_client_that_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend { ip: Ipv4Addr::LOCALHOST, port: server.local_addr().unwrap().port(), is_local: true };
        tokio::spawn(async move {
            let mut buffer = [0; 16];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(&buffer[..length], from).await.unwrap();
        });
        let mut userspace = Userspace::new(Chance::seeded(1));
        let node_port = free_port().await;
        userspace.apply([port(Protocol::Udp, node_port, vec![backend])].iter()).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"ping", ("127.0.0.1", node_port)).await.unwrap();
        let mut buffer = [0; 16];
        let (length, _) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"ping");
    }
}
