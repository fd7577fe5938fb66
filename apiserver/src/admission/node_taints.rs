//! TaintNodesByCondition: a new Node takes Pods only when it is known to be ready.

use api::{Object, Status, object::ObjectExt};
use async_trait::async_trait;
use serde_json::json;

use super::{Attributes, Operation, Step};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Step for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn admit(&self, attributes: &Attributes<'_>, node: &mut Object) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is_about("", "nodes") {
            return Ok(());
        }
        let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        if !taints.iter().any(|taint| taint.text("/key") == NOT_READY && taint.text("/effect") == "NoSchedule") {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            node["spec"]["taints"] = taints.into();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::Case;

    #[tokio::test]
    async fn a_new_node_is_not_ready() {
        for before in [json!({}), json!({"taints": [{"key": NOT_READY, "effect": "NoSchedule"}]})] {
            let case = Case::create("nodes", json!({"metadata": {"name": "n"}, "spec": before}));
            let node = case.admitted(&TaintNodesByCondition).await.unwrap();
            assert_eq!(node["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
        }
    }
}
