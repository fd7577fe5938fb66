//! `pods/proxy`, `services/proxy` and `nodes/proxy`: HTTP through the API server to what runs in the cluster.

use std::{net::IpAddr, sync::Arc};

use api::{Object, Status, object::ObjectExt, status::GroupResource};
use axum::{body::Body, extract::ConnectInfo, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde_json::Value;

use super::{
    Answered,
    connection::{Endpoint, Outgoing, unverified_tls, wanted_upgrade},
    kubelet,
};
use crate::{Server, call::Call, view::View as _};

const SERVICE_NAME_LABEL: &str = "/metadata/labels/kubernetes.io~1service-name";

/// `[scheme:]name[:port]`
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    is_https: bool,
    name: &'a str,
    /// Empty where none is given.
    port: &'a str,
}

impl<'a> Target<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme @ ("" | "http" | "https"), name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { is_https: scheme == "https", name, port })
    }

    fn endpoint(&self, host: String, port: u16) -> Endpoint {
        Endpoint { host, port, tls: if self.is_https { unverified_tls() } else { None } }
    }

    fn default_port(&self) -> u16 {
        if self.is_https { 443 } else { 80 }
    }
}

pub(super) fn pod(server: Arc<Server>, call: Call, body: Body) -> Answered {
    Box::pin(async move {
        let endpoint = pod_endpoint(&server, &call)?;
        proxy(7, call, body, &endpoint).await
    })
}

pub(super) fn service(server: Arc<Server>, call: Call, body: Body) -> Answered {
    Box::pin(async move {
        let endpoint = service_endpoint(&server, &call)?;
        proxy(7, call, body, &endpoint).await
    })
}

pub(super) fn node(server: Arc<Server>, call: Call, body: Body) -> Answered {
    Box::pin(async move {
        let endpoint = node_endpoint(&server, &call)?;
        proxy(5, call, body, &endpoint).await
    })
}

fn pod_endpoint(server: &Server, call: &Call) -> Result<Endpoint, Status> {
    let invalid = || Status::bad_request(format!("invalid pod request {:?}", call.name()));
    let target = Target::parse(call.name()).ok_or_else(invalid)?;
    let pod = server.cache.get("", "pods", call.namespace(), target.name);
    let pod = pod.ok_or_else(|| Status::not_found(call.resource(), target.name))?;
    let address: IpAddr = pod.text("/status/podIP").parse().map_err(|_| Status::bad_request("address not allowed"))?;
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(Status::bad_request("address not allowed"));
    }
    let port = match target.port {
        "" => first_port(&pod).unwrap_or(target.default_port()),
        port => port.parse().map_err(|_| invalid())?,
    };
    Ok(target.endpoint(address.to_string(), port))
}

/// The first port that a container of the Pod declares.
fn first_port(pod: &Object) -> Option<u16> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let port = containers.iter().find_map(|container| container.pointer("/ports/0/containerPort"))?;
    u16::try_from(port.as_u64()?).ok()
}

fn service_endpoint(server: &Server, call: &Call) -> Result<Endpoint, Status> {
    let invalid = || Status::bad_request(format!("invalid service request {:?}", call.name()));
    let target = Target::parse(call.name()).ok_or_else(invalid)?;
    let service = server.cache.get("", "services", call.namespace(), target.name);
    let service = service.ok_or_else(|| Status::not_found(call.resource(), target.name))?;
    let port = port_name(&service, target.port).ok_or_else(|| {
        Status::unavailable(format!("no service port {} found for service {:?}", target.port, target.name))
    })?;
    let slices = server.cache.list("discovery.k8s.io", "endpointslices", Some(call.namespace()));
    let mut ready = Vec::new();
    for slice in slices.iter().filter(|slice| slice.text(SERVICE_NAME_LABEL) == target.name) {
        ready.extend(ready_endpoints(slice, &port));
    }
    match ready.len() {
        0 => Err(Status::unavailable(format!("no endpoints available for service {:?}", call.name()))),
        count => {
            let (host, port) = ready.swap_remove(server.chance.below(count));
            Ok(target.endpoint(host, port))
        }
    }
}

/// The name of the Service's port, which may be given by number.
fn port_name(service: &Object, given: &str) -> Option<String> {
    let Ok(number) = given.parse::<u64>() else { return Some(given.to_owned()) };
    let ports = service.pointer("/spec/ports")?.as_array()?;
    let port = ports.iter().find(|port| port["port"].as_u64() == Some(number))?;
    Some(port.text("/name").to_owned())
}

/// Addresses that serve the port of this name.
fn ready_endpoints(slice: &Object, port: &str) -> Vec<(String, u16)> {
    let list = |field: &str| slice.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let number = list("ports").iter().find(|known| known.text("/name") == port).and_then(|port| port["port"].as_u64());
    let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { return Vec::new() };
    let ready =
        list("endpoints").iter().filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)));
    let address = |endpoint: &Value| endpoint.pointer("/addresses/0").and_then(Value::as_str).map(str::to_owned);
    ready.filter_map(address).map(|address| (address, number)).collect()
}

