//! Cluster IPs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::{
    Errors, Path, Status,
    kinds::core::service::{HEADLESS, needs_cluster_ip},
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{ADDRESSES, Request, families::family_of};

/// Of a larger range only so many addresses are used (upstream: 64 Ki for IPv6).
const ADDRESSES_MAX: u128 = 1 << 24;

/// The addresses that a Service holds.
pub(super) fn of(spec: &ServiceSpec) -> Vec<String> {
    if !needs_cluster_ip(spec) {
        return Vec::new();
    }
    let ips = spec.cluster_ips.iter().flatten().filter(|ip| !matches!(ip.as_str(), "" | HEADLESS));
    ips.filter_map(|ip| Some(ip.parse::<IpAddr>().ok()?.to_string())).collect()
}

/// Gives the Service an address of each of its families.
pub(super) fn assign(request: &Request<'_>, service: &mut Service) -> Result<(), Status> {
    let Some(spec) = service.spec.as_mut().filter(|spec| needs_cluster_ip(spec)) else { return Ok(()) };
    let mut ips = spec.cluster_ips.clone().unwrap_or_default();
    if ips.first().is_some_and(|ip| ip == HEADLESS) {
        return Ok(());
    }
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        let range = request.attributes.config.service_cluster_ip_ranges.iter();
        let Some(range) = range.clone().find(|range| family_of(&range.network()) == family) else { continue };
        let range = Range::of(range);
        match ips.get(index).map(String::as_str).unwrap_or_default() {
            "" => {
                let address = any(request, &range)?;
                ips.truncate(index);
                ips.push(address);
            }
            asked => check(request, &range, asked, &ips)?,
        }
    }
    spec.cluster_ip = ips.first().cloned();
    spec.cluster_ips = Some(ips).filter(|ips| !ips.is_empty());
    Ok(())
}

fn any(request: &Request<'_>, range: &Range) -> Result<String, Status> {
    let extent = (range.count, range.band());
    let free = request.free(ADDRESSES, extent, |index| range.address(index).to_string(), |_| false);
    free.map(|index| range.address(index).to_string()).ok_or_else(|| {
        let name = request.attributes.name;
        Status::internal(format!("failed to allocate a serviceIP for Service {name:?}: range is full"))
    })
}

fn check(request: &Request<'_>, range: &Range, asked: &str, all: &[String]) -> Result<(), Status> {
    // What is no address at all fails validation.
    let Ok(address) = asked.parse::<IpAddr>() else { return Ok(()) };
    let name = address.to_string();
    if request.held.addresses.contains(&name) {
        return Ok(());
    }
    let why = if !range.contains(address) {
        let range = range.network;
        format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}")
    } else if request.is_taken(ADDRESSES, &name) {
        "provided IP is already allocated".into()
    } else {
        return Ok(());
    };
    let mut errors = Errors::default();
    errors.invalid(&Path::new("spec").child("clusterIPs"), all, format!("failed to allocate IP {asked}: {why}"));
    request.invalid(errors)
}

/// The addresses of a network that Services can have: not its first, and of IPv4 not the broadcast address.
pub(super) struct Range {
    network: IpNet,
    count: usize,
}

impl Range {
    pub fn of(network: &IpNet) -> Self {
        let network = network.trunc();
        let bits = u32::from(network.max_prefix_len() - network.prefix_len());
        let all = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
        let unusable = if network.network().is_ipv4() { 2 } else { 1 };
        let count = all.saturating_sub(unusable).min(ADDRESSES_MAX);
        Self { network, count: usize::try_from(count).unwrap_or(0) }
    }

    /// The address at an index from zero.
    pub fn address(&self, index: usize) -> IpAddr {
        match self.network.network() {
            IpAddr::V4(first) => {
                Ipv4Addr::from(u32::from(first).wrapping_add(u32::try_from(index + 1).unwrap_or(0))).into()
            }
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(index as u128 + 1)).into(),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.network.contains(&address)
            && address != self.network.network()
            && (address.is_ipv6() || address != self.network.broadcast())
    }

    /// So many addresses at the beginning are kept for Services that ask for one.
    pub fn band(&self) -> usize {
        match self.count {
            0..=16 => 0,
            count => (count / 16).clamp(16, 256),
        }
    }
}
