//! Who a Pod runs as, and what it may do.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};
use regex::Regex;

use super::{volumes::validate_descending, windows};
use crate::{
    field::{Errors, Path},
    kinds::core::pod::warnings::containers,
    names,
};

const SYSCTL_BYTES_MAX: usize = 253;
const SYSCTL_FORM: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const APP_ARMOR_PROFILE_BYTES_MAX: usize = 4095;

/// A user or a group.
pub fn validate_id(id: Option<i64>, path: &Path, errors: &mut Errors) {
    for message in id.into_iter().flat_map(names::is_id) {
        errors.invalid(path, id, message);
    }
}

fn validate_word(word: Option<&str>, words: &[&str], path: &Path, errors: &mut Errors) {
    if let Some(word) = word.filter(|word| !words.contains(word)) {
        errors.not_supported(path, word, words);
    }
}

/// The context of the Pod; `path` leads to `securityContext`.
pub fn validate_pod(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(context) = &spec.security_context else { return };
    validate_id(context.fs_group, &path.child("fsGroup"), errors);
    validate_id(context.run_as_user, &path.child("runAsUser"), errors);
    validate_id(context.run_as_group, &path.child("runAsGroup"), errors);
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        validate_id(Some(*group), &path.child("supplementalGroups").index(index), errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    validate_sysctls(spec, &path.child("sysctls"), errors);
    let policy = context.fs_group_change_policy.as_deref();
    validate_word(policy, &["Always", "OnRootMismatch"], &path.child("fsGroupChangePolicy"), errors);
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    windows::validate_options(context.windows_options.as_ref(), &path.child("windowsOptions"), errors);
    validate_app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
    let policy = context.supplemental_groups_policy.as_deref();
    validate_word(policy, &["Merge", "Strict"], &path.child("supplementalGroupsPolicy"), errors);
    let policy = context.se_linux_change_policy.as_deref();
    validate_word(policy, &["MountOption", "Recursive"], &path.child("seLinuxChangePolicy"), errors);
}

/// The namespace that a kernel parameter belongs to, where it belongs to one.
fn namespace_of(sysctl: &str) -> &'static str {
    let name = match sysctl.find(['.', '/']) {
        Some(at) if sysctl.as_bytes()[at] == b'/' => sysctl.replace('/', "."),
        _ => sysctl.to_owned(),
    };
    let name = name.split('*').next().unwrap_or_default();
    let in_ipc = ["kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"];
    let old_in_ipc = ["kernel.shm", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.msg"];
    match name {
        name if name.starts_with("net.") => "net",
        name if name.starts_with("fs.mqueue.") || in_ipc.contains(&name) || old_in_ipc.contains(&name) => "ipc",
        _ => "",
    }
}

fn validate_sysctls(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    static FORM: LazyLock<Regex> = LazyLock::new(|| Regex::new(SYSCTL_FORM).expect("a constant expression"));
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let (name, path) = (sysctl.name.as_str(), path.index(index).child("name"));
        if name.is_empty() {
            errors.required(&path, "");
        } else if name.len() > SYSCTL_BYTES_MAX || !FORM.is_match(name) {
            let why = format!("must have at most {SYSCTL_BYTES_MAX} characters and match regex {SYSCTL_FORM}");
            errors.invalid(&path, name, why);
        } else if sysctls[..index].iter().any(|other| other.name == name) {
            errors.duplicate(&path, name);
        }
        match namespace_of(name) {
            "net" if spec.host_network == Some(true) => {
                errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
            }
            "ipc" if spec.host_ipc == Some(true) => {
                errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
            }
            _ => {}
        }
    }
}

fn validate_seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    match profile.type_.as_str() {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        other => errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    let at = path.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => errors.required(&at, "must be set when seccomp type is Localhost"),
        (Some(file), true) => validate_descending(file, &at, errors),
        (Some(_), false) => errors.invalid(&at, profile, "can only be set when seccomp type is Localhost"),
        (None, false) => {}
    }
}

fn validate_app_armor(profile: Option<&AppArmorProfile>, path: &Path, errors: &mut Errors) {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => errors.required(&at, MISSING),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&at, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                errors.required(&at, MISSING);
            }
            if name.len() > APP_ARMOR_PROFILE_BYTES_MAX {
                errors.too_long(&at, APP_ARMOR_PROFILE_BYTES_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(&at, name, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => {
            errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}

/// The context of a container; `host_users` is whether its users are the host's.
pub fn validate_container(context: Option<&SecurityContext>, host_users: bool, path: &Path, errors: &mut Errors) {
    let Some(context) = context else { return };
    validate_id(context.run_as_user, &path.child("runAsUser"), errors);
    validate_id(context.run_as_group, &path.child("runAsGroup"), errors);
    if let Some(mount) = context.proc_mount.as_deref() {
        let path = path.child("procMount");
        validate_word(Some(mount), &["Default", "Unmasked"], &path, errors);
        if host_users && mount == "Unmasked" {
            errors.invalid(&path, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context, why);
        }
        let added = context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context, why);
        }
    }
    windows::validate_options(context.windows_options.as_ref(), &path.child("windowsOptions"), errors);
    validate_app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
}

/// Users of its own exclude the host's namespaces; `path` leads to the spec.
pub fn validate_host_users(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    const WHY: &str = "when `hostUsers` is false";
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)];
    for (field, _) in shared.iter().filter(|(_, is_shared)| *is_shared == Some(true)) {
        errors.forbidden(&path.child(field), WHY);
    }
    for (container, path) in containers(spec, path) {
        if container.volume_devices.is_some_and(|devices| !devices.is_empty()) {
            errors.forbidden(&path.child("volumeDevices"), WHY);
        }
    }
}
