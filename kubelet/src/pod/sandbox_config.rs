//! From a Pod to its sandbox, /etc/hosts and resolv.conf. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::{identity, is_host_network, long_lived, name, namespace, spec};
use crate::runtime::{Dns, PortMapping, SandboxConfig};

/// What the kernel takes as a hostname.
const HOSTNAME_BYTES_MAX: usize = 63;
/// What resolvers take.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// What the node contributes to name resolution.
#[derive(Clone, Debug, Default)]
pub struct NodeDns {
    /// Address of the cluster's DNS; without one Pods resolve as the node does.
    pub cluster_servers: Vec<String>,
    pub cluster_domain: String,
    /// The node's own resolv.conf.
    pub node: Dns,
}

pub fn sandbox_config(pod: &Pod, attempt: u32, dns: &NodeDns) -> SandboxConfig {
    let of = spec(pod);
    let context = of.security_context.clone().unwrap_or_default();
    SandboxConfig {
        pod: identity(pod),
        attempt,
        hostname: hostname(pod),
        dns: resolve(pod, dns),
        host_network: is_host_network(pod),
        host_pid: of.host_pid.unwrap_or_default(),
        host_ipc: of.host_ipc.unwrap_or_default(),
        ports: ports(pod),
        sysctls: context.sysctls.into_iter().flatten().map(|sysctl| (sysctl.name, sysctl.value)).collect(),
        labels: BTreeMap::new(),
    }
}

/// spec.hostname or the Pod's name, cut to what the kernel takes and never ending in a separator.
pub fn hostname(pod: &Pod) -> String {
    let of = spec(pod);
    let given = of.hostname_override.as_deref().or(of.hostname.as_deref()).filter(|name| !name.is_empty());
    let mut hostname = given.unwrap_or(name(pod)).to_string();
    if of.set_hostname_as_fqdn == Some(true)
        && of.hostname_override.is_none()
        && let Some(subdomain) = of.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())
    {
        hostname = format!("{hostname}.{subdomain}.{}.svc.cluster.local", namespace(pod));
    }
    hostname.truncate(HOSTNAME_BYTES_MAX);
    hostname.trim_end_matches(['-', '.']).to_string()
}

fn ports(pod: &Pod) -> Vec<PortMapping> {
    let all = long_lived(pod).flat_map(|(_, container)| container.ports.iter().flatten());
    let published = all.filter(|port| port.host_port.is_some_and(|port| port != 0));
    published
        .map(|port| PortMapping {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            container_port: port.container_port as u16,
            host_port: port.host_port.unwrap_or_default() as u16,
            host_ip: port.host_ip.clone().filter(|ip| !ip.is_empty()),
        })
        .collect()
}

/// dnsPolicy and dnsConfig to resolv.conf.
pub fn resolve(pod: &Pod, dns: &NodeDns) -> Dns {
    let of = spec(pod);
    let policy = of.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !is_host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut result = match policy {
        "None" => Dns::default(),
        _ if cluster && !dns.cluster_servers.is_empty() => {
            let domain = &dns.cluster_domain;
            let mut searches =
                vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()];
            searches.extend(dns.node.searches.clone());
            Dns { servers: dns.cluster_servers.clone(), searches, options: vec!["ndots:5".into()] }
        }
        _ => dns.node.clone(),
    };
    if let Some(config) = &of.dns_config {
        result.servers.extend(config.nameservers.clone().unwrap_or_default());
        result.searches.extend(config.searches.clone().unwrap_or_default());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            result.options.retain(|present| present.split(':').next() != Some(name.as_str()));
            result.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    dedup(&mut result.servers);
    dedup(&mut result.searches);
    result.servers.truncate(SERVERS_MAX);
    result.searches.truncate(SEARCHES_MAX);
    result
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

pub fn resolv_conf(dns: &Dns) -> String {
    let mut text: String = dns.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

/// Reads a resolv.conf.
pub fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_string);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            Some("search" | "domain") => dns.searches = words.filter(|word| word != ".").collect(),
            Some("options") => dns.options = words.collect(),
            _ => {}
        }
    }
    dns
}

/// The header is compared literally by upstream's tests.
pub fn etc_hosts(pod: &Pod, ips: &[String], node_hosts: &str) -> String {
    let mut text = if is_host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let host = hostname(pod);
        let subdomain = spec(pod).subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
        for ip in ips {
            text += &match subdomain {
                Some(subdomain) => {
                    format!("{ip}\t{host}.{subdomain}.{}.svc.cluster.local\t{host}\n", namespace(pod))
                }
                None => format!("{ip}\t{host}\n"),
            };
        }
        text
    };
    let aliases = spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
        for alias in aliases {
            text += &format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn node() -> NodeDns {
        NodeDns {
            cluster_servers: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            node: parse_resolv_conf("# x\nsearch lab.example\nnameserver 192.0.2.1\noptions edns0\n"),
        }
    }

    #[test]
    fn names_are_resolved_by_policy() {
        let text = |spec| resolv_conf(&resolve(&pod(spec), &node()));
        expect![[r#"
            nameserver 10.96.0.10
            search shop.svc.cluster.local svc.cluster.local cluster.local lab.example
            options ndots:5
        "#]]
        .assert_eq(&text(serde_json::json!({"containers": []})));
        expect![[r#"
            nameserver 192.0.2.1
            search lab.example
            options edns0
        "#]]
        .assert_eq(&text(serde_json::json!({"containers": [], "dnsPolicy": "Default"})));
        expect![[r#"
            nameserver 1.1.1.1
            options ndots:2
        "#]]
        .assert_eq(&text(serde_json::json!({"containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}})));
    }

    #[test]
    fn a_long_name_is_cut_where_the_kernel_would_refuse() {
        let long = serde_json::json!({"containers": [], "hostname": format!("{}-{}", "a".repeat(62), "b".repeat(20))});
        assert_eq!(hostname(&pod(long)), "a".repeat(62));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let spec = serde_json::json!({"containers": [], "hostAliases": [{"ip": "10.1.1.1", "hostnames": ["a", "b"]}]});
        expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::	ip6-localnet
            fe00::	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.0.0.5	web

            # Entries added by HostAliases.
            10.1.1.1	a	b
        "#]]
        .assert_eq(&etc_hosts(&pod(spec), &["10.0.0.5".into()], ""));
    }
}
