//! What a Pod gets where its author said nothing; the spec's part serves Pod templates too.

use std::{collections::BTreeMap, str::FromStr as _};

use k8s_openapi::{
    api::core::v1::{
        Container, DownwardAPIVolumeFile, EnvVar, HTTPGetAction, LifecycleHandler, Pod, PodIP, PodSpec, PodStatus,
        PodTemplateSpec, Probe, ResourceRequirements, Volume,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{ephemeral, resources};
use crate::quantity;

/// Seconds a Pod has to stop in peace.
const TERMINATION_GRACE_PERIOD_SECONDS: i64 = 30;
/// Seconds a projected token lives.
const TOKEN_EXPIRATION_SECONDS: i64 = 3600;
/// `0644`: files of configMap, secret, downwardAPI and projected volumes.
const FILE_MODE: i32 = 0o644;

/// A value that upstream does not print, and that means the same as its absence.
trait Blank {
    fn is_blank(&self) -> bool;
}

impl Blank for bool {
    fn is_blank(&self) -> bool {
        !self
    }
}

impl Blank for String {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Blank for Vec<T> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Blank for BTreeMap<K, V> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

macro_rules! drop_blank {
    ($owner:ident: $($field:ident),+ $(,)?) => {
        $(if $owner.$field.as_ref().is_some_and(Blank::is_blank) { $owner.$field = None; })+
    };
}

fn text(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.into());
    }
}

fn number(field: &mut Option<i32>, value: i32) {
    if field.unwrap_or_default() == 0 {
        *field = Some(value);
    }
}

/// Everything a Pod gets.
pub fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    requests_from_limits(spec);
    spec.enable_service_links.get_or_insert(true);
    if spec.host_network == Some(true) {
        host_ports(&mut spec.containers);
        host_ports(spec.init_containers.as_deref_mut().unwrap_or_default());
    }
    pod_spec(spec);
    resources::set_pod_level_defaults(spec);
    pod.status.iter_mut().for_each(status);
}

/// What the template of a workload gets.
pub fn pod_template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    pod_spec(template.spec.get_or_insert_default());
}

/// Everything that Pods and templates have in common.
pub fn pod_spec(spec: &mut PodSpec) {
    drop_blank!(spec: ephemeral_containers, host_aliases, host_ipc, host_network, host_pid, hostname,
        image_pull_secrets, init_containers, node_name, node_selector, overhead, priority_class_name, readiness_gates,
        resource_claims, scheduling_gates, service_account, service_account_name, subdomain, tolerations,
        topology_spread_constraints, volumes);
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(TERMINATION_GRACE_PERIOD_SECONDS);
    // The old name of the field follows the new one.
    if spec.service_account_name.is_none() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
    spec.volumes.iter_mut().flatten().for_each(volume);
    spec.init_containers.iter_mut().flatten().for_each(container);
    spec.containers.iter_mut().for_each(container);
    for entry in spec.ephemeral_containers.iter_mut().flatten() {
        let mut common = ephemeral::as_container(entry);
        container(&mut common);
        *entry = ephemeral::from_container(common, entry.target_container_name.take());
    }
    canonical(&mut spec.overhead);
    if let Some(resources) = &mut spec.resources {
        requirements(resources);
    }
}

fn container(container: &mut Container) {
    drop_blank!(container: args, command, env, env_from, ports, resize_policy, restart_policy_rules, stdin, stdin_once,
        tty, volume_devices, volume_mounts, working_dir);
    let policy = pull_policy(container.image.as_deref().unwrap_or_default());
    text(&mut container.image_pull_policy, policy);
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        drop_blank!(port: host_ip, name);
        port.host_port = port.host_port.filter(|port| *port != 0);
        text(&mut port.protocol, "TCP");
    }
    container.env.iter_mut().flatten().for_each(env);
    for mount in container.volume_mounts.iter_mut().flatten() {
        drop_blank!(mount: read_only, sub_path, sub_path_expr);
    }
    requirements(container.resources.get_or_insert_default());
    [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe]
        .into_iter()
        .flatten()
        .for_each(probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten().for_each(handler);
    }
}

/// `Always` for a tag that moves, `IfNotPresent` for one that does not, or for what is no image name at all.
pub fn pull_policy(image: &str) -> &'static str {
    let path = image.split_once('@').map_or(image, |(path, _)| path);
    let pinned_by_digest = path.len() != image.len();
    let (repository, tag) = match path.rfind([':', '/']) {
        Some(at) if path.as_bytes()[at] == b':' => (&path[..at], &path[at + 1..]),
        _ => (path, ""),
    };
    let is_name = !repository.is_empty() && !repository.contains(|c: char| c.is_whitespace());
    match tag {
        "latest" if is_name => "Always",
        "" if is_name && !pinned_by_digest && !path.ends_with(':') => "Always",
        _ => "IfNotPresent",
    }
}

