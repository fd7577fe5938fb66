//! NodeRestriction: a kubelet writes its own Node, its own Lease, and what belongs to its own Pods.

use std::collections::BTreeSet;

use api::{Object, Status, object::ObjectExt, status::GroupResource, validation::pod::MIRROR_POD};
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Step};
use crate::auth::node::node_of;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Labels of these domains say what may run on a node: no kubelet sets them.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes' own domains that kubelets may set.
const KUBELET_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const KUBELET_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) struct NodeRestriction;

#[async_trait]
impl Step for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Object) -> Result<(), Status> {
        let Some(node) = node_of(attributes.user) else { return Ok(()) };
        let kind = attributes.kind;
        match (kind.group.as_str(), kind.plural.as_str(), attributes.subresource) {
            ("", "nodes", _) => node_write(attributes, node, object),
            ("", "pods", "") => pod_write(attributes, node, object),
            ("", "pods", "status") => pod_status(attributes, node, object),
            ("", "pods", "eviction") => eviction(attributes, node),
            ("", "pods", _) => Err(attributes.forbidden(format!(
                "unexpected pod subresource {:?}, only 'status' and 'eviction' are allowed",
                attributes.subresource
            ))),
            ("", "serviceaccounts", "token") => token(attributes, node, object),
            ("coordination.k8s.io", "leases", _) => lease(attributes, node),
            ("storage.k8s.io", "csinodes", _) if attributes.name != node => {
                Err(attributes.forbidden("can only access CSINode with the same name as the requesting node"))
            }
            ("resource.k8s.io", "resourceslices", _) if object.text("/spec/nodeName") != node => {
                let action = if attributes.operation == Operation::Delete { "delete" } else { "create" };
                let why = format!("can only {action} ResourceSlice with the same NodeName as the requesting node");
                Err(attributes.forbidden(why))
            }
            _ => Ok(()),
        }
    }
}

fn node_write(attributes: &Attributes<'_>, node: &str, object: &Object) -> Result<(), Status> {
    if attributes.name != node {
        let other = attributes.name;
        return Err(attributes.forbidden(format!("node {node:?} is not allowed to modify node {other:?}")));
    }
    match (attributes.operation, attributes.old) {
        (Operation::Create, _) => {
            let forbidden = forbidden_labels(object, &Value::Null);
            if !forbidden.is_empty() {
                let why = format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", "));
                return Err(attributes.forbidden(why));
            }
        }
        (Operation::Update, Some(old)) => {
            let differs = |pointer| non_null(object.pointer(pointer)) != non_null(old.pointer(pointer));
            if differs("/spec/taints") {
                return Err(attributes.forbidden(format!("node {node:?} is not allowed to modify taints")));
            }
            if differs("/metadata/ownerReferences") {
                return Err(attributes.forbidden(format!("node {node:?} is not allowed to modify ownerReferences")));
            }
            let forbidden = forbidden_labels(object, old);
            if !forbidden.is_empty() {
                return Err(attributes.forbidden(format!("is not allowed to modify labels: {}", forbidden.join(", "))));
            }
        }
        _ => {}
    }
    Ok(())
}

fn non_null(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

/// Labels that differ and are not for kubelets to set.
fn forbidden_labels(new: &Object, old: &Object) -> Vec<String> {
    let (new, old) = (new.object_meta().labels.unwrap_or_default(), old.object_meta().labels.unwrap_or_default());
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let changed = keys.into_iter().filter(|key| new.get(*key) != old.get(*key));
    changed.filter(|key| is_forbidden_label(key)).cloned().collect()
}

fn is_forbidden_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_within =
        |parent: &str| domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let is_for_kubelets = KUBELET_LABELS.contains(&key) || KUBELET_DOMAINS.iter().any(|parent| is_within(parent));
    is_within(RESTRICTED_DOMAIN) || ((is_within("kubernetes.io") || is_within("k8s.io")) && !is_for_kubelets)
}

