//! What a container may learn of its own Pod: fieldRef and resourceFieldRef, for variables and files. Pure.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::{
    pod::{find_container, name, namespace, spec, uid},
    resources::{ResourceList, limit, quantity, request},
};

/// What is known of the Pod only on its node.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
    pub allocatable: ResourceList,
}

/// Value of a field path.
///
/// # Errors
/// The path means nothing.
pub fn field(pod: &Pod, path: &str, place: &Place) -> Result<String, String> {
    let of = spec(pod);
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => name(pod).into(),
        "metadata.namespace" => namespace(pod).into(),
        "metadata.uid" => uid(pod).into(),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => of.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => of.service_account_name.clone().unwrap_or_default(),
        "spec.restartPolicy" => of.restart_policy.clone().unwrap_or_default(),
        "spec.schedulerName" => of.scheduler_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&place.host_ips),
        "status.hostIPs" => place.host_ips.join(","),
        "status.podIP" => first(&place.pod_ips),
        "status.podIPs" => place.pod_ips.join(","),
        path => {
            let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
            let get = |map: Option<&BTreeMap<String, String>>, key: &str| {
                map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
            };
            if let Some(key) = subscript("metadata.labels") {
                get(pod.metadata.labels.as_ref(), key)
            } else if let Some(key) = subscript("metadata.annotations") {
                get(pod.metadata.annotations.as_ref(), key)
            } else {
                return Err(format!("unsupported fieldPath: {path}"));
            }
        }
    })
}

/// `key="value"` lines, sorted, values quoted as Go does.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\x{:02x}", control as u32)),
            other => out.push(other),
        }
    }
    out + "\""
}

/// A container's limit or request in units of the divisor, rounded up. Limits that are not set are the node's.
///
/// # Errors
/// The container or the resource does not exist.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    place: &Place,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match (named, own) {
        (Some(name), _) => {
            find_container(pod, name).map(|(_, container)| container).ok_or(format!("container {name} not found"))?
        }
        (None, Some(own)) => own.clone(),
        (None, None) => return Err("container name is missing".into()),
    };
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (kind, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known = matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    if !known {
        return Err(unsupported());
    }
    let node = || quantity(Some(&place.allocatable), resource);
    let amount = match kind {
        "limits" => limit(&container, resource).filter(|limit| !limit.is_zero()).or_else(node),
        "requests" => request(&container, resource),
        _ => return Err(unsupported()),
    };
    let amount = amount.unwrap_or(Quantity::ZERO);
    let divisor = selector.divisor.as_ref().map(Quantity::of).filter(|divisor| !divisor.is_zero());
    Ok(in_units_of(amount, divisor.unwrap_or(Quantity::units(1)), resource))
}

fn in_units_of(amount: Quantity, divisor: Quantity, resource: &str) -> String {
    // CPU divisors may be milli, all others are whole.
    let (amount, divisor) = match resource {
        "cpu" => (amount.to_milli(), divisor.to_milli()),
        _ => (amount.value(), divisor.value()),
    };
    let (amount, divisor) = (i128::from(amount), i128::from(divisor.max(1)));
    ((amount + divisor - 1) / divisor).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "annotations": {"b": "two\nlines", "a": "1"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]}}))
        .unwrap();
        let place = Place {
            allocatable: [("memory".to_string(), Quantity::bytes(64 << 20).to_text())].into(),
            ..Default::default()
        };
        assert_eq!(field(&pod, "metadata.annotations", &place).unwrap(), "a=\"1\"\nb=\"two\\nlines\"");
        assert_eq!(field(&pod, "metadata.annotations['a']", &place).unwrap(), "1");
        assert!(field(&pod, "spec.nonsense", &place).is_err());
        let selector = |resource: &str, divisor: &str| ResourceFieldSelector {
            container_name: Some("c".into()),
            resource: resource.into(),
            divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.into())),
        };
        let value = |name, divisor| resource(&pod, None, &selector(name, divisor), &place).unwrap();
        assert_eq!(value("limits.cpu", "1"), "2");
        assert_eq!(value("limits.cpu", "1m"), "1500");
        assert_eq!(value("limits.memory", "1Mi"), "64");
        assert_eq!(value("requests.cpu", "1"), "0");
    }
}
