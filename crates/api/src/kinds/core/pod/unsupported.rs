//! What the API takes and no kubelet of ours does yet. This list is the whole of it: each entry becomes a warning.
//!
//! An entry goes when the kubelet (or the scheduler) learns it.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, Volume};

use super::ephemeral;
use crate::field::{Errors, Path};

/// A field that is ignored: whether a Pod uses it, and its name below `spec`.
type Field<T> = (&'static str, fn(&T) -> bool);

const SPEC: &[Field<PodSpec>] = &[
    ("hostUsers", |spec| spec.host_users == Some(false)),
    ("os", |spec| spec.os.as_ref().is_some_and(|os| os.name == "windows")),
    ("runtimeClassName", |spec| spec.runtime_class_name.is_some()),
    ("schedulingGroup", |spec| spec.scheduling_group.is_some()),
    ("securityContext.fsGroupChangePolicy", |spec| of_pod(spec, |context| context.fs_group_change_policy.is_some())),
    ("securityContext.seLinuxChangePolicy", |spec| of_pod(spec, |context| context.se_linux_change_policy.is_some())),
    ("securityContext.supplementalGroupsPolicy", |spec| {
        of_pod(spec, |context| context.supplemental_groups_policy.as_deref() == Some("Strict"))
    }),
    ("securityContext.windowsOptions", |spec| of_pod(spec, |context| context.windows_options.is_some())),
];

const CONTAINER: &[Field<Container>] = &[
    ("resizePolicy", |container| container.resize_policy.is_some()),
    ("restartPolicyRules", |container| {
        container.restart_policy_rules.iter().flatten().any(|rule| rule.action == "RestartAllContainers")
    }),
    ("securityContext.windowsOptions", |container| {
        container.security_context.as_ref().is_some_and(|context| context.windows_options.is_some())
    }),
    ("volumeDevices", |container| container.volume_devices.is_some()),
    ("volumeMounts.recursiveReadOnly", |container| {
        container.volume_mounts.iter().flatten().any(|mount| mount.recursive_read_only.as_deref() == Some("Enabled"))
    }),
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

fn of_pod(spec: &PodSpec, uses: fn(&PodSecurityContext) -> bool) -> bool {
    spec.security_context.as_ref().is_some_and(uses)
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
            collect(CONTAINER, container, &path.child(list).index(index), "has no effect", &mut warnings);
        }
    }
    for (index, entry) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.child("ephemeralContainers").index(index);
        collect(CONTAINER, &ephemeral::as_container(entry), &path, "has no effect", &mut warnings);
    }
    warnings
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
