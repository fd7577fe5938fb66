//! What a kubelet may do: its own Node and Lease, the Pods bound to it, and what these refer to.
//!
//! Secrets, ConfigMaps, claims and ServiceAccounts are granted by a Pod that names them and is bound to the
//! node. The Pod that granted access last is remembered, so that a repeated request looks at one Pod instead
//! of the whole namespace. Secrets that only a PersistentVolume names are not granted: no volume driver of the
//! kubelet reads them.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use api::{Object, object::ObjectExt};
use parking_lot::Mutex;

use super::{authorize::Decision, rbac::Rule, roles};
use crate::{
    request::{RequestInfo, User},
    view::View,
};

/// How many grants are remembered; when full, all are forgotten.
const WITNESSES_MAX: usize = 16_384;

/// A kind of object that Pods refer to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Referent {
    Secret,
    ConfigMap,
    ServiceAccount,
    VolumeClaim,
    ResourceClaim,
}

#[derive(Eq, Hash, PartialEq)]
struct Grant {
    node: String,
    referent: Referent,
    namespace: String,
    name: String,
}

/// The Node authorizer over the watch cache.
pub struct NodeAuthorizer {
    view: Arc<dyn View>,
    /// To the name of the Pod that gave access.
    witnesses: Mutex<HashMap<Grant, String>>,
}

/// What every node may do, where access is not divided between nodes.
static NODE_RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| roles::parse_rules(roles::NODE_RULES));

/// The name of the node that the user is, if it is one.
pub fn node_of(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.is_in("system:nodes"))
}

