//! Compiled ports as nftables objects, and the script that turns one set of objects into another.
//!
//! Services are found by verdict maps (address . protocol . port -> chain), so that the number of rules
//! a packet meets does not grow with the number of Services. All objects live in one table of Skiff's
//! own; a change touches only the elements and chains that differ, in one transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::compile::{Backend, ServicePort};

/// The table, of family `ip`.
pub const TABLE: &str = "skiff";
/// Packet mark: give this packet the node's address as its source.
pub const MASQUERADE_MARK: u32 = 0x4000;
/// Connection mark: this connection was sent to a backend by us; firewalls let it pass.
pub const SERVICE_MARK: u32 = 0x8000;

/// The variable part of the table: what Services add to the fixed frame.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Objects {
    /// Chain name -> rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Set name -> declaration.
    pub sets: BTreeMap<String, String>,
    /// (map or set of the frame, key) -> value; empty for a set's element.
    pub elements: BTreeMap<(&'static str, String), String>,
}

impl Objects {
    pub fn extend(&mut self, other: Objects) {
        self.chains.extend(other.chains);
        self.sets.extend(other.sets);
        self.elements.extend(other.elements);
    }
}

/// The objects of some ports.
pub fn render(ports: &[ServicePort]) -> Objects {
    let mut objects = Objects::default();
    for port in ports {
        render_port(port, &mut objects);
    }
    objects
}

fn render_port(port: &ServicePort, objects: &mut Objects) {
    let protocol = port.protocol.name();
    let internal = format!("service-{}", port.name);
    let external = format!("external-{}", port.name);
    for backend in port.internal_backends.iter().chain(&port.external_backends) {
        objects.elements.insert(("hairpin", format!("{0} . {0}", backend.ip)), String::new());
    }
    if !port.internal_backends.is_empty() {
        send_to_backends(&internal, port, &port.internal_backends, &[], objects);
    }
    let is_exposed = port.node_port.is_some() || !port.external_ips.is_empty();
    if is_exposed && !port.external_backends.is_empty() {
        let first: &[&str] = if port.is_external_local { &[] } else { &["jump mark-masquerade"] };
        send_to_backends(&external, port, &port.external_backends, first, objects);
    }
    if let Some(ip) = port.cluster_ip {
        let key = format!("{ip} . {protocol} . {}", port.port);
        listen(objects, ["service-ips", "no-endpoint-ips"], key, &internal, port, port.internal_backends.is_empty());
    }
    let nobody = port.external_backends.is_empty();
    for ip in &port.external_ips {
        let key = format!("{ip} . {protocol} . {}", port.port);
        listen(objects, ["service-ips", "no-endpoint-ips"], key, &external, port, nobody);
    }
    if let Some(node_port) = port.node_port {
        let key = format!("{protocol} . {node_port}");
        listen(objects, ["node-ports", "no-endpoint-node-ports"], key, &external, port, nobody);
    }
}

