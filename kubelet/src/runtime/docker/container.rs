//! A container of a Pod as Docker's container: pure mapping of [`ContainerConfig`].

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, Mount as DockerMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType,
};

use super::{
    capabilities::Capabilities,
    sandbox::{log_config, never_restart},
};
use crate::runtime::{ContainerConfig, Mount, MountPropagation, PidNamespace, Profile, Security, labels};

/// Names by which a container reaches what the sandbox holds.
fn of_sandbox(config: &ContainerConfig) -> String {
    format!("container:{}", config.sandbox_id)
}

pub fn create_body(config: &ContainerConfig, node: &str, capabilities: &Capabilities) -> ContainerCreateBody {
    let mut labels = labels::of_pod(&config.pod, labels::TYPE_CONTAINER);
    labels.insert(labels::CONTAINER_NAME.into(), config.name.clone());
    labels.insert(labels::RESTART_COUNT.into(), config.attempt.to_string());
    labels.insert(labels::SANDBOX_ID.into(), config.sandbox_id.clone());
    labels.insert(labels::NODE.into(), node.into());
    labels.extend(config.labels.clone());
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    ContainerCreateBody {
        image: Some(config.image.clone()),
        entrypoint: some(&config.command),
        // A command without arguments must not get the image's arguments.
        cmd: if config.command.is_empty() { some(&config.args) } else { Some(config.args.clone()) },
        working_dir: config.working_dir.clone(),
        env: Some(config.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: config.security.user.clone(),
        labels: Some(labels.into_iter().collect()),
        tty: Some(config.tty),
        open_stdin: Some(config.stdin),
        stdin_once: Some(config.stdin_once),
        stop_signal: config.stop_signal.clone(),
        // The image's own health check would only burn cycles: probes are the kubelet's.
        healthcheck: Some(bollard::models::HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        host_config: Some(host_config(config, capabilities)),
        ..Default::default()
    }
}

fn host_config(config: &ContainerConfig, capabilities: &Capabilities) -> HostConfig {
    let resources = &config.resources;
    let mut host = HostConfig {
        network_mode: Some(if config.host_network { "host".into() } else { of_sandbox(config) }),
        ipc_mode: Some(if config.host_ipc { "host".into() } else { of_sandbox(config) }),
        pid_mode: match &config.pid_namespace {
            PidNamespace::Container => None,
            PidNamespace::Pod => Some(of_sandbox(config)),
            PidNamespace::Node => Some("host".into()),
            PidNamespace::Target(id) => Some(format!("container:{id}")),
        },
        mounts: Some(config.mounts.iter().map(bind).collect()),
        cpu_shares: resources.cpu_shares,
        nano_cpus: resources.nano_cpus,
        memory: resources.memory_bytes,
        // Limit equals limit: without this Docker would allow as much swap again.
        memory_swap: resources.memory_bytes,
        pids_limit: resources.pids,
        oom_score_adj: Some(if capabilities.may_lower_oom_score() {
            resources.oom_score_adj
        } else {
            resources.oom_score_adj.max(0)
        }),
        readonly_rootfs: Some(config.security.read_only_root),
        group_add: (!config.security.supplemental_groups.is_empty())
            .then(|| config.security.supplemental_groups.iter().map(i64::to_string).collect()),
        restart_policy: Some(never_restart()),
        log_config: Some(log_config()),
        device_requests: config.devices.as_ref().filter(|devices| devices.real).map(|devices| {
            vec![DeviceRequest {
                driver: Some("nvidia".into()),
                device_ids: Some(devices.uuids.clone()),
                capabilities: Some(vec![vec!["gpu".into()]]),
                ..Default::default()
            }]
        }),
        ..Default::default()
    };
    apply_security(&mut host, &config.security, capabilities);
    host
}

fn apply_security(host: &mut HostConfig, security: &Security, capabilities: &Capabilities) {
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_string());
    }
    if security.privileged {
        if capabilities.missing().is_empty() {
            host.privileged = Some(true);
        } else {
            // Unlike Kubernetes: where the machine itself lacks capabilities, Docker refuses `--privileged`;
            // all that the machine has is the most a container can get.
            host.cap_add = Some(vec!["ALL".into()]);
            host.cap_drop = Some(capabilities.missing().to_vec());
            host.device_cgroup_rules = Some(vec!["a *:* rwm".into()]);
            host.devices = Some(vec![DeviceMapping {
                path_on_host: Some("/dev".into()),
                path_in_container: Some("/dev".into()),
                cgroup_permissions: Some("rwm".into()),
            }]);
            options.extend(["seccomp=unconfined".into(), "apparmor=unconfined".into()]);
            unmask(host);
        }
        host.security_opt = Some(options);
        return;
    }
    host.cap_add = Some(capabilities.possible(&security.capabilities_add));
    host.cap_drop = Some(if security.capabilities_add.iter().any(|name| name.eq_ignore_ascii_case("ALL")) {
        [&security.capabilities_drop[..], capabilities.missing()].concat()
    } else {
        security.capabilities_drop.clone()
    });
    match &security.seccomp {
        Profile::RuntimeDefault => {}
        Profile::Unconfined => options.push("seccomp=unconfined".into()),
        // The content, read by the caller: Docker's API takes no path.
        Profile::Localhost(content) => options.push(format!("seccomp={content}")),
    }
    match &security.apparmor {
        Profile::RuntimeDefault => {}
        Profile::Unconfined => options.push("apparmor=unconfined".into()),
        Profile::Localhost(name) => options.push(format!("apparmor={name}")),
    }
    options.extend(security.selinux.iter().map(|label| format!("label={label}")));
    if security.unmasked_proc {
        unmask(host);
    }
    host.security_opt = Some(options);
}

/// procMount: Unmasked.
fn unmask(host: &mut HostConfig) {
    host.masked_paths = Some(Vec::new());
    host.readonly_paths = Some(Vec::new());
}

fn bind(mount: &Mount) -> DockerMount {
    DockerMount {
        typ: Some(MountType::BIND),
        source: Some(mount.host_path.to_string_lossy().into_owned()),
        target: Some(mount.container_path.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(match mount.propagation {
                MountPropagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
                MountPropagation::HostToContainer => MountBindOptionsPropagationEnum::RSLAVE,
                MountPropagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(security: Security, bounding: u64) -> HostConfig {
        let config = ContainerConfig { sandbox_id: "s".into(), security, ..Default::default() };
        create_body(&config, "n", &Capabilities::from_bounding_set(bounding)).host_config.unwrap()
    }

    #[test]
    fn privileged_takes_what_the_machine_has() {
        let privileged = Security { privileged: true, ..Default::default() };
        assert_eq!(host(privileged.clone(), u64::MAX).privileged, Some(true));
        let limited = host(privileged, !(1 << 24));
        assert_eq!(limited.privileged, None);
        assert_eq!(limited.cap_drop, Some(vec!["SYS_RESOURCE".to_string()]));
    }

    #[test]
    fn a_command_hides_the_arguments_of_the_image() {
        let config = ContainerConfig { command: vec!["sleep".into()], ..Default::default() };
        let body = create_body(&config, "n", &Capabilities::from_bounding_set(u64::MAX));
        assert_eq!((body.entrypoint, body.cmd), (Some(vec!["sleep".into()]), Some(vec![])));
        let body = create_body(&ContainerConfig::default(), "n", &Capabilities::from_bounding_set(u64::MAX));
        assert_eq!((body.entrypoint, body.cmd), (None, None));
    }
}