fn no_opinion(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

fn allow() -> Decision {
    Decision::Allow(String::new())
}

impl NodeAuthorizer {
    pub fn new(view: Arc<dyn View>) -> Self {
        Self { view, witnesses: Mutex::new(HashMap::new()) }
    }

    pub fn decide(&self, user: &User, request: &RequestInfo) -> Decision {
        let Some(node) = node_of(user) else { return no_opinion("") };
        if node.is_empty() {
            return no_opinion(format!("unknown node for user {:?}", user.name));
        }
        if request.is_resource {
            match (request.group.as_str(), request.resource.as_str()) {
                ("", "secrets") => return self.read(node, Referent::Secret, request),
                ("", "configmaps") => return self.read(node, Referent::ConfigMap, request),
                ("", "serviceaccounts") => return self.service_account(node, request),
                ("", "persistentvolumeclaims") => return self.volume_claim(node, request),
                ("", "persistentvolumes") => {
                    return self.get(node, request, |it| it.volume_is_used(node, &request.name));
                }
                ("", "pods") => return self.pod(node, request),
                ("", "nodes") => return self.node(node, request),
                ("resource.k8s.io", "resourceclaims") => {
                    let referent = Referent::ResourceClaim;
                    return self
                        .get(node, request, |it| it.is_granted(node, referent, &request.namespace, &request.name));
                }
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, request),
                ("storage.k8s.io", "volumeattachments") => {
                    return self.get(node, request, |it| it.names_node(node, request));
                }
                ("storage.k8s.io", "csinodes") => return csi_node(node, request),
                ("coordination.k8s.io", "leases") => return lease(node, request),
                ("certificates.k8s.io", "podcertificaterequests") => return no_opinion(""),
                _ => {}
            }
        }
        if NODE_RULES.iter().any(|rule| rule.allows(request)) { allow() } else { no_opinion("") }
    }

    /// `get`, and `list` and `watch` of one object by name.
    fn read(&self, node: &str, referent: Referent, request: &RequestInfo) -> Decision {
        if !matches!(request.verb.as_str(), "get" | "list" | "watch") {
            return no_opinion("can only read resources of this type");
        }
        if !request.subresource.is_empty() {
            return no_opinion("cannot read subresource");
        }
        if request.namespace.is_empty() {
            return no_opinion("can only read namespaced object of this type");
        }
        related(node, request, self.is_granted(node, referent, &request.namespace, &request.name))
    }

    fn get(&self, node: &str, request: &RequestInfo, is_related: impl FnOnce(&Self) -> bool) -> Decision {
        match (request.verb.as_str(), request.subresource.as_str()) {
            ("get", "") => related(node, request, is_related(self)),
            ("get", _) => no_opinion("cannot get subresource"),
            _ => no_opinion("can only get individual resources of this type"),
        }
    }

    fn service_account(&self, node: &str, request: &RequestInfo) -> Decision {
        let referent = Referent::ServiceAccount;
        match (request.verb.as_str(), request.subresource.as_str()) {
            ("get", "") => self.read(node, referent, request),
            ("create", "token") if !request.name.is_empty() => {
                related(node, request, self.is_granted(node, referent, &request.namespace, &request.name))
            }
            ("create", _) if !request.name.is_empty() => {
                no_opinion("can only create token subresource of serviceaccount")
            }
            _ => no_opinion("can only create tokens for individual service accounts"),
        }
    }

    fn volume_claim(&self, node: &str, request: &RequestInfo) -> Decision {
        let is_granted = |it: &Self| it.is_granted(node, Referent::VolumeClaim, &request.namespace, &request.name);
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("status", "update" | "patch") => related(node, request, is_granted(self)),
            ("status", _) => no_opinion("can only get/update/patch this type"),
            _ => self.get(node, request, is_granted),
        }
    }

    /// Creating and deleting is for mirror Pods; the NodeRestriction admission narrows it to the node's own.
    fn pod(&self, node: &str, request: &RequestInfo) -> Decision {
        let is_bound = |it: &Self| it.pod_is_bound(node, &request.namespace, &request.name);
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("", "get") => self.get(node, request, is_bound),
            ("", "list" | "watch") if selects(request, "spec.nodeName", node) => allow(),
            ("", "list" | "watch") if !request.name.is_empty() => related(node, request, is_bound(self)),
            ("", "list" | "watch") => no_opinion("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => allow(),
            _ => no_opinion(""),
        }
    }

    /// By name, not by relation: a kubelet reads its Node before it exists.
    fn node(&self, node: &str, request: &RequestInfo) -> Decision {
        match (request.subresource.as_str(), request.verb.as_str(), request.name.as_str()) {
            ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => allow(),
            ("", "get" | "list" | "watch", name) if name == node => allow(),
            ("", "get" | "list" | "watch", "") => {
                no_opinion(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            ("", "get" | "list" | "watch", name) => {
                no_opinion(format!("node '{node}' cannot read '{name}', only its own Node object"))
            }
            _ => no_opinion(""),
        }
    }

    fn resource_slice(&self, node: &str, request: &RequestInfo) -> Decision {
        if !request.subresource.is_empty() {
            return no_opinion("cannot authorize ResourceSlice subresources");
        }
        match request.verb.as_str() {
            "create" => allow(),
            "get" | "update" | "patch" | "delete" => related(node, request, self.names_node(node, request)),
            "watch" | "list" | "deletecollection" if selects(request, "spec.nodeName", node) => allow(),
            "watch" | "list" | "deletecollection" => {
                no_opinion("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no_opinion(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                 delete, deletecollection",
            ),
        }
    }

    /// Whether `spec.nodeName` of the requested object is this node.
    fn names_node(&self, node: &str, request: &RequestInfo) -> bool {
        let object = self.view.get(&request.group, &request.resource, &request.namespace, &request.name);
        object.is_some_and(|object| object.text("/spec/nodeName") == node)
    }

    fn pod_is_bound(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.view.get("", "pods", namespace, name).is_some_and(|pod| pod.text("/spec/nodeName") == node)
    }

    fn volume_is_used(&self, node: &str, name: &str) -> bool {
        let Some(volume) = self.view.get("", "persistentvolumes", "", name) else { return false };
        let (namespace, claim) = (volume.text("/spec/claimRef/namespace"), volume.text("/spec/claimRef/name"));
        self.is_granted(node, Referent::VolumeClaim, namespace, claim)
    }

    /// Whether a Pod bound to the node refers to the object.
    fn is_granted(&self, node: &str, referent: Referent, namespace: &str, name: &str) -> bool {
        if name.is_empty() {
            return false;
        }
        let grants = |pod: &Object| pod.text("/spec/nodeName") == node && refers(pod, referent, name);
        let grant = Grant { node: node.into(), referent, namespace: namespace.into(), name: name.into() };
        let witness = self.witnesses.lock().get(&grant).cloned();
        if witness.and_then(|pod| self.view.get("", "pods", namespace, &pod)).is_some_and(|pod| grants(&pod)) {
            return true;
        }
        let pods = self.view.list("", "pods", Some(namespace));
        let found = pods.iter().find(|pod| grants(pod));
        let mut witnesses = self.witnesses.lock();
        match found {
            Some(pod) => {
                if witnesses.len() >= WITNESSES_MAX {
                    witnesses.clear();
                }
                witnesses.insert(grant, pod.name().to_owned());
            }
            None => {
                witnesses.remove(&grant);
            }
        }
        found.is_some()
    }
}

fn related(node: &str, request: &RequestInfo, is_related: bool) -> Decision {
    if is_related {
        allow()
    } else if request.name.is_empty() {
        no_opinion("No Object name found")
    } else {
        no_opinion(format!("no relationship found between node '{node}' and this object"))
    }
}

fn selects(request: &RequestInfo, field: &str, value: &str) -> bool {
    request.field_selector.exact(field) == Some(value)
}

/// The name is unknown on create; the NodeRestriction admission checks it.
fn lease(node: &str, request: &RequestInfo) -> Decision {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return no_opinion("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != "kube-node-lease" {
        return no_opinion("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if request.verb != "create" && request.name != node {
        return no_opinion("can only access node lease with the same name as the requesting node");
    }
    allow()
}

fn csi_node(node: &str, request: &RequestInfo) -> Decision {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return no_opinion("can only get, create, update, patch, or delete a CSINode");
    }
    if !request.subresource.is_empty() {
        return no_opinion("cannot authorize CSINode subresources");
    }
    if request.verb != "create" && request.name != node {
        return no_opinion("can only access CSINode with the same name as the requesting node");
    }
    allow()
}

fn items<'a>(object: &'a Object, pointer: &str) -> impl Iterator<Item = &'a Object> {
    object.pointer(pointer).and_then(Object::as_array).into_iter().flatten()
}

