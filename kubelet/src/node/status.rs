//! What the API shows of this node. Pure: machine and readings in, NodeStatus out.

use std::{collections::BTreeMap, net::IpAddr};

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
        NodeSystemInfo,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::machine::Machine;
use crate::{
    devices::{self, Device},
    pod::status::whole_seconds,
    resources::ResourceList,
    runtime::{Image, RuntimeVersion},
};

pub const KUBELET_VERSION: &str = "v1.36.2";
/// Images listed, as upstream.
const IMAGES_MAX: usize = 50;
/// Names of one image listed.
const IMAGE_NAMES_MAX: usize = 5;

/// Thresholds of upstream's default eviction signals.
const MEMORY_AVAILABLE_BYTES_MIN: u64 = 100 << 20;
const DISK_AVAILABLE_PERCENT_MIN: u64 = 10;
const PROCESSES_PERCENT_MAX: u64 = 95;

/// What was read just now.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    pub memory_available_bytes: Option<u64>,
    /// Total and free.
    pub disk_bytes: Option<(u64, u64)>,
    /// Used and most.
    pub processes: Option<(u64, u64)>,
    /// Why the runtime cannot be used, if so.
    pub runtime_error: Option<String>,
    pub images: Vec<Image>,
    pub devices: Vec<Device>,
}

/// What does not change while the kubelet runs.
#[derive(Clone, Debug)]
pub struct Facts {
    pub node_name: String,
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    pub max_pods: u64,
    pub machine: Machine,
    pub runtime: RuntimeVersion,
    /// CPU, memory and disk that Pods may not have.
    pub reserved: ResourceList,
}

pub fn capacity(facts: &Facts, devices: &[Device]) -> ResourceList {
    let machine = &facts.machine;
    let bytes = |bytes: u64| Quantity::bytes(i64::try_from(bytes).unwrap_or(i64::MAX)).to_text();
    // Memory and disk are shown in whole Ki, as upstream.
    let kib = |bytes: u64| k8s_openapi::apimachinery::pkg::api::resource::Quantity(format!("{}Ki", bytes / 1024));
    let mut list: ResourceList = [
        ("cpu", Quantity::units(machine.cpus as i64).to_text()),
        ("memory", kib(machine.memory_bytes)),
        ("ephemeral-storage", kib(machine.disk_bytes)),
        ("pods", Quantity::units(facts.max_pods as i64).to_text()),
    ]
    .map(|(name, quantity)| (name.to_string(), quantity))
    .into();
    list.extend(machine.huge_pages.iter().map(|(name, size)| (name.clone(), bytes(*size))));
    if !devices.is_empty() {
        list.insert(devices::RESOURCE.into(), Quantity::units(devices.len() as i64).to_text());
    }
    list
}

pub fn allocatable(facts: &Facts, devices: &[Device]) -> ResourceList {
    let mut list = capacity(facts, devices);
    for (name, reserved) in &facts.reserved {
        if let Some(amount) = list.get_mut(name) {
            let left = Quantity::of(amount) - Quantity::of(reserved);
            *amount = if left.sign() < 0 { Quantity::ZERO } else { left }.to_text();
        }
    }
    if let Some(amount) = list.get_mut(devices::RESOURCE) {
        *amount = Quantity::units(devices.iter().filter(|device| device.healthy).count() as i64).to_text();
    }
    list
}

/// The status that follows `old`.
pub fn node_status(old: &NodeStatus, facts: &Facts, readings: &Readings, now: Timestamp) -> NodeStatus {
    NodeStatus {
        addresses: Some(addresses(facts)),
        allocatable: Some(allocatable(facts, &readings.devices)),
        capacity: Some(capacity(facts, &readings.devices)),
        conditions: Some(conditions(old.conditions.as_deref().unwrap_or_default(), readings, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }),
        }),
        images: Some(images(&readings.images)),
        node_info: Some(info(facts)),
        ..old.clone()
    }
}

fn addresses(facts: &Facts) -> Vec<NodeAddress> {
    let address = |r#type: &str, address: String| NodeAddress { type_: r#type.into(), address };
    let ips = facts.addresses.iter().map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", facts.node_name.clone())]).collect()
}

