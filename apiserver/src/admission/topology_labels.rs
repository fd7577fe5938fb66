//! PodTopologyLabels: a Pod carries the zone and the region of its node.

use api::{Object, Status, object::ObjectExt};
use async_trait::async_trait;

use super::{Attributes, Operation, Step};

const LABELS: &[&str] = &["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

pub(super) struct PodTopologyLabels;

#[async_trait]
impl Step for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    /// The labels of a Binding are copied to its Pod.
    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        let node = match (attributes.is_about("", "pods"), attributes.concerns("", "pods", "binding")) {
            (true, _) => object.text("/spec/nodeName"),
            (_, true) => object.text("/target/name"),
            _ => "",
        };
        let node = Some(node).filter(|name| !name.is_empty());
        let Some(node) = node.and_then(|name| attributes.view.get("", "nodes", "", name)) else { return Ok(()) };
        for label in LABELS {
            if let Some(value) = node.pointer("/metadata/labels").and_then(|labels| labels.get(label)) {
                object["metadata"]["labels"][label] = value.clone();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::Case;

    #[tokio::test]
    async fn a_binding_carries_the_zone_of_its_node() {
        let binding = json!({"metadata": {"name": "p", "namespace": "a"}, "target": {"name": "n"}});
        let node = json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z", "other": "x"}}});
        let case = Case::create("pods", binding).subresource("binding").with("", "nodes", node);
        let binding = case.admitted(&PodTopologyLabels).await.unwrap();
        assert_eq!(binding["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z"}));
    }
}