/// Whether the Pod names the object. A mirror Pod gives nothing: nodes create these themselves.
fn refers(pod: &Object, referent: Referent, name: &str) -> bool {
    if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
        return false;
    }
    match referent {
        Referent::ServiceAccount => pod.text("/spec/serviceAccountName") == name,
        Referent::Secret => {
            items(pod, "/spec/imagePullSecrets").any(|secret| secret.text("/name") == name)
                || containers_name(pod, ["/secretRef/name", "/valueFrom/secretKeyRef/name"], name)
                || items(pod, "/spec/volumes").any(|volume| volume_names_secret(volume, name))
        }
        Referent::ConfigMap => {
            containers_name(pod, ["/configMapRef/name", "/valueFrom/configMapKeyRef/name"], name)
                || items(pod, "/spec/volumes").any(|volume| {
                    volume.text("/configMap/name") == name
                        || items(volume, "/projected/sources").any(|source| source.text("/configMap/name") == name)
                })
        }
        Referent::VolumeClaim => items(pod, "/spec/volumes").any(|volume| {
            volume.text("/persistentVolumeClaim/claimName") == name
                || volume.get("ephemeral").is_some() && name == format!("{}-{}", pod.name(), volume.text("/name"))
        }),
        Referent::ResourceClaim => {
            items(pod, "/spec/resourceClaims").any(|claim| claim.text("/resourceClaimName") == name)
                || items(pod, "/status/resourceClaimStatuses").any(|claim| claim.text("/resourceClaimName") == name)
                || pod.text("/status/extendedResourceClaimStatus/resourceClaimName") == name
        }
    }
}

/// In `envFrom` (the first pointer) or `env` (the second) of any container.
fn containers_name(pod: &Object, pointers: [&str; 2], name: &str) -> bool {
    let lists = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];
    lists.iter().flat_map(|list| items(pod, list)).any(|container| {
        items(container, "/envFrom").any(|source| source.text(pointers[0]) == name)
            || items(container, "/env").any(|variable| variable.text(pointers[1]) == name)
    })
}