fn info(facts: &Facts) -> NodeSystemInfo {
    let Facts { machine, runtime, .. } = facts;
    NodeSystemInfo {
        architecture: go_architecture().into(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
        kernel_version: machine.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.into(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".into(),
        os_image: machine.os_image.clone(),
        system_uuid: machine.system_uuid.clone(),
        ..Default::default()
    }
}

/// The architecture as Kubernetes names it.
pub fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The largest first, without names that say nothing.
fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut images: Vec<&Image> =
        images.iter().filter(|image| !image.tags.is_empty() || !image.digests.is_empty()).collect();
    images.sort_by_key(|image| (std::cmp::Reverse(image.size_bytes), image.id.clone()));
    let names = |image: &Image| image.digests.iter().chain(&image.tags).take(IMAGE_NAMES_MAX).cloned().collect();
    let entry = |image: &Image| ContainerImage { names: Some(names(image)), size_bytes: Some(image.size_bytes) };
    images.into_iter().take(IMAGES_MAX).map(entry).collect()
}

struct Verdict {
    r#type: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

fn verdicts(readings: &Readings) -> [Verdict; 4] {
    let short_of_memory = readings.memory_available_bytes.is_some_and(|bytes| bytes < MEMORY_AVAILABLE_BYTES_MIN);
    let full = |(total, free): (u64, u64)| total > 0 && free * 100 < total * DISK_AVAILABLE_PERCENT_MIN;
    let short_of_disk = readings.disk_bytes.is_some_and(full);
    let short_of_pids = readings.processes.is_some_and(|(used, most)| used * 100 > most * PROCESSES_PERCENT_MAX);
    let pressure = |r#type, is: bool, yes: [&'static str; 2], no: [&'static str; 2]| {
        let [reason, message] = if is { yes } else { no };
        Verdict { r#type, status: is, reason, message: message.into() }
    };
    let ready = match &readings.runtime_error {
        None => Verdict {
            r#type: "Ready",
            status: true,
            reason: "KubeletReady",
            message: "kubelet is posting ready status".into(),
        },
        Some(error) => Verdict { r#type: "Ready", status: false, reason: "KubeletNotReady", message: error.clone() },
    };
    [
        pressure(
            "MemoryPressure",
            short_of_memory,
            ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
            ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
        ),
        pressure(
            "DiskPressure",
            short_of_disk,
            ["KubeletHasDiskPressure", "kubelet has disk pressure"],
            ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        ),
        pressure(
            "PIDPressure",
            short_of_pids,
            ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
            ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
        ),
        ready,
    ]
}

fn conditions(old: &[NodeCondition], readings: &Readings, now: Timestamp) -> Vec<NodeCondition> {
    let now = Time(whole_seconds(now));
    let mut conditions = old.to_vec();
    for verdict in verdicts(readings) {
        let status = if verdict.status { "True" } else { "False" };
        let before = conditions.iter_mut().find(|condition| condition.type_ == verdict.r#type);
        let since =
            before.as_ref().filter(|before| before.status == status).and_then(|b| b.last_transition_time.clone());
        let condition = NodeCondition {
            type_: verdict.r#type.into(),
            status: status.into(),
            reason: Some(verdict.reason.into()),
            message: Some(verdict.message),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
        };
        match before {
            Some(before) => *before = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

/// Whether anything but the heartbeat differs.
pub fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let quiet = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    quiet(old) != quiet(new)
}

/// Events about conditions that changed: reason by upstream's name.
pub fn transitions(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let status = |of: &NodeStatus, r#type: &str| {
        let mut conditions = of.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == r#type).map(|condition| condition.status.clone())
    };
    let names: BTreeMap<(&str, &str), &'static str> = [
        (("Ready", "True"), "NodeReady"),
        (("Ready", "False"), "NodeNotReady"),
        (("MemoryPressure", "True"), "NodeHasInsufficientMemory"),
        (("MemoryPressure", "False"), "NodeHasSufficientMemory"),
        (("DiskPressure", "True"), "NodeHasDiskPressure"),
        (("DiskPressure", "False"), "NodeHasNoDiskPressure"),
        (("PIDPressure", "True"), "NodeHasInsufficientPID"),
        (("PIDPressure", "False"), "NodeHasSufficientPID"),
    ]
    .into();
    let types = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
    let changed = types.into_iter().filter(|r#type| status(old, r#type) != status(new, r#type));
    changed.filter_map(|r#type| names.get(&(r#type, status(new, r#type)?.as_str())).copied()).collect()
}

/// Labels that every node carries.
pub fn own_labels(node_name: &str) -> BTreeMap<String, String> {
    let architecture = go_architecture();
    [
        ("kubernetes.io/hostname", node_name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .into()
}

/// Labels or annotations of ours that the node in the API lacks or has otherwise.
pub fn outdated(node: &Node, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> bool {
    let has = |present: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>| {
        wanted.iter().all(|(key, value)| present.and_then(|present| present.get(key)) == Some(value))
    };
    !has(node.metadata.labels.as_ref(), labels) || !has(node.metadata.annotations.as_ref(), annotations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            node_name: "n".into(),
            addresses: vec![[10, 0, 0, 1].into()],
            port: 10250,
            max_pods: 110,
            machine: Machine { cpus: 2, memory_bytes: 1 << 30, disk_bytes: 1 << 30, ..Default::default() },
            runtime: RuntimeVersion { name: "docker".into(), version: "20.10.24".into(), ..Default::default() },
            reserved: [("cpu".to_string(), Quantity::milli(500).to_text())].into(),
        }
    }

    #[test]
    fn only_a_real_change_is_a_change() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let first = node_status(&NodeStatus::default(), &facts(), &Readings::default(), now);
        let later = now + std::time::Duration::from_secs(60);
        let second = node_status(&first, &facts(), &Readings::default(), later);
        assert!(!differs(&first, &second));
        let broken = Readings { runtime_error: Some("docker is down".into()), ..Default::default() };
        let third = node_status(&second, &facts(), &broken, later);
        assert!(differs(&second, &third));
        assert_eq!(transitions(&second, &third), ["NodeNotReady"]);
        assert_eq!(first.allocatable.unwrap()["cpu"].0, "1500m");
        assert_eq!(first.node_info.unwrap().container_runtime_version, "docker://20.10.24");
    }
}
