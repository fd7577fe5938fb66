//! ServiceAccount: who a Pod is, and the token by which it says so.

use std::{sync::Arc, time::Duration};

use api::{Object, Status, object::ObjectExt, status::GroupResource, validation::pod::MIRROR_POD};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Operation, Step};

const DEFAULT_NAME: &str = "default";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// A lifetime that `serviceaccounts/token` knows as "renew in an hour, but live longer".
const TOKEN_SECONDS: u32 = 3607;
/// The controller makes the default ServiceAccount of a new namespace; so often and so long it is waited for.
const DEFAULT_ATTEMPTS: usize = 10;
const DEFAULT_WAIT: Duration = Duration::from_millis(150);

pub(super) struct ServiceAccount;

#[async_trait]
impl Step for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        if !is_new_pod(attributes) || is_mirror(pod) {
            return Ok(());
        }
        if pod.text("/spec/serviceAccountName").is_empty() {
            pod["spec"]["serviceAccountName"] = DEFAULT_NAME.into();
        }
        let account = find(attributes, pod.text("/spec/serviceAccountName")).await?;
        if mounts_token(pod, &account) {
            mount_token(pod, || format!("{VOLUME_PREFIX}{}", attributes.chance.suffix(5)));
        }
        let has_secrets = |object: &Object, pointer| {
            object.pointer(pointer).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
        };
        if !has_secrets(pod, "/spec/imagePullSecrets") && has_secrets(&account, "/imagePullSecrets") {
            pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
        if !is_new_pod(attributes) {
            return Ok(());
        }
        if is_mirror(pod) {
            return validate_mirror(attributes, pod);
        }
        find(attributes, pod.text("/spec/serviceAccountName")).await.map(drop)
    }
}

fn is_new_pod(attributes: &Attributes<'_>) -> bool {
    attributes.operation == Operation::Create && attributes.is_about("", "pods")
}

/// Made by a kubelet, for a Pod that it has from a file.
fn is_mirror(pod: &Object) -> bool {
    pod.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(MIRROR_POD).is_some())
}

fn validate_mirror(attributes: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
    if !pod.text("/spec/serviceAccountName").is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    for volume in volumes {
        if volume.get("secret").is_some() {
            return Err(attributes.forbidden("a mirror pod may not reference secrets"));
        }
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        if sources.into_iter().flatten().any(|source| source.get("serviceAccountToken").is_some()) {
            return Err(attributes.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
        }
    }
    Ok(())
}

async fn find(attributes: &Attributes<'_>, name: &str) -> Result<Arc<Object>, Status> {
    let namespace = attributes.namespace;
    let attempts = if name == DEFAULT_NAME { DEFAULT_ATTEMPTS } else { 1 };
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(DEFAULT_WAIT).await;
        }
        if let Some(account) = attributes.view.get("", "serviceaccounts", namespace, name) {
            return Ok(account);
        }
    }
    let missing = Status::not_found(GroupResource { group: "", resource: "serviceaccount" }, name);
    Err(attributes.forbidden(format!("error looking up service account {namespace}/{name}: {missing}")))
}

/// The Pod's wish counts before the account's; the default is yes.
fn mounts_token(pod: &Object, account: &Object) -> bool {
    let wish = pod.pointer("/spec/automountServiceAccountToken").and_then(Value::as_bool);
    wish.or_else(|| account["automountServiceAccountToken"].as_bool()).unwrap_or(true)
}

/// Gives every container that has nothing there yet the token, the authority's certificate and the namespace.
fn mount_token(pod: &mut Object, new_name: impl FnOnce() -> String) {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let present = volumes.map(|volume| volume.text("/name")).find(|name| name.starts_with(VOLUME_PREFIX));
    let present = present.map(str::to_owned);
    let is_new = present.is_none();
    let name = present.unwrap_or_else(new_name);
    let mut is_used = false;
    for field in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().all(|mount| mount.text("/mountPath") != TOKEN_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
                container["volumeMounts"] = mounts.into();
                is_used = true;
            }
        }
    }
    if is_new && is_used {
        let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        volumes.push(token_volume(&name));
        pod["spec"]["volumes"] = volumes.into();
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::Case;

    fn pod(spec: Value) -> Case {
        Case::create("pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec}))
    }

    fn account(name: &str, more: Value) -> Value {
        let mut account = json!({"metadata": {"name": name, "namespace": "a"}});
        account.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        account
    }

    #[tokio::test]
    async fn every_container_gets_the_token_once() {
        let mounted = json!([{"name": "own", "mountPath": TOKEN_PATH}]);
        let spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": mounted}]});
        let case =
            pod(spec).with("", "serviceaccounts", account("default", json!({"imagePullSecrets": [{"name": "s"}]})));
        let pod = case.admitted(&ServiceAccount).await.unwrap();
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "s"}]));
        let name = pod.text("/spec/volumes/0/name");
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5, "{name}");
        let mount = json!([{"name": name, "readOnly": true, "mountPath": TOKEN_PATH}]);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], mount);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"][0]["name"], "own");
        assert_eq!(
            pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
            3607
        );
    }

    #[tokio::test]
    async fn the_pods_wish_counts_before_the_accounts() {
        let no = json!({"automountServiceAccountToken": false});
        let case =
            pod(json!({"containers": [{"name": "a"}]})).with("", "serviceaccounts", account("default", no.clone()));
        assert_eq!(case.admitted(&ServiceAccount).await.unwrap()["spec"].get("volumes"), None);
        let spec = json!({"automountServiceAccountToken": true, "containers": [{"name": "a"}]});
        let case = pod(spec).with("", "serviceaccounts", account("default", no));
        assert!(case.admitted(&ServiceAccount).await.unwrap()["spec"]["volumes"].is_array());
    }

    #[tokio::test(start_paused = true)]
    async fn the_account_must_exist() {
        let refused = |case: Case| async move { case.admitted(&ServiceAccount).await.unwrap_err().message };
        assert_eq!(
            refused(pod(json!({"serviceAccountName": "x"}))).await,
            "pods \"p\" is forbidden: error looking up service account a/x: serviceaccount \"x\" not found"
        );
        assert_eq!(
            refused(pod(json!({}))).await,
            "pods \"p\" is forbidden: error looking up service account a/default: serviceaccount \"default\" not found"
        );
    }
}