fn volume_names_secret(volume: &Object, name: &str) -> bool {
    let pointers = [
        "/secret/secretName",
        "/csi/nodePublishSecretRef/name",
        "/azureFile/secretName",
        "/cephfs/secretRef/name",
        "/cinder/secretRef/name",
        "/flexVolume/secretRef/name",
        "/rbd/secretRef/name",
        "/scaleIO/secretRef/name",
        "/iscsi/secretRef/name",
        "/storageos/secretRef/name",
    ];
    pointers.iter().any(|pointer| volume.text(pointer) == name)
        || items(volume, "/projected/sources").any(|source| source.text("/secret/name") == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{Cluster, parse_request, user};

    fn cluster() -> Cluster {
        let cluster = Cluster::default();
        cluster.put(
            "",
            "pods",
            json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key"}}}],
                "envFrom": [{"configMapRef": {"name": "settings"}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "mounted"}}, {"name": "c", "ephemeral": {}},
                {"name": "w", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}]}}),
        );
        cluster
    }

    #[test]
    fn a_node_reaches_only_what_its_pods_name() {
        let authorizer = NodeAuthorizer::new(cluster().view());
        let rows = [
            ("GET /api/v1/namespaces/a/secrets/pull", true),
            ("GET /api/v1/namespaces/a/secrets/key", true),
            ("GET /api/v1/namespaces/a/secrets/mounted", true),
            ("GET /api/v1/namespaces/a/secrets?watch=1&fieldSelector=metadata.name%3Dmounted", true),
            ("GET /api/v1/namespaces/a/secrets/other", false),
            ("GET /api/v1/namespaces/b/secrets/mounted", false),
            ("GET /api/v1/namespaces/a/secrets", false),
            ("PUT /api/v1/namespaces/a/secrets/mounted", false),
            ("GET /api/v1/namespaces/a/configmaps/settings", true),
            ("GET /api/v1/namespaces/a/configmaps/kube-root-ca.crt", true),
            ("POST /api/v1/namespaces/a/serviceaccounts/robot/token", true),
            ("POST /api/v1/namespaces/a/serviceaccounts/default/token", false),
            ("GET /api/v1/namespaces/a/persistentvolumeclaims/p-c", true),
            ("GET /api/v1/namespaces/a/pods/p", true),
            ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1", true),
            ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn2", false),
            ("GET /api/v1/pods?fieldSelector=metadata.namespace!%3Dz%5C,spec.nodeName%3Dn1", false),
            ("GET /api/v1/pods", false),
            ("PATCH /api/v1/namespaces/a/pods/p/status", true),
            ("PATCH /api/v1/namespaces/a/pods/p", false),
            ("GET /api/v1/nodes/n1", true),
            ("GET /api/v1/nodes/n2", false),
            ("POST /api/v1/nodes", true),
            ("PATCH /api/v1/nodes/n1/status", true),
            ("DELETE /api/v1/nodes/n1", false),
            ("PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", true),
            ("PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", false),
            ("POST /api/v1/namespaces/a/events", true),
            ("GET /api/v1/services", true),
            ("GET /api/v1/endpoints", false),
            ("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", true),
            ("GET /apis/apps/v1/deployments", false),
        ];
        for (request, expected) in rows {
            let node = user("system:node:n1", &["system:nodes"]);
            for _again in 0..2 {
                assert_eq!(authorizer.decide(&node, &parse_request(request)).is_allow(), expected, "{request}");
            }
        }
    }

    #[test]
    fn access_ends_with_the_pod_and_is_for_its_node_only() {
        let cluster = cluster();
        let authorizer = NodeAuthorizer::new(cluster.view());
        let request = parse_request("GET /api/v1/namespaces/a/secrets/mounted");
        let node = |name: &str| user(&format!("system:node:{name}"), &["system:nodes"]);
        assert!(authorizer.decide(&node("n1"), &request).is_allow());
        let refusal = authorizer.decide(&node("n2"), &request);
        assert_eq!(refusal.reason(), "no relationship found between node 'n2' and this object");
        cluster.remove("", "pods", "a", "p");
        assert!(!authorizer.decide(&node("n1"), &request).is_allow());
        assert_eq!(authorizer.decide(&user("system:node:n1", &[]), &request), no_opinion(""));
    }
}
