//! What events point at.

use client::events::reference;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::pod::{field_path, find_container};

pub fn about_pod(pod: &Pod) -> ObjectReference {
    ObjectReference { api_version: Some("v1".into()), kind: Some("Pod".into()), ..reference(pod) }
}

/// A container of a Pod, by its place in the spec.
pub fn about_container(pod: &Pod, container: &str) -> ObjectReference {
    let path = find_container(pod, container).map(|(kind, _)| field_path(kind, container));
    ObjectReference { field_path: path, ..about_pod(pod) }
}

/// The node; as upstream its name stands for the uid, so that events are found before and after it registers.
pub fn about_node(name: &str) -> ObjectReference {
    ObjectReference { kind: Some("Node".into()), name: Some(name.into()), uid: Some(name.into()), ..Default::default() }
}