fn node_endpoint(server: &Server, call: &Call) -> Result<Endpoint, Status> {
    let invalid = || Status::bad_request(format!("invalid node request {:?}", call.name()));
    let target = Target::parse(call.name()).ok_or_else(invalid)?;
    let nodes = GroupResource { group: "", resource: "nodes" };
    if server.cache.get("", "nodes", "", target.name).is_none() {
        return Err(Status::not_found(nodes, target.name));
    }
    let kubelet = kubelet::endpoint(server, target.name)?;
    match target.port {
        "" => Ok(kubelet),
        port if port == kubelet.port.to_string() => Ok(kubelet),
        port => Ok(target.endpoint(kubelet.host, port.parse().map_err(|_| invalid())?)),
    }
}

/// `depth` is the number of path segments up to and with `proxy`.
async fn proxy(depth: usize, mut call: Call, body: Body, endpoint: &Endpoint) -> Result<Response, Status> {
    let path = call.parts.uri.path().to_owned();
    let end = path.match_indices('/').nth(depth).map_or(path.len(), |(at, _)| at);
    let (prefix, rest) = path.split_at(end);
    let query = call.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if rest.is_empty() && wanted_upgrade(&call.parts.headers).is_none() {
        return redirect(&format!("{prefix}/{query}"));
    }
    let target = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    let headers = forwarded(&call.parts, &path);
    let outgoing = Outgoing { parts: &mut call.parts, body, target: &target, headers };
    let unreached = |error| Status::unavailable(format!("error trying to reach service: {error}"));
    let mut response = endpoint.forward(outgoing).await.map_err(unreached)?;
    rewrite_location(response.headers_mut(), endpoint, prefix);
    Ok(response)
}

/// To the same path with a slash at its end, so that relative links work.
fn redirect(location: &str) -> Result<Response, Status> {
    let response = Response::builder().status(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, location);
    response.body(Body::empty()).map_err(Status::internal)
}

/// What the backend may want to know about the request that this server got.
fn forwarded(parts: &Parts, path: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    add("x-forwarded-uri", path.to_owned());
    add("x-forwarded-proto", "https".to_owned());
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.map(str::to_owned).or_else(|| parts.uri.authority().map(ToString::to_string));
    if let Some(host) = host {
        add("x-forwarded-host", host);
    }
    if let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>() {
        let before = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
        add("x-forwarded-for", before.map_or(peer.ip().to_string(), |before| format!("{before}, {}", peer.ip())));
    }
    headers
}

/// A redirect within the backend stays behind the proxy.
fn rewrite_location(headers: &mut HeaderMap, endpoint: &Endpoint, prefix: &str) {
    let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let own = location.strip_prefix(&endpoint.url("")).unwrap_or(location);
    if own.starts_with('/')
        && !own.starts_with("//")
        && let Ok(location) = HeaderValue::from_str(&format!("{prefix}{own}"))
    {
        headers.insert(header::LOCATION, location);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        let rows = [
            ("web", Some((false, "web", ""))),
            ("web:http", Some((false, "web", "http"))),
            ("https:web:8443", Some((true, "web", "8443"))),
            ("https:web:", Some((true, "web", ""))),
            ("ftp:web:21", None),
            (":80", None),
        ];
        for (id, expected) in rows {
            let expected = expected.map(|(is_https, name, port)| Target { is_https, name, port });
            assert_eq!(Target::parse(id), expected, "{id}");
        }
    }

    #[test]
    fn a_service_port_leads_to_ready_endpoints() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
        assert_eq!(port_name(&service, "81").as_deref(), Some("admin"));
        assert_eq!(port_name(&service, "http").as_deref(), Some("http"));
        assert_eq!(port_name(&service, "82"), None);
        let slice = json!({"ports": [{"name": "admin", "port": 8081}], "endpoints": [
            {"addresses": ["10.1.0.1"], "conditions": {"ready": false}},
            {"addresses": ["10.1.0.2"], "conditions": {"ready": true}}]});
        assert_eq!(ready_endpoints(&slice, "admin"), [("10.1.0.2".to_owned(), 8081)]);
        assert!(ready_endpoints(&slice, "http").is_empty());
    }

    #[test]
    fn redirects_stay_behind_the_proxy() {
        let endpoint = Endpoint { host: "10.1.0.2".into(), port: 80, tls: None };
        let rewritten = |location: &'static str| {
            let mut headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(location))]);
            rewrite_location(&mut headers, &endpoint, "/api/v1/nodes/n/proxy");
            headers[header::LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(rewritten("/login"), "/api/v1/nodes/n/proxy/login");
        assert_eq!(rewritten("http://10.1.0.2:80/login"), "/api/v1/nodes/n/proxy/login");
        assert_eq!(rewritten("https://elsewhere.io/"), "https://elsewhere.io/");
    }
}
