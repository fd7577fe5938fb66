//! From a container of a Pod to what the runtime is asked for. Pure, given the environment and the devices.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Capabilities, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext, VolumeMount,
};

use super::{ContainerKind, container_hash, identity, is_host_network, lifecycle, spec, termination_message};
use crate::{
    environment::expand,
    resources,
    runtime::{
        ContainerConfig, Devices, Image, Mount, MountPropagation, PidNamespace, PodView, Profile, Security, labels,
    },
    volume,
};

/// Everything that the shell has found out before.
pub struct Parts<'a> {
    pub pod: &'a Pod,
    pub kind: ContainerKind,
    pub container: &'a Container,
    pub attempt: u32,
    pub view: &'a PodView,
    pub sandbox_id: &'a str,
    pub image: &'a Image,
    pub environment: BTreeMap<String, String>,
    pub devices: Option<Devices>,
    pub pod_dir: &'a Path,
    pub machine_memory_bytes: i64,
    pub pids: Option<i64>,
    /// Where Localhost seccomp profiles are.
    pub seccomp_dir: &'a Path,
}

/// # Errors
/// The message of CreateContainerConfigError, in upstream's words.
pub fn container_config(parts: &Parts<'_>) -> Result<ContainerConfig, String> {
    let Parts { pod, container, .. } = parts;
    verify_non_root(pod, container, parts.image)?;
    let value_of = |name: &str| parts.environment.get(name).cloned();
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, value_of)).collect()
    };
    let mut environment = parts.environment.clone();
    if let Some(devices) = &parts.devices {
        environment.insert("NVIDIA_VISIBLE_DEVICES".into(), devices.uuids.join(","));
    }
    Ok(ContainerConfig {
        pod: identity(pod),
        sandbox_id: parts.sandbox_id.into(),
        name: container.name.clone(),
        attempt: parts.attempt,
        image: parts.image.id.clone(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        env: environment.into_iter().collect(),
        mounts: mounts(parts)?,
        labels: container_labels(pod, container),
        tty: container.tty.unwrap_or_default(),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        resources: resources::of_container(pod, container, parts.machine_memory_bytes, parts.pids),
        security: security(pod, container, parts.image, parts.seccomp_dir)?,
        host_network: is_host_network(pod),
        host_ipc: spec(pod).host_ipc.unwrap_or_default(),
        pid_namespace: pid_namespace(parts)?,
        devices: parts.devices.clone(),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
    })
}

fn container_labels(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    let text = |text: &Option<String>, default: &str| text.clone().unwrap_or_else(|| default.into());
    let mut all: BTreeMap<String, String> = [
        (labels::HASH, container_hash(container)),
        (labels::IMAGE, container.image.clone().unwrap_or_default()),
        (labels::TERMINATION_MESSAGE_PATH, text(&container.termination_message_path, "/dev/termination-log")),
        (labels::TERMINATION_MESSAGE_POLICY, text(&container.termination_message_policy, "File")),
        (labels::GRACE, lifecycle::grace(pod, lifecycle::Desired::Present).as_secs().to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), value))
    .collect();
    let pre_stop = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(handler) = pre_stop.and_then(|handler| serde_json::to_string(handler).ok()) {
        all.insert(labels::PRE_STOP.into(), handler);
    }
    all
}

fn pid_namespace(parts: &Parts<'_>) -> Result<PidNamespace, String> {
    let of = spec(parts.pod);
    let ephemeral = super::ephemeral_containers(parts.pod).iter().find(|e| e.name == parts.container.name);
    let target = ephemeral.and_then(|ephemeral| ephemeral.target_container_name.as_deref());
    if let Some(target) = target.filter(|target| !target.is_empty()) {
        let running = parts.view.running().find(|container| container.name == target);
        let running = running.ok_or_else(|| format!("unable to find target container {target}"))?;
        return Ok(PidNamespace::Target(running.id.clone()));
    }
    Ok(match (of.host_pid, of.share_process_namespace) {
        (Some(true), _) => PidNamespace::Node,
        (_, Some(true)) => PidNamespace::Pod,
        _ => PidNamespace::Container,
    })
}

