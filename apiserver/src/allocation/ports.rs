//! Node ports, and the port by which load balancers ask nodes for endpoints.

use api::{
    Errors, Path, Status,
    kinds::core::service::{needs_health_check_node_port, needs_node_ports},
};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{PORTS, Request};

/// The ports that a Service holds, each once.
pub(super) fn of(spec: &ServiceSpec) -> Vec<u16> {
    let of_ports = spec.ports.iter().flatten().filter(|_| needs_node_ports(spec)).filter_map(|port| port.node_port);
    let health = spec.health_check_node_port.filter(|_| needs_health_check_node_port(spec));
    let mut ports: Vec<u16> = of_ports.chain(health).filter_map(|port| u16::try_from(port).ok()).collect();
    ports.retain(|port| *port != 0);
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Ports that this request takes.
struct Taking<'a> {
    request: &'a Request<'a>,
    taken: Vec<u16>,
}

/// Gives the Service the node ports that its type needs.
pub(super) fn assign(request: &Request<'_>, service: &mut Service) -> Result<(), Status> {
    let Some(spec) = service.spec.as_mut() else { return Ok(()) };
    let mut taking = Taking { request, taken: Vec::new() };
    if needs_node_ports(spec) {
        let allocates =
            spec.type_.as_deref() == Some("NodePort") || spec.allocate_load_balancer_node_ports != Some(false);
        let mut ports = spec.ports.clone().unwrap_or_default();
        taking.assign_to(&mut ports, allocates)?;
        spec.ports = Some(ports);
    }
    if needs_health_check_node_port(spec) {
        let port = match node_port(spec.health_check_node_port) {
            Some(port) => taking.take(port).map(|()| port).map_err(|why| {
                Status::internal(format!("failed to allocate requested HealthCheck NodePort {port}: {why}"))
            })?,
            None => taking.any("failed to allocate a HealthCheck NodePort 0")?,
        };
        spec.health_check_node_port = Some(port.into());
    }
    Ok(())
}

fn node_port(port: Option<i32>) -> Option<u16> {
    port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

impl Taking<'_> {
    /// Asked-for ports first, so that none of them is given to a port that does not care.
    fn assign_to(&mut self, ports: &mut [ServicePort], allocates: bool) -> Result<(), Status> {
        for (index, port) in ports.iter().enumerate() {
            let Some(asked) = node_port(port.node_port) else { continue };
            if let Err(why) = self.take(asked) {
                let mut errors = Errors::default();
                errors.invalid(&Path::new("spec").child("ports").index(index).child("nodePort"), asked, why);
                return self.request.invalid(errors);
            }
        }
        for index in 0..ports.len() {
            if ports[index].node_port.unwrap_or(0) != 0 || !allocates {
                continue;
            }
            let port = match shared(ports, index) {
                Some(port) => port,
                None => self.any("failed to allocate a nodePort")?,
            };
            ports[index].node_port = Some(port.into());
        }
        Ok(())
    }

    fn take(&mut self, port: u16) -> Result<(), String> {
        if self.request.held.ports.contains(&port) || self.taken.contains(&port) {
            return Ok(());
        }
        let range = &self.request.attributes.config.service_node_port_range;
        if !range.contains(&port) {
            let (first, last) = (range.start(), range.end());
            return Err(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"));
        }
        if self.request.is_taken(PORTS, &port.to_string()) {
            return Err("provided port is already allocated".into());
        }
        self.taken.push(port);
        Ok(())
    }

    fn any(&mut self, what: &str) -> Result<u16, Status> {
        let range = &self.request.attributes.config.service_node_port_range;
        let (first, count) = (*range.start(), range.clone().count());
        let name = |index: usize| first.saturating_add(u16::try_from(index).unwrap_or(u16::MAX));
        let own = |port: u16| self.taken.contains(&port) || self.request.held.ports.contains(&port);
        let extent = (count, band(count));
        let free = self.request.free(PORTS, extent, |index| name(index).to_string(), |index| own(name(index)));
        let port = free.map(name).ok_or_else(|| Status::internal(format!("{what}: range is full")))?;
        self.taken.push(port);
        Ok(port)
    }
}

/// TCP and UDP of one port of the Service share a port of the nodes.
fn shared(ports: &[ServicePort], index: usize) -> Option<u16> {
    let wanted = &ports[index];
    let others = ports.iter().filter(|other| other.port == wanted.port && other.protocol != wanted.protocol);
    others.filter_map(|other| node_port(other.node_port)).next()
}

/// So many ports at the beginning are kept for Services that ask for one.
fn band(count: usize) -> usize {
    match count {
        0..=16 => 0,
        count => (count / 32).clamp(16, 128),
    }
}
