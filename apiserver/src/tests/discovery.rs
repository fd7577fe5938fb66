use super::*;

#[tokio::test(start_paused = true)]
async fn groups_and_resources() {
    let server = Harness::new().await;
    assert_eq!(server.get("/api").await.body["versions"], json!(["v1"]));
    let groups = server.get("/apis").await.body;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "rbac.authorization.k8s.io"));
    let core = server.get("/api/v1").await.body;
    let find =
        |name: &str| core["resources"].as_array().unwrap().iter().find(|resource| resource["name"] == name).cloned();
    assert_eq!(find("configmaps").unwrap()["shortNames"], json!(["cm"]));
    assert_eq!(find("nodes/status").unwrap()["kind"], "Node");
    assert_eq!(server.get("/apis/nonsense").await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn the_aggregated_form_has_an_etag() {
    let server = Harness::new().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = server.get_accepting("/apis", accept).await;
    assert_eq!(
        answer.headers[header::CONTENT_TYPE],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(answer.body["kind"], "APIGroupDiscoveryList");
    let request = Request::builder().uri("/apis").header(header::ACCEPT, accept);
    let request = request.header(header::IF_NONE_MATCH, &answer.headers[header::ETAG]).body(Body::empty()).unwrap();
    assert_eq!(server.respond(request).await.status(), 304);
}

#[tokio::test(start_paused = true)]
async fn health_version_and_metrics() {
    let server = Harness::new().await;
    assert_eq!(server.get("/readyz").await.body, "ok");
    assert_eq!(server.get("/livez/ping").await.body, "ok");
    assert!(server.get("/readyz?verbose").await.body.as_str().unwrap().contains("[+]informer-sync ok"));
    assert_eq!(server.get("/version").await.body["minor"], "36");
    server.config_map("a").await;
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.as_str().unwrap().contains(r#"apiserver_storage_objects{resource="configmaps"} 1"#));
    assert!(metrics.as_str().unwrap().contains("apiserver_request_total{"));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_begins_with_its_first_objects() {
    let server = Harness::new().await;
    assert_eq!(
        server.get("/api/v1/namespaces").await.names(),
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );
    let service = server.get("/api/v1/namespaces/default/services/kubernetes").await.body;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let endpoints = server.get("/api/v1/namespaces/default/endpoints/kubernetes").await.body;
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "10.1.2.3");
    assert_eq!(server.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin").await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn strangers_are_refused() {
    let server = Harness::new().await;
    let request = Request::builder().uri(CONFIG_MAPS).body(Body::empty()).unwrap();
    let answer = read(server.as_user("jane").oneshot(request).await.unwrap()).await;
    assert_eq!(
        answer.failure(),
        "403 Forbidden: configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" \
         in the namespace \"default\""
    );
    let request = Request::builder().uri("/version").body(Body::empty()).unwrap();
    assert_eq!(server.as_user("jane").oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_server_starts_again_over_the_same_store_and_watches_go_on() {
    let store: Arc<dyn store::Store> = Arc::new(store::Memory::new());
    let first = Harness::over(store.clone()).await;
    let revision = first.config_map("a").await;
    first.config_map("b").await;
    drop(first);
    let second = Harness::over(store).await;
    let mut lines = second.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}")).await;
    assert_eq!(lines.text().await, "ADDED b");
}
