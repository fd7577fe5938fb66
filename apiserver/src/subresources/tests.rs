//! Subresources through the API.

use serde_json::{Value, json};

use crate::tests::{Answer, Harness};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn harness() -> Harness {
    let harness = Harness::new().await;
    for (path, kind) in [("namespaces/default/serviceaccounts", "ServiceAccount"), ("nodes", "Node")] {
        let name = if kind == "Node" { "n1" } else { "default" };
        let object = json!({"kind": kind, "apiVersion": "v1", "metadata": {"name": name}});
        let answer = harness.send("POST", &format!("/api/v1/{path}"), &object).await;
        assert!(matches!(answer.code, 201 | 409), "{}", answer.body);
    }
    harness
}

async fn pod(harness: &Harness, name: &str) -> Answer {
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let pod =
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "labels": {"app": "a"}}, "spec": spec});
    let answer = harness.send("POST", PODS, &pod).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer
}

fn binding(pod: &str, more: Value) -> Value {
    let mut meta = json!({"name": pod, "annotations": {"chosen": "x"}});
    meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"kind": "Binding", "apiVersion": "v1", "metadata": meta, "target": {"kind": "Node", "name": "n1"}})
}

/// Makes the Pod run, ready.
async fn run(harness: &Harness, name: &str) {
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let path = format!("{PODS}/{name}/status");
    let answer = harness.send_as("PATCH", &path, "application/merge-patch+json", status.to_string()).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let harness = harness().await;
    let created = pod(&harness, "p").await;
    assert_eq!(created.body["spec"]["serviceAccountName"], "default");
    let path = format!("{PODS}/p/binding");
    let stale = harness.send("POST", &path, &binding("p", json!({"uid": "other"}))).await;
    assert_eq!((stale.code, stale.body["reason"].as_str()), (409, Some("Conflict")), "{}", stale.body);
    let answer = harness.send("POST", &path, &binding("p", json!({}))).await;
    assert_eq!((answer.code, answer.body["status"].as_str()), (201, Some("Success")), "{}", answer.body);
    let bound = harness.get(&format!("{PODS}/p")).await.body;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["chosen"]), (&json!("n1"), &json!("x")));
    let condition = &bound["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("PodScheduled"), &json!("True")));
    assert!(condition["lastTransitionTime"].is_string());
    assert_eq!(
        harness.send("POST", &path, &binding("p", json!({}))).await.failure(),
        "409 Conflict: Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
    );
}

#[tokio::test]
async fn the_older_path_binds_too() {
    let harness = harness().await;
    pod(&harness, "p").await;
    let answer = harness.send("POST", "/api/v1/namespaces/default/bindings", &binding("p", json!({}))).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    assert_eq!(harness.get(&format!("{PODS}/p")).await.body["spec"]["nodeName"], "n1");
}

#[tokio::test]
async fn evictions_keep_to_the_budget() {
    let harness = harness().await;
    let budget = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    assert_eq!(harness.send("POST", path, &budget).await.code, 201);
    for name in ["p1", "p2"] {
        pod(&harness, name).await;
        harness.send("POST", &format!("{PODS}/{name}/binding"), &binding(name, json!({}))).await;
        run(&harness, name).await;
    }
    let evict = |name: &'static str| {
        let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name}});
        let harness = &harness;
        async move { harness.send("POST", &format!("{PODS}/{name}/eviction"), &eviction).await }
    };
    let first = evict("p1").await;
    assert_eq!(first.code, 201, "{}", first.body);
    let leaving = harness.get(&format!("{PODS}/p1")).await.body;
    assert!(leaving["metadata"]["deletionTimestamp"].is_string(), "{leaving}");
    let second = evict("p2").await;
    let expected = "429 TooManyRequests: Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(second.failure(), expected);
    let why = "The disruption budget b needs 1 healthy pods and has 1 currently";
    assert_eq!(second.body["details"]["causes"][0]["message"], why);
    assert_eq!(evict("p1").await.code, 201, "what leaves already may be evicted");
}

#[tokio::test]
async fn logs_and_sessions_say_why_they_cannot_be_had() {
    let harness = harness().await;
    pod(&harness, "p").await;
    let logs = harness.get(&format!("{PODS}/p/log")).await;
    assert_eq!((logs.code, &logs.body), (200, &json!("")));
    let exec = |query: &'static str| harness.get(query);
    assert_eq!(
        exec("/api/v1/namespaces/default/pods/p/exec?command=x").await.failure(),
        "400 BadRequest: pod p does not have a host assigned"
    );
    assert_eq!(
        exec("/api/v1/namespaces/default/pods/p/exec?command=x&container=y").await.failure(),
        "400 BadRequest: container y is not valid for pod p"
    );
    assert_eq!(exec("/api/v1/namespaces/default/pods/q/log").await.failure(), "404 NotFound: pods \"q\" not found");
}

#[tokio::test]
async fn a_service_without_endpoints_is_unavailable() {
    let harness = harness().await;
    let service =
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    harness.send("POST", "/api/v1/namespaces/default/services", &service).await;
    let answer = harness.get("/api/v1/namespaces/default/services/s/proxy/x?limit=abc").await;
    assert_eq!(answer.failure(), "503 ServiceUnavailable: no endpoints available for service \"s\"");
}

#[tokio::test]
async fn tokens_are_minted_for_accounts_that_exist() {
    let harness = harness().await;
    let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"audiences": []}});
    let path = |name: &str| format!("/api/v1/namespaces/default/serviceaccounts/{name}/token");
    let answer = harness.send("POST", &path("default"), &request).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    assert_eq!(answer.body["status"]["token"].as_str().unwrap().split('.').count(), 3);
    let missing = harness.send("POST", &path("x"), &request).await;
    assert_eq!(missing.failure(), "404 NotFound: serviceaccounts \"x\" not found");
}

#[tokio::test]
async fn an_ephemeral_container_is_added() {
    let harness = harness().await;
    pod(&harness, "p").await;
    let patch = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "i"}]}}).to_string();
    let path = format!("{PODS}/p/ephemeralcontainers");
    let answer = harness.send_as("PATCH", &path, "application/strategic-merge-patch+json", patch).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(answer.body["spec"]["ephemeralContainers"][0]["name"], "debug");
}

#[tokio::test]
async fn finalizers_of_a_namespace_are_checked() {
    let harness = harness().await;
    let path = "/api/v1/namespaces/default";
    let mut namespace = harness.get(path).await.body;
    namespace["spec"]["finalizers"] = json!(["mine"]);
    let answer = harness.send("PUT", &format!("{path}/finalize"), &namespace).await;
    assert!(answer.failure().contains("neither a standard finalizer name"), "{}", answer.body);
}
