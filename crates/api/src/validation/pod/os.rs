//! `spec.os`: what a Pod of one system may not set.

use k8s_openapi::api::core::v1::PodSpec;

use crate::{
    field::{Errors, Path},
    kinds::core::pod::warnings::containers,
};

pub fn validate(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None => {}
        Some("") => errors.required(&path.child("os").child("name"), ""),
        Some("linux") => validate_linux(spec, path, errors),
        Some("windows") => validate_windows(spec, path, errors),
        Some(other) => errors.not_supported(&path.child("os"), other, &["linux", "windows"]),
    }
}

fn validate_linux(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
        errors.forbidden(&path.child("securityContext").child("windowsOptions"), WHY);
    }
    for (container, path) in containers(spec, path) {
        if container.security_context.is_some_and(|context| context.windows_options.is_some()) {
            errors.forbidden(&path.child("securityContext").child("windowsOptions"), WHY);
        }
    }
}

fn validate_windows(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    const WHY: &str = "cannot be set for a windows pod";
    let mut forbid = |fields: &[(&str, bool)], path: &Path| {
        for (field, _) in fields.iter().filter(|(_, is_set)| *is_set) {
            errors.forbidden(&path.child(field), WHY);
        }
    };
    let context = spec.security_context.clone().unwrap_or_default();
    let at = path.child("securityContext");
    forbid(
        &[
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
        ],
        &at,
    );
    forbid(
        &[
            ("hostUsers", spec.host_users.is_some()),
            ("hostPID", spec.host_pid == Some(true)),
            ("hostIPC", spec.host_ipc == Some(true)),
        ],
        path,
    );
    forbid(
        &[
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("fsGroup", context.fs_group.is_some()),
            ("fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
            ("sysctls", context.sysctls.is_some_and(|sysctls| !sysctls.is_empty())),
        ],
        &at,
    );
    forbid(&[("shareProcessNamespace", spec.share_process_namespace.is_some())], path);
    forbid(
        &[
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
            ("supplementalGroups", context.supplemental_groups.is_some()),
            ("supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
            ("seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
        ],
        &at,
    );
    for (container, path) in containers(spec, path) {
        let Some(context) = container.security_context else { continue };
        let fields = [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("capabilities", context.capabilities.is_some()),
            ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
            ("privileged", context.privileged.is_some()),
            ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
            ("procMount", context.proc_mount.is_some()),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
        ];
        forbid(&fields, &path.child("securityContext"));
    }
}