fn env(variable: &mut EnvVar) {
    drop_blank!(variable: value);
    let Some(source) = &mut variable.value_from else { return };
    if let Some(field) = &mut source.field_ref {
        text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut source.resource_field_ref {
        resource.divisor.get_or_insert_with(|| Quantity("0".into()));
    }
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

fn probe(probe: &mut Probe) {
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    probe.initial_delay_seconds = probe.initial_delay_seconds.filter(|seconds| *seconds != 0);
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn handler(handler: &mut LifecycleHandler) {
    handler.http_get.iter_mut().for_each(http_get);
}

fn http_get(action: &mut HTTPGetAction) {
    drop_blank!(action: host, http_headers);
    text(&mut action.path, "/");
    text(&mut action.scheme, "HTTP");
}

fn volume(volume: &mut Volume) {
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(image) = &mut volume.image {
        let policy = pull_policy(image.reference.as_deref().unwrap_or_default());
        text(&mut image.pull_policy, policy);
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(FILE_MODE);
        downward.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            source.downward_api.iter_mut().flat_map(|api| api.items.iter_mut().flatten()).for_each(downward_file);
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(TOKEN_EXPIRATION_SECONDS);
            }
        }
    }
    if let Some(ephemeral) = &mut volume.ephemeral
        && let Some(claim) = &mut ephemeral.volume_claim_template
    {
        claim.spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        let resources = claim.spec.resources.get_or_insert_default();
        canonical(&mut resources.limits);
        canonical(&mut resources.requests);
    }
    storage_plugin(volume);
}

/// The volume types that no kubelet of ours mounts, defaulted all the same.
fn storage_plugin(volume: &mut Volume) {
    if let Some(iscsi) = &mut volume.iscsi {
        text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        text(&mut rbd.pool, "rbd");
        text(&mut rbd.user, "admin");
        text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".into());
        disk.fs_type.get_or_insert_with(|| "ext4".into());
        disk.kind.get_or_insert_with(|| "Shared".into());
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale_io) = &mut volume.scale_io {
        text(&mut scale_io.storage_mode, "ThinProvisioned");
        text(&mut scale_io.fs_type, "xfs");
    }
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        resource.divisor.get_or_insert_with(|| Quantity("0".into()));
    }
}

fn requirements(requirements: &mut ResourceRequirements) {
    canonical(&mut requirements.limits);
    canonical(&mut requirements.requests);
    drop_blank!(requirements: limits, requests, claims);
}

/// Quantities in their canonical form, none finer than a thousandth. What is no quantity stays for validation to name.
pub fn canonical(list: &mut Option<BTreeMap<String, Quantity>>) {
    for quantity in list.iter_mut().flat_map(BTreeMap::values_mut) {
        match quantity::Quantity::from_str(&quantity.0) {
            Ok(amount) if !amount.is_multiple_of_milli(1) => {
                *quantity = quantity::Quantity::milli(amount.to_milli()).to_text()
            }
            Ok(_) => quantity.0 = quantity::canonical(&quantity.0).unwrap_or_else(|_| quantity.0.clone()),
            Err(_) => {}
        }
    }
}

/// In a Pod, though not in a template, a limit is also the request where there is none.
fn requests_from_limits(spec: &mut PodSpec) {
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let Some(resources) = &mut container.resources else { continue };
        let Some(limits) = &resources.limits else { continue };
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
}

/// On the host's network, a container's port is the host's port.
fn host_ports(containers: &mut [Container]) {
    for port in containers.iter_mut().flat_map(|container| container.ports.iter_mut().flatten()) {
        if port.host_port.unwrap_or_default() == 0 {
            port.host_port = Some(port.container_port);
        }
    }
}

/// `podIP` is the first of `podIPs`; where a client sends only one of them, or two that differ, `podIP` counts.
fn status(status: &mut PodStatus) {
    let first = status.pod_ips.iter().flatten().next().map(|address| address.ip.clone());
    match status.pod_ip.clone().filter(|ip| !ip.is_empty()) {
        Some(ip) if first.as_ref() != Some(&ip) => status.pod_ips = Some(vec![PodIP { ip }]),
        Some(_) => {}
        None => status.pod_ip = first,
    }
    for container in
        [&mut status.init_container_statuses, &mut status.container_statuses].into_iter().flatten().flatten()
    {
        canonical(&mut container.allocated_resources);
        if let Some(resources) = &mut container.resources {
            requirements(resources);
        }
    }
}
