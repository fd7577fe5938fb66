use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const MERGE: &str = "application/merge-patch+json";

fn pod(name: &str, node: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "nginx"}]},
    })
}

fn deployment() -> Value {
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}},
        },
    })
}

/// A Pod without its ServiceAccount would be refused.
async fn with_service_account() -> Harness {
    let server = Harness::new().await;
    let account = json!({"metadata": {"name": "default"}});
    server.send("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await;
    server
}

#[tokio::test(start_paused = true)]
async fn a_running_pod_leaves_with_grace_and_a_waiting_one_at_once() {
    let server = with_service_account().await;
    for (name, node) in [("runs", Some("n")), ("waits", None)] {
        let answer = server.send("POST", PODS, &pod(name, node)).await;
        assert_eq!(answer.code, 201, "{}", answer.body);
    }
    assert_eq!(server.delete(&format!("{PODS}/waits")).await.body["kind"], "Pod");
    assert_eq!(server.get(&format!("{PODS}/waits")).await.code, 404);
    let marked = server.delete(&format!("{PODS}/runs")).await.body;
    assert_eq!(
        (&marked["metadata"]["deletionGracePeriodSeconds"], marked["metadata"]["deletionTimestamp"].as_str()),
        (&json!(30), Some("2026-01-01T00:00:30Z"))
    );
    assert_eq!(server.delete(&format!("{PODS}/runs?gracePeriodSeconds=0")).await.code, 200);
    assert_eq!(server.get(&format!("{PODS}/runs")).await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn the_generation_counts_what_is_wished_for() {
    let server = Harness::new().await;
    let created = server.send("POST", DEPLOYMENTS, &deployment()).await;
    assert_eq!((created.code, &created.body["metadata"]["generation"]), (201, &json!(1)), "{}", created.body);
    let path = format!("{DEPLOYMENTS}/web");
    let labelled = server.send_as("PATCH", &path, MERGE, r#"{"metadata":{"labels":{"a":"b"}}}"#).await;
    assert_eq!(labelled.body["metadata"]["generation"], 1);
    let status = server.send_as("PATCH", &format!("{path}/status"), MERGE, r#"{"status":{"replicas":2}}"#).await;
    assert_eq!((&status.body["metadata"]["generation"], &status.body["status"]["replicas"]), (&json!(1), &json!(2)));
    let scaled = server.send_as("PATCH", &format!("{path}/scale"), MERGE, r#"{"spec":{"replicas":5}}"#).await;
    assert_eq!((scaled.code, scaled.body["kind"].as_str()), (200, Some("Scale")), "{}", scaled.body);
    assert_eq!(
        (&scaled.body["spec"]["replicas"], scaled.body["status"]["selector"].as_str()),
        (&json!(5), Some("app=web"))
    );
    let read = server.get(&path).await.body;
    assert_eq!((&read["metadata"]["generation"], &read["spec"]["replicas"]), (&json!(2), &json!(5)));
}

#[tokio::test(start_paused = true)]
async fn a_strategic_patch_merges_containers_by_name() {
    let server = Harness::new().await;
    server.send("POST", DEPLOYMENTS, &deployment()).await;
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"s"}]}}}}"#;
    let media_type = "application/strategic-merge-patch+json";
    let patched = server.send_as("PATCH", &format!("{DEPLOYMENTS}/web"), media_type, patch).await;
    let containers = patched.body["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(
        containers.iter().map(|container| container["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["side", "c"]
    );
}

const APPLY: &str = "application/apply-patch+yaml";

#[tokio::test(start_paused = true)]
async fn server_side_apply_creates_changes_and_conflicts() {
    let server = Harness::new().await;
    let path = format!("{DEPLOYMENTS}/web");
    let created = server.send_as("PATCH", &format!("{path}?fieldManager=alice"), APPLY, deployment().to_string()).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert_eq!(created.body["metadata"]["managedFields"][0]["manager"], "alice");
    let version = super::version(&created.body);
    let again = server.send_as("PATCH", &format!("{path}?fieldManager=alice"), APPLY, deployment().to_string()).await;
    assert_eq!((again.code, super::version(&again.body)), (200, version));
    let mut other = deployment();
    other["spec"]["replicas"] = 7.into();
    let conflict = server.send_as("PATCH", &format!("{path}?fieldManager=bob"), APPLY, other.to_string()).await;
    assert_eq!(
        conflict.failure(),
        "409 Conflict: Apply failed with 1 conflict: conflict with \"alice\": .spec.replicas"
    );
    let forced =
        server.send_as("PATCH", &format!("{path}?fieldManager=bob&force=true"), APPLY, other.to_string()).await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"]), (200, &json!(7)));
    let nameless = server.send_as("PATCH", &path, APPLY, deployment().to_string()).await;
    assert_eq!(
        nameless.failure(),
        "422 Invalid: PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_is_one_thing_in_two_groups() {
    let server = Harness::new().await;
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "it did", "type": "Normal",
    });
    let created = server.send("POST", "/api/v1/namespaces/default/events", &event).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let other = server.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.body;
    assert_eq!((other["apiVersion"].as_str(), other["note"].as_str()), (Some("events.k8s.io/v1"), Some("it did")));
    let selected = server.get("/api/v1/events?fieldSelector=involvedObject.name%3Dp,type%3DNormal").await;
    assert_eq!(selected.names(), ["e"]);
}

#[tokio::test(start_paused = true)]
async fn events_are_forgotten_after_an_hour() {
    let server = Harness::new().await;
    let event =
        json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "reason": "R", "type": "Normal"});
    server.send("POST", "/api/v1/namespaces/default/events", &event).await;
    assert_eq!(server.get("/api/v1/events").await.names(), ["e"]);
    tokio::time::sleep(Duration::from_secs(3700)).await;
    assert_eq!(server.get("/api/v1/events").await.names(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn openapi_documents_are_kept_by_their_hash() {
    let server = Harness::new().await;
    let index = server.get("/openapi/v3").await.body;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = server.get(&url).await;
    assert!(document.body["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    assert!(document.headers.contains_key(header::ETAG));
    assert!(server.get("/openapi/v2").await.body["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = server.get_accepting("/openapi/v2", protobuf).await;
    let expected = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!((answer.code, answer.headers[header::CONTENT_TYPE].to_str().unwrap()), (200, expected));
    assert_eq!(server.get_accepting("/openapi/v3/api/v1", protobuf).await.code, 406);
}