fn mounts(parts: &Parts<'_>) -> Result<Vec<Mount>, String> {
    let Parts { container, pod_dir, .. } = parts;
    let mut all = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        all.push(volume_mount(parts, mount)?);
    }
    let taken = |path: &str| all.iter().any(|mount| mount.container_path == path);
    let ours = [("/etc/hosts", "etc-hosts"), ("/etc/resolv.conf", "resolv.conf")];
    let ours: Vec<Mount> = ours
        .into_iter()
        .filter(|(path, _)| !taken(path))
        .map(|(path, file)| Mount { host_path: pod_dir.join(file), container_path: path.into(), ..Default::default() })
        .collect();
    all.extend(ours);
    let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message_path.is_empty() {
        all.push(Mount {
            host_path: termination_message::file(pod_dir, &container.name, parts.attempt),
            container_path: message_path.into(),
            ..Default::default()
        });
    }
    Ok(all)
}

fn volume_mount(parts: &Parts<'_>, mount: &VolumeMount) -> Result<Mount, String> {
    let volume = volume::path_of(parts.pod_dir, parts.pod, &mount.name).ok_or_else(|| {
        format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, parts.container.name)
    })?;
    let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => Some(path.clone()),
        (_, Some(expression)) if !expression.is_empty() => Some(expand_strictly(expression, &parts.environment)?),
        _ => None,
    };
    let host_path: PathBuf = match sub_path {
        Some(sub_path) => volume::sub_path::resolve(&volume, &sub_path)?,
        None => volume,
    };
    let path = &mount.mount_path;
    Ok(Mount {
        host_path,
        container_path: if path.starts_with('/') { path.clone() } else { format!("/{path}") },
        read_only: mount.read_only.unwrap_or_default(),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        },
    })
}

/// A path must not be guessed: every variable in it has to exist.
fn expand_strictly(expression: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let path = expand(expression, |name| {
        environment.get(name).cloned().or_else(|| {
            missing.borrow_mut().get_or_insert_with(|| name.to_string());
            None
        })
    });
    match missing.into_inner() {
        Some(name) => {
            Err(format!("failed to expand subPath expression \"{expression}\": missing value for \"{name}\""))
        }
        None => Ok(path),
    }
}

fn security(pod: &Pod, container: &Container, image: &Image, seccomp_dir: &Path) -> Result<Security, String> {
    let of_pod = spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let Capabilities { add, drop } = own.capabilities.clone().unwrap_or_default();
    let mut groups = of_pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(of_pod.fs_group);
    let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let apparmor = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    let selinux = own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref());
    let selinux = selinux.map(|options| {
        let parts =
            [("user", &options.user), ("role", &options.role), ("type", &options.type_), ("level", &options.level)];
        parts.into_iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}:{value}"))).collect()
    });
    Ok(Security {
        user: user(&of_pod, &own, image),
        supplemental_groups: groups,
        privileged: own.privileged.unwrap_or_default(),
        read_only_root: own.read_only_root_filesystem.unwrap_or_default(),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        capabilities_add: add.unwrap_or_default(),
        capabilities_drop: drop.unwrap_or_default(),
        seccomp: seccomp_profile(seccomp, seccomp_dir)?,
        apparmor: match apparmor.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
            Some(("Unconfined", _)) => Profile::Unconfined,
            Some(("Localhost", Some(name))) => Profile::Localhost(name.into()),
            _ => Profile::RuntimeDefault,
        },
        selinux: selinux.unwrap_or_default(),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

/// Unlike Kubernetes: without any seccompProfile Docker's default applies instead of none, the safer of the two.
fn seccomp_profile(profile: Option<&SeccompProfile>, folder: &Path) -> Result<Profile, String> {
    match profile.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
        Some(("Unconfined", _)) => Ok(Profile::Unconfined),
        Some(("Localhost", Some(file))) => {
            let path = folder.join(file);
            let content = std::fs::read_to_string(&path);
            content
                .map(Profile::Localhost)
                .map_err(|error| format!("cannot load seccomp profile \"{}\": {error}", path.display()))
        }
        _ => Ok(Profile::RuntimeDefault),
    }
}