fn listen(objects: &mut Objects, maps: [&'static str; 2], key: String, chain: &str, port: &ServicePort, nobody: bool) {
    match (nobody, port.has_backends_anywhere) {
        (false, _) => objects.elements.insert((maps[0], key), format!("goto {chain}")),
        (true, true) => objects.elements.insert((maps[1], key), "drop".into()),
        (true, false) => objects.elements.insert((maps[1], key), "goto refuse".into()),
    };
}

fn send_to_backends(chain: &str, port: &ServicePort, backends: &[Backend], first: &[&str], objects: &mut Objects) {
    let protocol = port.protocol.name();
    let mut rules: Vec<String> = first.iter().map(|rule| (*rule).to_owned()).collect();
    rules.push(format!("ct mark set ct mark or {SERVICE_MARK:#x}"));
    let Some(seconds) = port.affinity_seconds else {
        let targets: Vec<_> = backends
            .iter()
            .enumerate()
            .map(|(n, backend)| format!("{n} : {} . {}", backend.ip, backend.port))
            .collect();
        rules.push(match backends {
            [one] => format!("meta l4proto {protocol} dnat to {}:{}", one.ip, one.port),
            many => format!(
                "meta l4proto {protocol} dnat ip addr . port to numgen random mod {} map {{ {} }}",
                many.len(),
                targets.join(", ")
            ),
        });
        objects.chains.insert(chain.to_owned(), rules);
        return;
    };
    // With affinity, each backend has a set of the clients that it answered lately.
    let mut verdicts = Vec::new();
    for (n, backend) in backends.iter().enumerate() {
        let name = format!("{}/{}/{}", port.name, backend.ip, backend.port);
        let (set, endpoint) = (format!("affinity-{name}"), format!("endpoint-{name}"));
        objects.sets.insert(set.clone(), format!("{{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}"));
        let answer = vec![
            format!("update @{set} {{ ip saddr }}"),
            format!("meta l4proto {protocol} dnat to {}:{}", backend.ip, backend.port),
        ];
        objects.chains.insert(endpoint.clone(), answer);
        rules.push(format!("ip saddr @{set} goto {endpoint}"));
        verdicts.push(format!("{n} : goto {endpoint}"));
    }
    rules.push(format!("numgen random mod {} vmap {{ {} }}", backends.len(), verdicts.join(", ")));
    objects.chains.insert(chain.to_owned(), rules);
}

/// The fixed part of the table: hooks, maps, and what marked packets get.
fn frame() -> String {
    format!(
        "add table ip {TABLE}\ndelete table ip {TABLE}\n\
table ip {TABLE} {{
  comment \"Services of the cluster, written by skiff\"
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map node-ports {{ type inet_proto . inet_service : verdict; }}
  map no-endpoint-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no-endpoint-node-ports {{ type inet_proto . inet_service : verdict; }}
  set hairpin {{ type ipv4_addr . ipv4_addr; }}
  chain mark-masquerade {{ meta mark set meta mark or {MASQUERADE_MARK:#x}; }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local meta l4proto . th dport vmap @node-ports
  }}
  chain no-endpoints {{
    ip daddr . meta l4proto . th dport vmap @no-endpoint-ips
    fib daddr type local meta l4proto . th dport vmap @no-endpoint-node-ports
  }}
  chain nat-prerouting {{ type nat hook prerouting priority -110; policy accept; jump services; }}
  chain nat-output {{ type nat hook output priority -110; policy accept; jump services; }}
  chain nat-postrouting {{
    type nat hook postrouting priority 90; policy accept;
    meta mark and {MASQUERADE_MARK:#x} != 0 meta mark set meta mark xor {MASQUERADE_MARK:#x} masquerade fully-random
    ip saddr 127.0.0.0/8 ct status dnat ct mark and {SERVICE_MARK:#x} != 0 masquerade fully-random
    ip saddr . ip daddr @hairpin ct status dnat masquerade fully-random
  }}
  chain filter-input {{ type filter hook input priority -110; policy accept; ct state new jump no-endpoints; }}
  chain filter-forward {{ type filter hook forward priority -110; policy accept; ct state new jump no-endpoints; }}
  chain filter-output {{ type filter hook output priority -110; policy accept; ct state new jump no-endpoints; }}
}}
"
    )
}

/// The script that makes the table anew, whatever was there.
pub fn script_from_nothing(objects: &Objects) -> String {
    let mut script = frame();
    script.push_str(&script_of_change(&Objects::default(), objects));
    script
}

/// The script that turns `old` into `new`; empty when they are equal. Order matters: what is referred to
/// is made before and removed after what refers to it.
pub fn script_of_change(old: &Objects, new: &Objects) -> String {
    let mut script = String::new();
    let _ = write_change(&mut script, old, new);
    script
}

fn write_change(script: &mut String, old: &Objects, new: &Objects) -> std::fmt::Result {
    for (name, declaration) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        writeln!(script, "add set ip {TABLE} {name} {declaration}")?;
    }
    let changed = |name: &&String| old.chains.get(*name) != new.chains.get(*name);
    let written: Vec<&String> = new.chains.keys().filter(changed).collect();
    for name in &written {
        writeln!(script, "add chain ip {TABLE} {name}")?;
        writeln!(script, "flush chain ip {TABLE} {name}")?;
    }
    for name in &written {
        for rule in &new.chains[*name] {
            writeln!(script, "add rule ip {TABLE} {name} {rule}")?;
        }
    }
    let stale = old.elements.iter().filter(|(key, value)| new.elements.get(*key) != Some(*value));
    for ((map, key), _) in stale {
        writeln!(script, "delete element ip {TABLE} {map} {{ {key} }}")?;
    }
    let fresh = new.elements.iter().filter(|(key, value)| old.elements.get(*key) != Some(*value));
    for ((map, key), value) in fresh {
        match value.is_empty() {
            true => writeln!(script, "add element ip {TABLE} {map} {{ {key} }}")?,
            false => writeln!(script, "add element ip {TABLE} {map} {{ {key} : {value} }}")?,
        }
    }
    let gone: BTreeSet<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
    for name in &gone {
        writeln!(script, "flush chain ip {TABLE} {name}")?;
    }
    for name in &gone {
        writeln!(script, "delete chain ip {TABLE} {name}")?;
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
        writeln!(script, "delete set ip {TABLE} {name}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::compile::tests::{SLICE, WEB, compiled};

    #[test]
    fn a_node_port_service() {
        let script = script_of_change(&Objects::default(), &render(&compiled(WEB, SLICE)));
        expect![[r#"
            add chain ip skiff external-default/web/tcp/http
            flush chain ip skiff external-default/web/tcp/http
            add chain ip skiff service-default/web/tcp/http
            flush chain ip skiff service-default/web/tcp/http
            add rule ip skiff external-default/web/tcp/http jump mark-masquerade
            add rule ip skiff external-default/web/tcp/http ct mark set ct mark or 0x8000
            add rule ip skiff external-default/web/tcp/http meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.3 . 8080 }
            add rule ip skiff service-default/web/tcp/http ct mark set ct mark or 0x8000
            add rule ip skiff service-default/web/tcp/http meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.3 . 8080 }
            add element ip skiff hairpin { 10.244.1.2 . 10.244.1.2 }
            add element ip skiff hairpin { 10.244.2.3 . 10.244.2.3 }
            add element ip skiff node-ports { tcp . 32600 : goto external-default/web/tcp/http }
            add element ip skiff service-ips { 10.96.0.10 . tcp . 80 : goto service-default/web/tcp/http }
        "#]]
        .assert_eq(&script);
    }

    #[test]
    fn a_change_writes_only_what_differs_and_nothing_twice() {
        let before = render(&compiled(WEB, SLICE));
        assert_eq!(script_of_change(&before, &before), "");
        let after = render(&compiled(WEB, SLICE.split("endpoints:").next().unwrap()));
        expect![[r#"
            delete element ip skiff hairpin { 10.244.1.2 . 10.244.1.2 }
            delete element ip skiff hairpin { 10.244.2.3 . 10.244.2.3 }
            delete element ip skiff node-ports { tcp . 32600 }
            delete element ip skiff service-ips { 10.96.0.10 . tcp . 80 }
            add element ip skiff no-endpoint-ips { 10.96.0.10 . tcp . 80 : goto refuse }
            add element ip skiff no-endpoint-node-ports { tcp . 32600 : goto refuse }
            flush chain ip skiff external-default/web/tcp/http
            flush chain ip skiff service-default/web/tcp/http
            delete chain ip skiff external-default/web/tcp/http
            delete chain ip skiff service-default/web/tcp/http
        "#]]
        .assert_eq(&script_of_change(&before, &after));
    }

    #[test]
    fn affinity_keeps_a_set_of_clients_for_each_backend() {
        let sticky = WEB.replace("type: NodePort", "type: NodePort\n  sessionAffinity: ClientIP");
        let objects = render(&compiled(&sticky, SLICE));
        assert_eq!(objects.sets.len(), 2);
        let rules = &objects.chains["service-default/web/tcp/http"];
        assert!(
            rules[1].starts_with("ip saddr @affinity-default/web/tcp/http/10.244.1.2/8080 goto endpoint-"),
            "{rules:?}"
        );
        assert!(rules[3].starts_with("numgen random mod 2 vmap"), "{rules:?}");
    }
}
