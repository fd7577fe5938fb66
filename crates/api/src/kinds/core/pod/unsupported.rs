//! What the API takes and no kubelet of ours does yet. This list is the whole of it: each entry becomes a warning.
//!
//! An entry goes when the kubelet (or the scheduler) learns it.

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext, Volume};

use super::ephemeral;
use crate::field::{Errors, Path};

/// A field that is ignored: whether a Pod uses it, and its name below `spec`.
type Field<T> = (&'static str, fn(&T) -> bool);

const SPEC: &[Field<PodSpec>] = &[
    ("hostUsers", |spec| spec.host_users == Some(false)),
    ("hostnameOverride", |spec| spec.hostname_override.is_some()),
    ("os", |spec| spec.os.as_ref().is_some_and(|os| os.name == "windows")),
    ("runtimeClassName", |spec| spec.runtime_class_name.is_some()),
    ("schedulingGroup", |spec| spec.scheduling_group.is_some()),
    ("setHostnameAsFQDN", |spec| spec.set_hostname_as_fqdn == Some(true)),
    ("securityContext.appArmorProfile", |spec| of_pod(spec, |context| context.app_armor_profile.is_some())),
    ("securityContext.seLinuxOptions", |spec| of_pod(spec, |context| context.se_linux_options.is_some())),
    ("securityContext.windowsOptions", |spec| of_pod(spec, |context| context.windows_options.is_some())),
];

const CONTAINER: &[Field<Container>] = &[
    ("lifecycle.stopSignal", |container| container.lifecycle.as_ref().is_some_and(|hooks| hooks.stop_signal.is_some())),
    ("livenessProbe.grpc", |container| container.liveness_probe.as_ref().is_some_and(|probe| probe.grpc.is_some())),
    ("readinessProbe.grpc", |container| container.readiness_probe.as_ref().is_some_and(|probe| probe.grpc.is_some())),
    ("startupProbe.grpc", |container| container.startup_probe.as_ref().is_some_and(|probe| probe.grpc.is_some())),
    ("restartPolicyRules", |container| container.restart_policy_rules.is_some()),
    ("securityContext.appArmorProfile", |container| of_container(container, |own| own.app_armor_profile.is_some())),
    ("securityContext.procMount", |container| of_container(container, |own| own.proc_mount.is_some())),
    ("securityContext.seLinuxOptions", |container| of_container(container, |own| own.se_linux_options.is_some())),
    ("securityContext.windowsOptions", |container| of_container(container, |own| own.windows_options.is_some())),
    ("volumeDevices", |container| container.volume_devices.is_some()),
];

const VOLUME: &[Field<Volume>] = &[
    ("awsElasticBlockStore", |volume| volume.aws_elastic_block_store.is_some()),
    ("azureDisk", |volume| volume.azure_disk.is_some()),
    ("azureFile", |volume| volume.azure_file.is_some()),
    ("cinder", |volume| volume.cinder.is_some()),
    ("csi", |volume| volume.csi.is_some()),
    ("ephemeral", |volume| volume.ephemeral.is_some()),
    ("fc", |volume| volume.fc.is_some()),
    ("flexVolume", |volume| volume.flex_volume.is_some()),
    ("gcePersistentDisk", |volume| volume.gce_persistent_disk.is_some()),
    ("image", |volume| volume.image.is_some()),
    ("iscsi", |volume| volume.iscsi.is_some()),
    ("nfs", |volume| volume.nfs.is_some()),
    ("persistentVolumeClaim", |volume| volume.persistent_volume_claim.is_some()),
    ("portworxVolume", |volume| volume.portworx_volume.is_some()),
    ("vsphereVolume", |volume| volume.vsphere_volume.is_some()),
];

fn of_pod(spec: &PodSpec, uses: fn(&k8s_openapi::api::core::v1::PodSecurityContext) -> bool) -> bool {
    spec.security_context.as_ref().is_some_and(uses)
}

fn of_container(container: &Container, uses: fn(&SecurityContext) -> bool) -> bool {
    container.security_context.as_ref().is_some_and(uses)
}

/// One sentence for each field that will have no effect. `path` leads to the spec.
pub fn warnings(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    collect(SPEC, spec, path, "has no effect", &mut warnings);
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.child("volumes").index(index);
        collect(VOLUME, volume, &path, "is not mounted: the Pod will not start", &mut warnings);
        for (index, source) in volume.projected.iter().flat_map(|all| all.sources.iter().flatten()).enumerate() {
            let path = path.child("projected").child("sources").index(index);
            if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                warnings.push(sentence(&path, "is not mounted: the Pod will not start"));
            }
        }
    }
    let init_containers = spec.init_containers.as_deref().unwrap_or_default();
    for (list, containers) in [("initContainers", init_containers), ("containers", &spec.containers)] {
        for (index, container) in containers.iter().enumerate() {
            container_warnings(container, &path.child(list).index(index), &mut warnings);
        }
    }
    for (index, entry) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.child("ephemeralContainers").index(index);
        container_warnings(&ephemeral::as_container(entry), &path, &mut warnings);
    }
    warnings
}

fn container_warnings(container: &Container, path: &Path, warnings: &mut Vec<String>) {
    collect(CONTAINER, container, path, "has no effect", warnings);
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if variable.value_from.as_ref().is_some_and(|source| source.file_key_ref.is_some()) {
            let path = path.child("env").index(index).child("valueFrom").child("fileKeyRef");
            warnings.push(sentence(&path, "has no effect"));
        }
    }
}

fn collect<T>(fields: &[Field<T>], object: &T, path: &Path, effect: &str, warnings: &mut Vec<String>) {
    let used = fields.iter().filter(|(_, is_used)| is_used(object));
    warnings.extend(used.map(|(name, _)| sentence(&path.child(name), effect)));
}

fn sentence(path: &Path, effect: &str) -> String {
    format!("{path}: not supported by Skiff yet, {effect}")
}

/// What would be dangerous to ignore is refused: a container without the device it claims.
pub fn refuse(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        errors.forbidden(
            &path.child("resourceClaims"),
            "not supported by Skiff yet: no driver would prepare the devices",
        );
    }
}
