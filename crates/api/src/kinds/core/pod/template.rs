//! What the kinds that make Pods show of their template.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use serde_json::Value;

/// The cells `Containers` and `Images`.
pub fn container_cells(template: Option<&PodTemplateSpec>) -> [Value; 2] {
    let containers = template.and_then(|template| template.spec.as_ref()).map_or(&[][..], |spec| &spec.containers);
    let joined = |part: fn(&Container) -> &str| containers.iter().map(part).collect::<Vec<_>>().join(",").into();
    [joined(|container| &container.name), joined(|container| container.image.as_deref().unwrap_or_default())]
}

/// The labels that a template gives its Pods.
pub fn template_labels(template: &PodTemplateSpec) -> BTreeMap<String, String> {
    template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default()
}
