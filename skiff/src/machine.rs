//! What there is to know of this machine before a cluster is started on it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The machine's host name, in the form that Node names have.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() { "localhost".into() } else { name }
}

/// The address with which this machine reaches others; loopback where it reaches none.
pub fn address() -> IpAddr {
    // Connecting a datagram socket sends nothing: it only asks the routing table. The address is one that
    // is reserved for documentation.
    let route = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    route().filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether this process may do what a node must: change firewalls and mounts.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Where Docker answers: as told, or the usual place.
pub fn docker_endpoint(told: Option<&str>) -> String {
    told.filter(|text| !text.is_empty()).unwrap_or(kubelet::DOCKER_ENDPOINT_DEFAULT).to_owned()
}

/// The file that keeps the Node's name of a data directory, for `skiff down`.
pub fn node_name_file(data_dir: &std::path::Path) -> std::path::PathBuf {
    data_dir.join("node-name")
}
