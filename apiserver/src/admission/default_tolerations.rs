//! DefaultTolerationSeconds: Pods stay a while on a node that is not ready or not reachable.

use api::{Object, Status, object::ObjectExt};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Operation, Step};

const SECONDS: u32 = 300;
const TAINTS: &[&str] = &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Step for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        let is_write = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !is_write || !attributes.is_about("", "pods") {
            return Ok(());
        }
        let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let missing: Vec<_> = TAINTS.iter().filter(|taint| !tolerations.iter().any(|it| covers(it, taint))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        tolerations.extend(missing.into_iter().map(
            |taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}),
        ));
        pod["spec"]["tolerations"] = tolerations.into();
        Ok(())
    }
}

/// Whether the Pod says itself what it does about the taint.
fn covers(toleration: &Value, taint: &str) -> bool {
    (toleration.text("/key").is_empty() || toleration.text("/key") == taint)
        && matches!(toleration.text("/effect"), "" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::Case;

    async fn keys(tolerations: Value) -> Vec<String> {
        let case = Case::create("pods", json!({"metadata": {"name": "p"}, "spec": {"tolerations": tolerations}}));
        let pod = case.admitted(&DefaultTolerationSeconds).await.unwrap();
        let all = pod["spec"]["tolerations"].as_array().unwrap().clone();
        all.iter().map(|it| format!("{}:{}", it.text("/key"), it["tolerationSeconds"])).collect()
    }

    #[tokio::test]
    async fn what_the_pod_says_stays() {
        let both = ["node.kubernetes.io/not-ready:300", "node.kubernetes.io/unreachable:300"];
        assert_eq!(keys(json!([])).await, both);
        assert_eq!(keys(json!([{"operator": "Exists"}])).await, [":null"]);
        let own = json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]);
        assert_eq!(keys(own).await, ["node.kubernetes.io/not-ready:5", both[1]]);
        let other = json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}]);
        assert_eq!(keys(other).await, ["node.kubernetes.io/not-ready:null", both[0], both[1]]);
    }
}
