use super::*;

#[tokio::test(start_paused = true)]
async fn a_list_is_a_snapshot_at_the_stores_revision() {
    let server = Harness::new().await;
    server.config_map("b").await;
    let last = server.config_map("a").await;
    let list = server.get(CONFIG_MAPS).await;
    assert_eq!((list.body["kind"].as_str(), list.names()), (Some("ConfigMapList"), vec!["a", "b"]));
    assert_eq!(version(&list.body), last);
    let namespace = server.send("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "x"}})).await;
    assert_eq!(version(&server.get(CONFIG_MAPS).await.body), version(&namespace.body));
}

#[tokio::test(start_paused = true)]
async fn pages_show_one_moment() {
    let server = Harness::new().await;
    for name in ["a", "b", "c", "d"] {
        server.config_map(name).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    assert_eq!((first.names(), &first.body["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(2)));
    server.config_map("bb").await;
    server.delete(&format!("{CONFIG_MAPS}/c")).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!(second.names(), ["c", "d"]);
    assert_eq!(version(&second.body), version(&first.body));
    assert_eq!(second.body["metadata"].get("continue"), None);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_too_old_says_how_to_go_on() {
    let server = Harness::new().await;
    for name in ["a", "b", "c"] {
        server.config_map(name).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    let revision = server.config_map("d").await;
    server.server.cache.forget_until(revision);
    server.server.store.compact(revision).await.unwrap();
    let expired = server.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    assert_eq!((expired.code, expired.body["reason"].as_str()), (410, Some("Expired")));
    let token = expired.body["metadata"]["continue"].as_str().unwrap();
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?continue={token}")).await.names(), ["b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn selectors() {
    let server = Harness::new().await;
    server.config_map("a").await;
    server.config_map("b").await;
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?labelSelector=app%3Da")).await.names(), ["a"]);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?labelSelector=app+notin+(a,c)")).await.names(), ["b"]);
    assert_eq!(server.get("/api/v1/configmaps?fieldSelector=metadata.name%3Db").await.names(), ["b"]);
    assert_eq!(
        server.get("/api/v1/configmaps?fieldSelector=metadata.namespace!%3Ddefault").await.names(),
        Vec::<&str>::new()
    );
    let unknown = server.get(&format!("{CONFIG_MAPS}?fieldSelector=data.k%3Dv")).await;
    let expected =
        "400 BadRequest: \"data.k\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    assert_eq!(unknown.failure(), expected);
    let node = server.get("/api/v1/nodes?fieldSelector=spec.podCIDR%3Dx").await;
    assert_eq!(node.failure(), "400 BadRequest: field label not supported: spec.podCIDR");
}

#[tokio::test(start_paused = true)]
async fn exact_revisions() {
    let server = Harness::new().await;
    let first = server.config_map("a").await;
    server.config_map("b").await;
    let exact = server.get(&format!("{CONFIG_MAPS}?resourceVersion={first}&resourceVersionMatch=Exact")).await;
    assert_eq!(exact.names(), ["a"]);
    let newer = server.get(&format!("{CONFIG_MAPS}?resourceVersion={first}")).await;
    assert_eq!(newer.names(), ["a", "b"]);
    let unfit = server.get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact")).await;
    assert_eq!(unfit.code, 422);
}

#[tokio::test(start_paused = true)]
async fn the_future_is_waited_for_a_little() {
    let server = Harness::new().await;
    let answer = server.get(&format!("{CONFIG_MAPS}?resourceVersion=100000")).await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (504, Some("Timeout")));
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted() {
    let server = Harness::new().await;
    for name in ["a", "b"] {
        server.config_map(name).await;
    }
    assert_eq!(server.delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Da")).await.code, 200);
    assert_eq!(server.get(CONFIG_MAPS).await.names(), ["b"]);
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test(start_paused = true)]
async fn tables_and_metadata() {
    let server = Harness::new().await;
    server.config_map("a").await;
    let table = server.get_accepting(CONFIG_MAPS, TABLE).await.body;
    assert_eq!((table["kind"].as_str(), table["apiVersion"].as_str()), (Some("Table"), Some("meta.k8s.io/v1")));
    let row = &table["rows"][0];
    assert_eq!(
        (&row["cells"], row["object"]["kind"].as_str()),
        (&json!(["a", 1, "0s"]), Some("PartialObjectMetadata"))
    );
    assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), 3);
    let one = server.get_accepting(&format!("{CONFIG_MAPS}/a?includeObject=Object"), TABLE).await.body;
    assert_eq!(one["rows"][0]["object"]["data"], json!({"k": "v"}));
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = server.get_accepting(CONFIG_MAPS, accept).await.body;
    assert_eq!((list["kind"].as_str(), list["items"][0].get("data")), (Some("PartialObjectMetadataList"), None));
    assert_eq!(server.get_accepting(CONFIG_MAPS, "application/vnd.kubernetes.protobuf").await.code, 406);
}

#[tokio::test(start_paused = true)]
async fn a_long_list_comes_in_chunks_and_reads_the_same() {
    let server = Harness::new().await;
    let big = "x".repeat(40_000);
    for name in ["a", "b", "c", "d", "e"] {
        let mut object = config_map(name);
        object["data"]["k"] = big.as_str().into();
        server.send("POST", CONFIG_MAPS, &object).await;
    }
    assert_eq!(server.get(CONFIG_MAPS).await.names(), ["a", "b", "c", "d", "e"]);
}
