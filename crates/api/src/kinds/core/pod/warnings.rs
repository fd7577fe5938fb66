//! What is allowed in a Pod or a template and probably not meant.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, NodeSelectorTerm, PodAffinityTerm, PodSpec, PodTemplateSpec, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{ephemeral, resources::ResourceList, unsupported};
use crate::{field::Path, names, quantity::Quantity};

mod paths;

/// Warnings for a template; `path` leads to it.
pub fn of_template(template: &PodTemplateSpec, path: &Path) -> Vec<String> {
    of(&template.metadata.clone().unwrap_or_default(), template.spec.as_ref(), path)
}

/// Warnings for a workload: its name becomes part of its Pods' hostnames, and its template.
pub fn of_workload(name: Option<&str>, template: Option<&PodTemplateSpec>) -> Vec<String> {
    let wrong = name.map(names::is_dns1123_label).unwrap_or_default();
    let mut warnings = Vec::new();
    if !wrong.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
             label is recommended: [{}]",
            wrong.join(" ")
        ));
    }
    let path = Path::new("spec").child("template");
    warnings.extend(template.into_iter().flat_map(|template| of_template(template, &path)));
    warnings
}

/// Warnings for a Pod (`path` is empty) or a template.
pub fn of(meta: &ObjectMeta, spec: Option<&PodSpec>, path: &Path) -> Vec<String> {
    let Some(spec) = spec else { return Vec::new() };
    let mut found = Warnings::default();
    let at = path.child("spec");
    let containers = containers(spec, &at);
    found.node_labels(spec, &at);
    found.annotations(meta, spec, &containers, path);
    found.volumes(spec, &at);
    found.0.extend(paths::overlapping(spec.volumes.as_deref().unwrap_or_default()));
    found.repeated_names(spec, &at);
    found.fractional_bytes(spec.overhead.as_ref(), &at.child("overhead"));
    for (container, path) in &containers {
        let resources = container.resources.clone().unwrap_or_default();
        found.fractional_bytes(resources.limits.as_ref(), &path.child("resources").child("limits"));
        found.fractional_bytes(resources.requests.as_ref(), &path.child("resources").child("requests"));
        found.hidden_variables(container, path);
    }
    found.ports(&containers);
    found.port_names(&containers);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        found.say(
            &at.child("terminationGracePeriodSeconds"),
            "must be >= 0; negative values are invalid and will be treated as 1",
        );
    }
    found.pod_affinity(spec, &at.child("affinity"));
    found.addresses(spec, &at);
    found.0.extend(unsupported::warnings(spec, &at));
    found.0
}

/// Init containers, containers and ephemeral containers, each with its path.
pub fn containers(spec: &PodSpec, path: &Path) -> Vec<(Container, Path)> {
    let listed = |name: &'static str, containers: Vec<Container>| {
        let path = path.child(name);
        containers.into_iter().enumerate().map(move |(index, container)| (container, path.index(index)))
    };
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(ephemeral::as_container).collect();
    listed("initContainers", spec.init_containers.clone().unwrap_or_default())
        .chain(listed("containers", spec.containers.clone()))
        .chain(listed("ephemeralContainers", ephemeral))
        .collect()
}