fn pod_write(attributes: &Attributes<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    let is_own = pod.text("/spec/nodeName") == node;
    match attributes.operation {
        Operation::Create => new_pod(attributes, node, pod, is_own),
        Operation::Delete if is_own => Ok(()),
        Operation::Delete => {
            Err(attributes.forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        Operation::Update | Operation::Connect => Err(attributes.forbidden(format!(
            "unexpected operation \"{}\", node {node:?} can only create and delete mirror pods",
            if attributes.operation == Operation::Update { "UPDATE" } else { "CONNECT" }
        ))),
    }
}

fn new_pod(attributes: &Attributes<'_>, node: &str, pod: &Object, is_own: bool) -> Result<(), Status> {
    let refuse = |why: String| Err(attributes.forbidden(why));
    let annotations = pod.pointer("/metadata/annotations");
    if annotations.and_then(|annotations| annotations.get(MIRROR_POD)).is_none() {
        return refuse(format!(
            "pod does not have {MIRROR_POD:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if !is_own {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let owner = match owners {
        [owner] => owner,
        [] => return refuse(format!("node {node:?} can only create pods with an owner reference set to itself")),
        _ => return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if (owner.text("/apiVersion"), owner.text("/kind"), owner.text("/name")) != ("v1", "Node", node) {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let nodes = GroupResource { group: "", resource: "nodes" };
    let object = attributes.view.get("", "nodes", "", node).ok_or_else(|| Status::not_found(nodes, node))?;
    if owner.text("/uid") != object.uid() {
        return refuse(format!("node {node} UID mismatch: expected {} got {}", owner.text("/uid"), object.uid()));
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let references = ["secret", "configMap", "persistentVolumeClaim", "projected", "ephemeral"];
    for volume in volumes {
        if let Some(kind) = references.iter().find(|kind| volume.get(**kind).is_some()) {
            return refuse(format!("node {node:?} can not create pods that reference {}s", kind.to_lowercase()));
        }
    }
    Ok(())
}

fn pod_status(attributes: &Attributes<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    let Some(old) = attributes.old else { return Ok(()) };
    if old.text("/spec/nodeName") != node {
        let why = format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself");
        return Err(attributes.forbidden(why));
    }
    if pod.object_meta().labels.unwrap_or_default() != old.object_meta().labels.unwrap_or_default() {
        return Err(attributes.forbidden(format!("node {node:?} cannot update labels through pod status")));
    }
    Ok(())
}

fn eviction(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let pod = attributes.view.get("", "pods", attributes.namespace, attributes.name);
    let pod = pod.ok_or_else(|| Status::not_found(attributes.kind.group_resource(), attributes.name))?;
    if pod.text("/spec/nodeName") != node {
        return Err(attributes.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself")));
    }
    Ok(())
}

/// Tokens for kubelets are bound to a Pod of theirs.
fn token(attributes: &Attributes<'_>, node: &str, request: &Object) -> Result<(), Status> {
    let reference = request.pointer("/spec/boundObjectRef").cloned().unwrap_or_default();
    let name = reference.text("/name");
    if reference.text("/apiVersion") != "v1" || reference.text("/kind") != "Pod" || name.is_empty() {
        return Err(attributes.forbidden("node requested token not bound to a pod"));
    }
    let uid = reference.text("/uid");
    if uid.is_empty() {
        return Err(attributes.forbidden("node requested token with a pod binding without a uid"));
    }
    let pods = GroupResource { group: "", resource: "pods" };
    let pod =
        attributes.view.get("", "pods", attributes.namespace, name).ok_or_else(|| Status::not_found(pods, name))?;
    if uid != pod.uid() {
        return Err(attributes.forbidden(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        )));
    }
    if pod.text("/spec/nodeName") != node {
        return Err(attributes.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    validate_audience(attributes, request, &pod)
}

/// The audience must be one that a volume of the Pod asks for.
fn validate_audience(attributes: &Attributes<'_>, request: &Object, pod: &Object) -> Result<(), Status> {
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let wanted = match audiences {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err(attributes.forbidden("node may only request 0 or 1 audiences")),
    };
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let sources = volumes.filter_map(|volume| volume.pointer("/projected/sources")?.as_array()).flatten();
    let mut tokens = sources.filter_map(|source| source.get("serviceAccountToken"));
    if tokens.any(|token| token.text("/audience") == wanted) {
        return Ok(());
    }
    let user = &attributes.user.name;
    let why = format!(
        "audience {wanted:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    );
    Err(attributes.forbidden(why))
}

fn lease(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if attributes.namespace != LEASE_NAMESPACE {
        let why = format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace");
        return Err(attributes.forbidden(why));
    }
    if attributes.name != node {
        return Err(attributes.forbidden("can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::Case;

    async fn verdict(case: Case) -> String {
        let result = case.by("system:node:n1", &["system:nodes"]).validated(&NodeRestriction).await;
        result.map_or_else(
            |status| status.message.split(" is forbidden: ").last().unwrap().to_owned(),
            |()| "allowed".into(),
        )
    }

    #[tokio::test]
    async fn a_kubelet_writes_its_own_node_only() {
        let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {}});
        let usual = json!({"kubernetes.io/hostname": "n1", "mine": "x", "node.kubernetes.io/x": "y"});
        assert_eq!(verdict(Case::create("nodes", node("n1", usual.clone()))).await, "allowed");
        let other = "node \"n1\" is not allowed to modify node \"n2\"";
        assert_eq!(verdict(Case::create("nodes", node("n2", usual.clone()))).await, other);
        let bad = json!({"node-role.kubernetes.io/x": "", "node-restriction.kubernetes.io/y": ""});
        assert_eq!(
            verdict(Case::create("nodes", node("n1", bad))).await,
            "node \"n1\" is not allowed to set the following labels: node-restriction.kubernetes.io/y, \
             node-role.kubernetes.io/x"
        );
        let mut tainted = node("n1", usual.clone());
        tainted["spec"]["taints"] = json!([{"key": "k"}]);
        let case = Case::update_in("", "nodes", node("n1", usual), tainted);
        assert_eq!(verdict(case).await, "node \"n1\" is not allowed to modify taints");
    }

    #[tokio::test]
    async fn a_kubelet_touches_its_own_pods_only() {
        let pod =
            |node: &str| json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"}, "spec": {"nodeName": node}});
        assert_eq!(verdict(Case::delete("pods", pod("n1"))).await, "allowed");
        assert_eq!(
            verdict(Case::delete("pods", pod("n2"))).await,
            "node \"n1\" can only delete pods with spec.nodeName set to itself"
        );
        let status = |node: &str| Case::update_in("", "pods", pod(node), pod(node)).subresource("status");
        assert_eq!(verdict(status("n1")).await, "allowed");
        assert!(verdict(status("n2")).await.contains("can only update pod status"));
        let plain =
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods";
        assert_eq!(verdict(Case::create("pods", pod("n1"))).await, plain);
    }

    #[tokio::test]
    async fn tokens_are_bound_to_pods_of_the_node() {
        let sources = json!([{"serviceAccountToken": {"path": "token"}}]);
        let pod = |node: &str| {
            json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"},
                "spec": {"nodeName": node, "volumes": [{"projected": {"sources": sources}}]}})
        };
        let request = |audiences: Value| {
            let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
            let request = json!({"metadata": {"name": "s", "namespace": "a"},
                "spec": {"boundObjectRef": bound, "audiences": audiences}});
            Case::create("serviceaccounts", request).subresource("token")
        };
        assert_eq!(verdict(request(json!([])).with("", "pods", pod("n1"))).await, "allowed");
        assert!(verdict(request(json!([])).with("", "pods", pod("n2"))).await.contains("on a different node"));
        assert!(
            verdict(request(json!(["vault"])).with("", "pods", pod("n1")))
                .await
                .contains("audience \"vault\" not found")
        );
        let unbound = Case::create("serviceaccounts", json!({"metadata": {"name": "s", "namespace": "a"}}));
        assert_eq!(verdict(unbound.subresource("token")).await, "node requested token not bound to a pod");
    }
}
