use super::*;

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_the_state_and_follows() {
    let server = Harness::new().await;
    server.config_map("a").await;
    let mut lines = server.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(lines.text().await, "ADDED a");
    server.config_map("b").await;
    assert_eq!(lines.text().await, "ADDED b");
    server.delete(&format!("{CONFIG_MAPS}/a")).await;
    let event = lines.next().await.unwrap();
    assert_eq!((event["type"].as_str(), event["object"]["data"]["k"].as_str()), (Some("DELETED"), Some("v")));
    assert_eq!(version(&event["object"]), version(&server.get(CONFIG_MAPS).await.body));
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_where_it_stopped() {
    let server = Harness::new().await;
    let first = server.config_map("a").await;
    server.config_map("b").await;
    let mut lines = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={first}")).await;
    assert_eq!(lines.text().await, "ADDED b");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_revision_is_an_error_event() {
    let server = Harness::new().await;
    let first = server.config_map("a").await;
    let second = server.config_map("b").await;
    server.server.cache.forget_until(second);
    let mut lines = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={first}")).await;
    let event = lines.next().await.unwrap();
    assert_eq!((event["type"].as_str(), event["object"]["reason"].as_str()), (Some("ERROR"), Some("Expired")));
    assert_eq!(event["object"]["message"], format!("too old resource version: {first} ({second})"));
    assert_eq!(lines.text().await, "end");
}

#[tokio::test(start_paused = true)]
async fn coming_to_match_is_an_addition_and_ceasing_to_a_deletion() {
    let server = Harness::new().await;
    server.config_map("a").await;
    let mut lines = server.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=tier%3Dweb")).await;
    for tier in [json!("web"), json!("db"), json!("web")] {
        let patch = json!({"metadata": {"labels": {"tier": tier}}}).to_string();
        server.send_as("PATCH", &format!("{CONFIG_MAPS}/a"), "application/merge-patch+json", patch).await;
    }
    assert_eq!(lines.text().await, "ADDED a");
    assert_eq!(lines.text().await, "DELETED a");
    assert_eq!(lines.text().await, "ADDED a");
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_a_bookmark() {
    let server = Harness::new().await;
    server.config_map("a").await;
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut lines = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(lines.text().await, "ADDED a");
    let bookmark = lines.next().await.unwrap();
    assert_eq!(bookmark["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    let unfit = server.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(unfit.code, 422);
}

#[tokio::test(start_paused = true)]
async fn quiet_watches_get_bookmarks_and_end_in_time() {
    let server = Harness::in_time().await;
    let first = server.config_map("a").await;
    let query = format!("watch=1&allowWatchBookmarks=true&resourceVersion={first}&timeoutSeconds=150");
    let mut lines = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(lines.text().await, "BOOKMARK");
    let namespace = server.send("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "x"}})).await;
    let bookmark = lines.next().await.unwrap();
    assert!(version(&bookmark["object"]) >= version(&namespace.body));
    // The server's own lease moves the store on.
    assert_eq!(lines.text().await, "BOOKMARK");
    assert_eq!(lines.text().await, "end");
}

#[tokio::test(start_paused = true)]
async fn a_table_watch_names_its_columns_once() {
    let server = Harness::new().await;
    server.config_map("a").await;
    server.config_map("b").await;
    let request = Request::builder().uri(format!("{CONFIG_MAPS}?watch=1"));
    let request =
        request.header(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io").body(Body::empty()).unwrap();
    let mut lines = Lines { body: server.respond(request).await.into_body(), buffer: Vec::new() };
    let (first, second) = (lines.next().await.unwrap(), lines.next().await.unwrap());
    assert_eq!(first["object"]["columnDefinitions"].as_array().unwrap().len(), 3);
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn kube_lists_and_watches() {
    use futures::{StreamExt as _, TryStreamExt as _};
    use k8s_openapi::api::core::v1::ConfigMap;
    let server = Harness::new().await;
    server.config_map("a").await;
    let client = kube::Client::new(server.router.clone(), "default");
    let api: kube::Api<ConfigMap> = kube::Api::default_namespaced(client);
    let list = api.list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let mut stream = kube::runtime::watcher(api, kube::runtime::watcher::Config::default()).boxed();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(format!("{:?}", stream.try_next().await.unwrap().unwrap()).split('(').next().unwrap().to_owned());
    }
    assert_eq!(seen, ["Init", "InitApply", "InitDone"]);
}