/// Labels of nodes that have a new name.
pub fn deprecated_node_label(label: &str) -> Option<&'static str> {
    Some(match label {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

const NO_LABEL_SELECTOR: &str = "a null labelSelector results in matching no pod";

#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn say(&mut self, path: &Path, sentence: impl std::fmt::Display) {
        self.0.push(format!("{path}: {sentence}"));
    }

    fn node_labels(&mut self, spec: &PodSpec, at: &Path) {
        for label in spec.node_selector.iter().flat_map(BTreeMap::keys) {
            if let Some(message) = deprecated_node_label(label) {
                self.say(&at.child("nodeSelector").key(label), message);
            }
        }
        if let Some(affinity) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
            let path = at.child("affinity").child("nodeAffinity");
            let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
            let terms = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
            for (index, term) in required.iter().flat_map(|all| &all.node_selector_terms).enumerate() {
                self.node_selector_term(term, false, &terms.index(index));
            }
            let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            let terms = path.child("preferredDuringSchedulingIgnoredDuringExecution");
            for (index, term) in preferred.enumerate() {
                self.node_selector_term(&term.preference, true, &terms.index(index).child("preference"));
            }
        }
        for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
            let path = at.child("topologySpreadConstraints").index(index);
            if let Some(message) = deprecated_node_label(&constraint.topology_key) {
                self.say(&path.child("topologyKey"), format_args!("{} is {message}", constraint.topology_key));
            }
            if constraint.label_selector.is_none() {
                self.say(&path.child("labelSelector"), NO_LABEL_SELECTOR);
            }
        }
    }

    fn node_selector_term(&mut self, term: &NodeSelectorTerm, check_values: bool, path: &Path) {
        for (index, expression) in term.match_expressions.iter().flatten().enumerate() {
            let path = path.child("matchExpressions").index(index);
            if let Some(message) = deprecated_node_label(&expression.key) {
                self.say(&path.child("key"), format_args!("{} is {message}", expression.key));
            }
            for (index, value) in expression.values.iter().flatten().enumerate().filter(|_| check_values) {
                for message in names::is_valid_label_value(value) {
                    self.say(&path.child("values").index(index), format_args!("{value} is invalid, {message}"));
                }
            }
        }
    }

    fn annotations(&mut self, meta: &ObjectMeta, spec: &PodSpec, containers: &[(Container, Path)], path: &Path) {
        const RETIRED: &[(&str, &str)] = &[
            (
                "scheduler.alpha.kubernetes.io/critical-pod",
                "non-functional in v1.16+; use the \"priorityClassName\" field instead",
            ),
            ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
            (
                "security.alpha.kubernetes.io/unsafe-sysctls",
                "non-functional in v1.11+; use the \"sysctls\" field instead",
            ),
        ];
        const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
        const APP_ARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
        let Some(annotations) = &meta.annotations else { return };
        let at = path.child("metadata").child("annotations");
        for (key, message) in RETIRED.iter().filter(|(key, _)| annotations.contains_key(*key)) {
            self.say(&at.key(key), message);
        }
        let pod_has_seccomp = spec.security_context.as_ref().is_some_and(|context| context.seccomp_profile.is_some());
        let key = "seccomp.security.alpha.kubernetes.io/pod";
        if !pod_has_seccomp && annotations.contains_key(key) {
            self.say(&at.key(key), SECCOMP);
        }
        for (container, _) in containers {
            let context = container.security_context.clone().unwrap_or_default();
            let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", container.name);
            if context.seccomp_profile.is_none() && annotations.contains_key(&key) {
                self.say(&at.key(&key), SECCOMP);
            }
            let key = format!("container.apparmor.security.beta.kubernetes.io/{}", container.name);
            if context.app_armor_profile.is_none() && annotations.contains_key(&key) {
                self.say(&at.key(&key), APP_ARMOR);
            }
        }
    }

    fn volumes(&mut self, spec: &PodSpec, at: &Path) {
        type Retired = (&'static str, fn(&Volume) -> bool, &'static str);
        const RETIRED: &[Retired] = &[
            (
                "photonPersistentDisk",
                |volume| volume.photon_persistent_disk.is_some(),
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            ("gitRepo", |volume| volume.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
            ("scaleIO", |volume| volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", |volume| volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("storageOS", |volume| volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", |volume| volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", |volume| volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", |volume| volume.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", |volume| volume.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ];
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            for (name, _, message) in RETIRED.iter().filter(|(_, is_used, _)| is_used(volume)) {
                self.say(&at.child("volumes").index(index).child(name), message);
            }
        }
    }

    fn repeated_names(&mut self, spec: &PodSpec, at: &Path) {
        let aliases: Vec<_> = spec.host_aliases.iter().flatten().map(|alias| alias.ip.as_str()).collect();
        for index in repeats(&aliases) {
            let path = at.child("hostAliases").index(index).child("ip");
            self.say(&path, format_args!("duplicate ip {:?}", aliases[index]));
        }
        let secrets: Vec<_> = spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str()).collect();
        for index in repeats(&secrets) {
            let path = at.child("imagePullSecrets").index(index).child("name");
            self.say(&path, format_args!("duplicate name {:?}", secrets[index]));
        }
        for (index, _) in secrets.iter().enumerate().filter(|(_, name)| name.is_empty()) {
            self.say(&at.child("imagePullSecrets").index(index).child("name"), "invalid empty name \"\"");
        }
    }

    fn fractional_bytes(&mut self, list: Option<&ResourceList>, path: &Path) {
        for name in ["memory", "ephemeral-storage"] {
            let Some(quantity) = list.and_then(|list| list.get(name)) else { continue };
            if !Quantity::of(quantity).is_multiple_of_milli(1000) {
                let message = format_args!("fractional byte value {:?} is invalid, must be an integer", quantity.0);
                self.say(&path.key(name), message);
            }
        }
    }

    /// A second definition of a variable is fine where it builds on the first.
    fn hidden_variables(&mut self, container: &Container, path: &Path) {
        let variables = container.env.as_deref().unwrap_or_default();
        let names: Vec<_> = variables.iter().map(|variable| variable.name.as_str()).collect();
        for index in repeats(&names) {
            let (variable, reference) = (&variables[index], format!("$({})", names[index]));
            let value = variable.value.as_deref().unwrap_or_default();
            if variable.value_from.is_some() || value == reference || !value.contains(&reference) {
                let name = names[index];
                let message =
                    format_args!("hides previous definition of {name:?}, which may be dropped when using apply");
                self.say(&path.child("env").index(index), message);
            }
        }
    }

    fn ports(&mut self, containers: &[(Container, Path)]) {
        let mut seen: BTreeMap<(i32, String), Vec<(Path, &ContainerPort)>> = BTreeMap::new();
        for (port, path) in ports(containers) {
            let ip = |port: &ContainerPort| port.host_ip.clone().unwrap_or_default();
            let host_port = |port: &ContainerPort| port.host_port.unwrap_or_default();
            if !ip(port).is_empty() && host_port(port) == 0 {
                let printed = serde_json::to_string(port).unwrap_or_default();
                self.say(&path, format_args!("hostIP set without hostPort: {printed}"));
            }
            let key = (port.container_port, port.protocol.clone().unwrap_or_default());
            let others = seen.entry(key).or_default();
            for (other_path, other) in others.iter() {
                let kind = if ip(port) == ip(other) && host_port(port) == host_port(other) {
                    "duplicate"
                } else if host_port(port) == 0 || host_port(other) == 0 {
                    "overlapping"
                } else if host_port(port) == host_port(other) && (ip(port).is_empty() != ip(other).is_empty()) {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                self.say(&path, format_args!("{kind} port definition with {other_path}"));
            }
            others.push((path, port));
        }
    }

    fn port_names(&mut self, containers: &[(Container, Path)]) {
        let mut seen: BTreeMap<&str, Path> = BTreeMap::new();
        for (port, path) in ports(containers) {
            let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) else { continue };
            match seen.get(name) {
                Some(other) => self.say(
                    &path,
                    format_args!(
                        "duplicate port name {name:?} with {other}, services and probes that select ports by name will \
                         use {other}"
                    ),
                ),
                None => {
                    seen.insert(name, path);
                }
            }
        }
    }

    fn pod_affinity(&mut self, spec: &PodSpec, at: &Path) {
        let Some(affinity) = &spec.affinity else { return };
        if let Some(attract) = &affinity.pod_affinity {
            let preferred = attract.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            let preferred: Vec<_> = preferred.map(|term| &term.pod_affinity_term).collect();
            let required = attract.required_during_scheduling_ignored_during_execution.as_deref();
            self.affinity_terms(required.unwrap_or_default(), &preferred, &at.child("podAffinity"));
        }
        if let Some(repel) = &affinity.pod_anti_affinity {
            let preferred = repel.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            let preferred: Vec<_> = preferred.map(|term| &term.pod_affinity_term).collect();
            let required = repel.required_during_scheduling_ignored_during_execution.as_deref();
            self.affinity_terms(required.unwrap_or_default(), &preferred, &at.child("podAntiAffinity"));
        }
    }

    fn affinity_terms(&mut self, required: &[PodAffinityTerm], preferred: &[&PodAffinityTerm], path: &Path) {
        for (index, _) in required.iter().enumerate().filter(|(_, term)| term.label_selector.is_none()) {
            let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").index(index);
            self.say(&path.child("labelSelector"), NO_LABEL_SELECTOR);
        }
        for (index, _) in preferred.iter().enumerate().filter(|(_, term)| term.label_selector.is_none()) {
            let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(index);
            self.say(&path.child("podAffinityTerm").child("labelSelector"), NO_LABEL_SELECTOR);
        }
    }

    fn addresses(&mut self, spec: &PodSpec, at: &Path) {
        let servers = spec.dns_config.iter().flat_map(|config| config.nameservers.iter().flatten()).enumerate();
        let servers = servers.map(|(index, ip)| (at.child("dnsConfig").child("nameservers").index(index), ip));
        let aliases = spec.host_aliases.iter().flatten().enumerate();
        let aliases = aliases.map(|(index, alias)| (at.child("hostAliases").index(index).child("ip"), &alias.ip));
        self.0.extend(servers.chain(aliases).filter_map(|(path, ip)| names::ip_warning(path.as_str(), ip)));
    }
}

fn ports(containers: &[(Container, Path)]) -> impl Iterator<Item = (&ContainerPort, Path)> {
    containers.iter().flat_map(|(container, path)| {
        let path = path.child("ports");
        container.ports.iter().flatten().enumerate().map(move |(index, port)| (port, path.index(index)))
    })
}

/// Indexes of the texts that occurred before.
fn repeats(texts: &[&str]) -> Vec<usize> {
    (0..texts.len()).filter(|index| texts[..*index].contains(&texts[*index])).collect()
}
