//! Where a Pod's kubelet is reached, and which of its containers is meant.

use api::{Object, Status, object::ObjectExt, status::GroupResource};
use serde_json::Value;

use super::connection::Endpoint;
use crate::{Server, call::Call, respond::parse, view::View as _};

/// Where kubelets listen unless their Node says otherwise.
const KUBELET_PORT: u16 = 10250;
/// The kinds of a Node's addresses, best first.
const ADDRESS_TYPES: &[&str] = &["InternalIP", "ExternalIP", "Hostname"];

/// The Pod of the request.
pub(super) fn pod(server: &Server, call: &Call) -> Result<Object, Status> {
    server.entry(call).map(|entry| parse(&entry.bytes)).ok_or_else(|| call.not_found())
}

/// The kubelet of a node, by the name of the node.
pub(super) fn endpoint(server: &Server, node: &str) -> Result<Endpoint, Status> {
    let nodes = GroupResource { group: "", resource: "nodes" };
    let object = server.cache.get("", "nodes", "", node).ok_or_else(|| Status::not_found(nodes, node))?;
    let (host, port) = address(&object)?;
    let no_certificate = || Status::unavailable("this server has no certificate to show to kubelets");
    let tls = server.config.kubelet_tls.clone().ok_or_else(no_certificate)?;
    Ok(Endpoint { host, port, tls: Some(tls) })
}

fn address(node: &Object) -> Result<(String, u16), Status> {
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let of_type = |wanted: &&str| addresses.iter().find(|address| address["type"] == **wanted);
    let found = ADDRESS_TYPES.iter().find_map(of_type).map(|address| address.text("/address").to_owned());
    let host = found.ok_or_else(|| {
        let known: Vec<_> = addresses.iter().map(|address| address.text("/address")).collect();
        Status::internal(format!("no preferred addresses found; known addresses: {known:?}"))
    })?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    Ok((host, port.unwrap_or(KUBELET_PORT)))
}

/// The container that a request means: the one it names, or the only one.
pub(super) fn container<'a>(pod: &'a Object, named: &'a str) -> Result<&'a str, Status> {
    let list = |field: &str| pod.pointer(field).and_then(Value::as_array).into_iter().flatten();
    let all = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
    let names: Vec<&str> = all.into_iter().flat_map(list).map(|container| container.text("/name")).collect();
    let name = pod.name();
    if !named.is_empty() {
        return match names.contains(&named) {
            true => Ok(named),
            false => Err(Status::bad_request(format!("container {named} is not valid for pod {name}"))),
        };
    }
    let main: Vec<_> = list("/spec/containers").collect();
    match main.as_slice() {
        [only] => Ok(only.text("/name")),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => {
            let choice = names.join(" ");
            let why = format!("a container name must be specified for pod {name}, choose one of: [{choice}]");
            Err(Status::bad_request(why))
        }
    }
}

/// A query of these pairs.
pub(super) fn query(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    pairs.join("&")
}

/// Percent-encoded, all but unreserved characters.
pub(super) fn escaped(text: &str) -> String {
    let piece = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kubelet_is_at_the_best_address_of_its_node() {
        let addresses = json!([{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.7"}]);
        let node = json!({"status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}}}});
        assert_eq!(address(&node).unwrap(), ("10.0.0.7".into(), 10260));
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n1"}]}});
        assert_eq!(address(&node).unwrap(), ("n1".into(), KUBELET_PORT));
        assert_eq!(address(&json!({})).unwrap_err().code, 500);
    }

    #[test]
    fn one_container_needs_no_name() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let two = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
        assert_eq!(container(&two, "i").unwrap(), "i");
        let said = |named| container(&two, named).unwrap_err().message;
        assert_eq!(said(""), "a container name must be specified for pod p, choose one of: [i a b]");
        assert_eq!(said("x"), "container x is not valid for pod p");
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(query(&[("command", "a b&c".into()), ("tty", "1".into())]), "command=a%20b%26c&tty=1");
    }
}