fn user(of_pod: &PodSecurityContext, own: &SecurityContext, image: &Image) -> Option<String> {
    let user = own.run_as_user.or(of_pod.run_as_user).map(|user| user.to_string());
    let group = own.run_as_group.or(of_pod.run_as_group);
    match (user, group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user),
        (None, Some(group)) => {
            let of_image = image.user.split(':').next().filter(|user| !user.is_empty()).unwrap_or("0");
            Some(format!("{of_image}:{group}"))
        }
        (None, None) => None,
    }
}

fn verify_non_root(pod: &Pod, container: &Container, image: &Image) -> Result<(), String> {
    let of_pod = spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let non_root = own.and_then(|own| own.run_as_non_root).or(of_pod.and_then(|pod| pod.run_as_non_root));
    if non_root != Some(true) {
        return Ok(());
    }
    let which = format!(
        "(pod: \"{}_{}({})\", container: {})",
        super::name(pod),
        super::namespace(pod),
        super::uid(pod),
        container.name
    );
    if let Some(user) = own.and_then(|own| own.run_as_user).or(of_pod.and_then(|pod| pod.run_as_user)) {
        return match user {
            0 => Err(format!("container's runAsUser breaks non-root policy {which}")),
            _ => Ok(()),
        };
    }
    let of_image = image.user.split(':').next().unwrap_or_default();
    match of_image.parse::<i64>() {
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {which}")),
        Ok(_) => Ok(()),
        Err(_) if of_image.is_empty() => Err(format!("container has runAsNonRoot and image will run as root {which}")),
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({of_image}), cannot verify user is non-root {which}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pod: serde_json::Value, image_user: &str) -> Result<ContainerConfig, String> {
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "uid": "u"}, "spec": pod})).unwrap();
        let image = Image { id: "sha256:1".into(), user: image_user.into(), ..Default::default() };
        container_config(&Parts {
            pod: &pod,
            kind: ContainerKind::Regular,
            container: &spec(&pod).containers[0],
            attempt: 1,
            view: &PodView::default(),
            sandbox_id: "s",
            image: &image,
            environment: [("A".to_string(), "x".to_string())].into(),
            devices: Some(Devices { uuids: vec!["GPU-1".into(), "GPU-2".into()], real: false }),
            pod_dir: Path::new("/k/pods/u"),
            machine_memory_bytes: 1 << 30,
            pids: None,
            seccomp_dir: Path::new("/k/seccomp"),
        })
    }

    #[test]
    fn words_are_expanded_and_files_mounted() {
        let config = config(
            serde_json::json!({"volumes": [{"name": "v", "hostPath": {"path": "/data"}}],
                "containers": [{"name": "c", "command": ["run", "$(A)"],
                                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}]}),
            "",
        )
        .unwrap();
        assert_eq!(config.command, ["run", "x"]);
        let mounts: Vec<_> =
            config.mounts.iter().map(|m| format!("{}:{}", m.host_path.display(), m.container_path)).collect();
        assert_eq!(
            mounts,
            [
                "/data:/v",
                "/k/pods/u/etc-hosts:/etc/hosts",
                "/k/pods/u/resolv.conf:/etc/resolv.conf",
                "/k/pods/u/containers/c/1:/dev/termination-log"
            ]
        );
        assert!(config.env.contains(&("NVIDIA_VISIBLE_DEVICES".into(), "GPU-1,GPU-2".into())));
    }

    #[test]
    fn non_root_is_verified_against_the_image() {
        let pod = |context| serde_json::json!({"containers": [{"name": "c", "securityContext": context}]});
        let non_root = serde_json::json!({"runAsNonRoot": true});
        assert!(config(pod(non_root.clone()), "").unwrap_err().contains("image will run as root"));
        assert!(config(pod(non_root.clone()), "web").unwrap_err().contains("non-numeric user (web)"));
        assert!(config(pod(non_root), "1000").is_ok());
        let group = config(pod(serde_json::json!({"runAsGroup": 7})), "5").unwrap();
        assert_eq!(group.security.user.as_deref(), Some("5:7"));
    }
}
