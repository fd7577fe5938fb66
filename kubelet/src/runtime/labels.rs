//! Names and labels of sandboxes and containers: the kubelet's only memory.

use std::collections::BTreeMap;

use super::PodIdentity;

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const HASH: &str = "io.kubernetes.container.hash";
pub const IMAGE: &str = "io.kubernetes.container.image";
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
pub const SANDBOX_ID: &str = "io.kubernetes.sandbox.id";
pub const SANDBOX_ATTEMPT: &str = "io.kubernetes.sandbox.attempt";
/// `podsandbox` or `container`.
pub const TYPE: &str = "io.kubernetes.docker.type";
pub const TYPE_SANDBOX: &str = "podsandbox";
pub const TYPE_CONTAINER: &str = "container";
/// Which kubelet made it: several may share one Docker.
pub const NODE: &str = "skiff.dev/node";

/// What names a sandbox among containers.
pub const SANDBOX_NAME: &str = "POD";

/// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`: readable in `docker ps`, one per incarnation.
pub fn container_name(container: &str, pod: &PodIdentity, attempt: u32) -> String {
    format!("k8s_{container}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

/// The labels that say whose it is.
pub fn of_pod(pod: &PodIdentity, r#type: &str) -> BTreeMap<String, String> {
    [(POD_NAME, &pod.name), (POD_NAMESPACE, &pod.namespace), (POD_UID, &pod.uid), (TYPE, &r#type.to_string())]
        .into_iter()
        .map(|(key, value)| (key.to_string(), value.clone()))
        .collect()
}

/// The Pod that the labels name; `None` for what is not ours.
pub fn pod_of(labels: &BTreeMap<String, String>) -> Option<PodIdentity> {
    let get = |key: &str| labels.get(key).cloned();
    Some(PodIdentity { uid: get(POD_UID)?, namespace: get(POD_NAMESPACE)?, name: get(POD_NAME)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_the_pod_they_were_made_for() {
        let pod = PodIdentity { uid: "u".into(), namespace: "ns".into(), name: "web-0".into() };
        assert_eq!(pod_of(&of_pod(&pod, TYPE_CONTAINER)), Some(pod.clone()));
        assert_eq!(container_name("app", &pod, 3), "k8s_app_web-0_ns_u_3");
    }
}
