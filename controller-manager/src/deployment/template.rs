//! The Pod template: its hash, the name it gives a ReplicaSet, and when two are the same.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::PodTemplateSpec,
};
use kube::ResourceExt;
use serde_json::Value;

/// Keeps the Pods of a Deployment's ReplicaSets apart.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// The longest name of an object.
const NAME_BYTES_MAX: usize = 253;
/// Letters and digits that spell no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short hash of the template. After a collision `status.collisionCount` makes it another one.
pub(super) fn hash(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let mut text = template.map(normal_form).unwrap_or_default().to_string();
    if let Some(count) = deployment.status.as_ref().and_then(|status| status.collision_count) {
        text.push_str(&count.to_string());
    }
    let digits = fnv1a(text.as_bytes()).to_string();
    digits.bytes().map(|digit| ALPHABET[usize::from(digit) % ALPHABET.len()] as char).collect()
}

/// 32-bit FNV-1a: short, stable between versions, and not meant to resist anybody.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The name of the ReplicaSet for the present template: the same for the same template.
pub(super) fn replica_set_name(deployment: &Deployment) -> String {
    let (mut name, hash) = (deployment.name_any(), hash(deployment));
    name.truncate(NAME_BYTES_MAX - hash.len() - 1);
    format!("{name}-{hash}")
}

/// Whether a ReplicaSet's template is the Deployment's, but for the hash label.
pub(super) fn matches(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
    let given = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    wanted.zip(given).is_some_and(|(wanted, given)| normal_form(wanted) == normal_form(given))
}

/// As JSON, without the hash label, and without what says nothing: null, `{}` and `[]` of metadata.
fn normal_form(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        meta.creation_timestamp = None;
        for map in [&mut meta.labels, &mut meta.annotations] {
            if let Some(entries) = map {
                entries.remove(HASH_LABEL);
            }
            if map.as_ref().is_some_and(|entries| entries.is_empty()) {
                *map = None;
            }
        }
    }
    serde_json::to_value(&template).unwrap_or_default()
}
