//! A Pod's sandbox as Docker's container: pause, with the network, IPC and hostname that the others join.

use std::collections::HashMap;

use bollard::models::RestartPolicyNameEnum;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy};

use super::pause;
use crate::runtime::{SandboxConfig, labels};

/// Relative share of the CPU: the least there is, as pause only sleeps.
const CPU_SHARES: i64 = 2;
/// Kept alive longer than what it serves when memory is short; raised to zero where that is not allowed.
const OOM_SCORE_ADJ: i64 = -998;

pub fn create_body(config: &SandboxConfig, node: &str, network: &str, may_lower_oom: bool) -> ContainerCreateBody {
    let mut labels = labels::of_pod(&config.pod, labels::TYPE_SANDBOX);
    labels.insert(labels::CONTAINER_NAME.into(), labels::SANDBOX_NAME.into());
    labels.insert(labels::SANDBOX_ATTEMPT.into(), config.attempt.to_string());
    labels.insert(labels::NODE.into(), node.into());
    labels.extend(config.labels.clone());
    ContainerCreateBody {
        image: Some(pause::IMAGE.into()),
        entrypoint: Some(vec![pause::PROGRAM.into()]),
        hostname: (!config.host_network).then(|| config.hostname.clone()),
        labels: Some(labels.into_iter().collect()),
        exposed_ports: exposed_ports(config),
        host_config: Some(host_config(config, network, may_lower_oom)),
        ..Default::default()
    }
}

fn host_config(config: &SandboxConfig, network: &str, may_lower_oom: bool) -> HostConfig {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    HostConfig {
        network_mode: Some(if config.host_network { "host".into() } else { network.into() }),
        pid_mode: config.host_pid.then(|| "host".into()),
        ipc_mode: Some(if config.host_ipc { "host".into() } else { "shareable".into() }),
        port_bindings: port_bindings(config),
        dns: some(&config.dns.servers),
        dns_search: some(&config.dns.searches),
        dns_options: some(&config.dns.options),
        sysctls: (!config.sysctls.is_empty()).then(|| config.sysctls.clone().into_iter().collect()),
        cpu_shares: Some(CPU_SHARES),
        oom_score_adj: Some(if may_lower_oom { OOM_SCORE_ADJ } else { 0 }),
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(true),
        restart_policy: Some(never_restart()),
        log_config: Some(log_config()),
        ..Default::default()
    }
}

/// Restarting is the kubelet's business.
pub fn never_restart() -> RestartPolicy {
    RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }
}

/// Logs are read back from Docker: the driver must be one that can, whatever the daemon's default is.
pub fn log_config() -> HostConfigLogConfig {
    let options = [("max-size", "10m"), ("max-file", "5")].map(|(key, value)| (key.to_string(), value.to_string()));
    HostConfigLogConfig { typ: Some("json-file".into()), config: Some(options.into()) }
}

fn published(config: &SandboxConfig) -> impl Iterator<Item = (String, &crate::runtime::PortMapping)> {
    let ports = if config.host_network { &[][..] } else { &config.ports[..] };
    ports.iter().filter(|port| port.host_port != 0).map(|port| {
        let protocol = port.protocol.to_lowercase();
        (format!("{}/{protocol}", port.container_port), port)
    })
}

fn exposed_ports(config: &SandboxConfig) -> Option<Vec<String>> {
    let ports: Vec<String> = published(config).map(|(name, _)| name).collect();
    (!ports.is_empty()).then_some(ports)
}

fn port_bindings(config: &SandboxConfig) -> Option<HashMap<String, Option<Vec<PortBinding>>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for (name, port) in published(config) {
        let binding = PortBinding { host_ip: port.host_ip.clone(), host_port: Some(port.host_port.to_string()) };
        bindings.entry(name).or_default().get_or_insert_default().push(binding);
    }
    (!bindings.is_empty()).then_some(bindings)
}
