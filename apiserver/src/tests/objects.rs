use super::*;

#[tokio::test(start_paused = true)]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = Harness::new().await;
    let created = server.send("POST", CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(created.code, 201);
    let meta = &created.body["metadata"];
    assert_eq!(meta["namespace"], "default");
    assert_eq!(meta["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);

    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.get(&path).await.body, created.body);
    let mut changed = created.body.clone();
    changed["data"]["k"] = "w".into();
    let updated = server.send("PUT", &path, &changed).await;
    assert_eq!(updated.code, 200);
    assert!(version(&updated.body) > version(&created.body));
    assert_eq!(server.get(&path).await.body, updated.body);

    let deleted = server.delete(&path).await;
    assert_eq!((deleted.code, deleted.body["status"].as_str()), (200, Some("Success")));
    assert_eq!(deleted.body["details"]["uid"], meta["uid"]);
    assert_eq!(server.get(&path).await.failure(), "404 NotFound: configmaps \"a\" not found");
}

#[tokio::test(start_paused = true)]
async fn refusals_are_in_upstreams_words() {
    let server = Harness::new().await;
    server.config_map("a").await;
    let again = server.send("POST", CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(again.failure(), "409 AlreadyExists: configmaps \"a\" already exists");
    let elsewhere = server
        .send(
            "POST",
            "/api/v1/namespaces/other/configmaps",
            &json!({"metadata": {"name": "x", "namespace": "default"}}),
        )
        .await;
    let expected =
        "400 BadRequest: the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!(elsewhere.failure(), expected);
    let mut stale = config_map("a");
    stale["metadata"]["resourceVersion"] = "1".into();
    let conflict = server.send("PUT", &format!("{CONFIG_MAPS}/a"), &stale).await;
    assert_eq!(
        conflict.failure(),
        "409 Conflict: Operation cannot be fulfilled on configmaps \"a\": the object has been modified; \
         please apply your changes to the latest version and try again"
    );
    let nameless = server.send("POST", CONFIG_MAPS, &json!({"metadata": {}})).await;
    let expected =
        "422 Invalid: ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required";
    assert_eq!(nameless.failure(), expected);
    assert_eq!(
        server.get("/api/v1/nonsense").await.failure(),
        "404 NotFound: the server could not find the requested resource"
    );
    let protobuf = server.send_as("POST", CONFIG_MAPS, "application/vnd.kubernetes.protobuf", "x").await;
    assert_eq!((protobuf.code, protobuf.body["reason"].as_str()), (400, Some("BadRequest")));
    let cbor = server.send_as("POST", CONFIG_MAPS, "application/cbor", "x").await;
    assert_eq!((cbor.code, cbor.body["reason"].as_str()), (415, Some("UnsupportedMediaType")));
}

#[tokio::test(start_paused = true)]
async fn an_update_that_changes_nothing_is_not_written() {
    let server = Harness::new().await;
    let first = server.config_map("a").await;
    let again = server.send("PUT", &format!("{CONFIG_MAPS}/a"), &config_map("a")).await;
    assert_eq!((again.code, version(&again.body)), (200, first));
}

#[tokio::test(start_paused = true)]
async fn names_are_generated() {
    let server = Harness::new().await;
    let created = server.send("POST", CONFIG_MAPS, &json!({"metadata": {"generateName": "job-"}})).await;
    let name = created.body["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("job-") && name.len() == 9, "{name}");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_leaves_nothing_behind() {
    let server = Harness::new().await;
    let created = server.send("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await;
    assert_eq!(created.code, 201);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    let version = server.config_map("a").await;
    let patch = server.send_as("PATCH", &format!("{CONFIG_MAPS}/a?dryRun=All"), MERGE, r#"{"data":{"k":"w"}}"#).await;
    assert_eq!(patch.body["data"]["k"], "w");
    assert_eq!(server.delete(&format!("{CONFIG_MAPS}/a?dryRun=All")).await.code, 200);
    let kept = server.get(&format!("{CONFIG_MAPS}/a")).await;
    assert_eq!((super::version(&kept.body), kept.body["data"]["k"].as_str()), (version, Some("v")));
}

const MERGE: &str = "application/merge-patch+json";

#[tokio::test(start_paused = true)]
async fn patches_of_each_type() {
    let server = Harness::new().await;
    server.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let merged = server.send_as("PATCH", &path, MERGE, r#"{"data":{"k":null,"n":"1"}}"#).await;
    assert_eq!((merged.code, &merged.body["data"]), (200, &json!({"n": "1"})));
    let json_patch = r#"[{"op":"test","path":"/data/n","value":"1"},{"op":"add","path":"/data/m","value":"2"}]"#;
    let patched = server.send_as("PATCH", &path, "application/json-patch+json", json_patch).await;
    assert_eq!((patched.code, &patched.body["data"]), (200, &json!({"m": "2", "n": "1"})));
    let strategic =
        server.send_as("PATCH", &path, "application/strategic-merge-patch+json", r#"{"data":{"m":null}}"#).await;
    assert_eq!((strategic.code, &strategic.body["data"]), (200, &json!({"n": "1"})));
    let failed = server
        .send_as("PATCH", &path, "application/json-patch+json", r#"[{"op":"test","path":"/data/n","value":"9"}]"#)
        .await;
    assert_eq!(failed.code, 422);
    assert_eq!(server.send_as("PATCH", &path, "text/plain", "x").await.code, 415);
}

#[tokio::test(start_paused = true)]
async fn unknown_and_duplicate_fields_are_noticed() {
    let server = Harness::new().await;
    let body = r#"{"metadata":{"name":"a"},"data":{"k":"1","k":"2"},"spec":{}}"#;
    let strict =
        server.send_as("POST", &format!("{CONFIG_MAPS}?fieldValidation=Strict"), "application/json", body).await;
    assert_eq!(
        strict.failure(),
        "400 BadRequest: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         duplicate field \"data.k\", unknown field \"spec\""
    );
    let warned = server.send_as("POST", CONFIG_MAPS, "application/json", body).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.warnings(), [r#"299 - "duplicate field \"data.k\"""#, r#"299 - "unknown field \"spec\"""#]);
    assert_eq!(warned.body.get("spec"), None);
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = Harness::new().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.send("POST", CONFIG_MAPS, &object).await;
    let path = format!("{CONFIG_MAPS}/a");
    let marked = server.delete(&path).await;
    assert_eq!(
        (marked.code, marked.body["metadata"]["deletionTimestamp"].as_str()),
        (200, Some("2026-01-01T00:00:00Z"))
    );
    assert_eq!(server.get(&path).await.code, 200);
    let added =
        server.send_as("PATCH", &path, MERGE, r#"{"metadata":{"finalizers":["example.com/hold","b.c/d"]}}"#).await;
    assert_eq!(added.code, 422);
    let freed = server.send_as("PATCH", &path, MERGE, r#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!(freed.code, 200);
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn preconditions_of_a_deletion() {
    let server = Harness::new().await;
    server.config_map("a").await;
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    let refused = server.send("DELETE", &format!("{CONFIG_MAPS}/a"), &options).await;
    assert_eq!((refused.code, refused.body["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_ends_through_its_finalizer() {
    let server = Harness::new().await;
    let created = server.send("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "dev"}})).await;
    assert_eq!(created.code, 201);
    assert_eq!(created.body["status"]["phase"], "Active");
    let marked = server.delete("/api/v1/namespaces/dev").await;
    assert_eq!(marked.body["status"]["phase"], "Terminating");
    let mut finalized = server.get("/api/v1/namespaces/dev").await.body;
    finalized["spec"]["finalizers"] = json!([]);
    assert_eq!(server.send("PUT", "/api/v1/namespaces/dev/finalize", &finalized).await.code, 200);
    assert_eq!(server.get("/api/v1/namespaces/dev").await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn status_changes_only_through_its_own_door() {
    let server = Harness::new().await;
    let node = json!({"metadata": {"name": "n"}, "status": {"phase": "Running"}});
    assert_eq!(server.send("POST", "/api/v1/nodes", &node).await.code, 201);
    let patch = r#"{"spec":{"unschedulable":true},"status":{"phase":"Terminated"}}"#;
    let patched = server.send_as("PATCH", "/api/v1/nodes/n", MERGE, patch).await;
    assert_eq!(
        (&patched.body["spec"]["unschedulable"], &patched.body["status"]["phase"]),
        (&json!(true), &json!("Running"))
    );
    let patch = r#"{"spec":{"unschedulable":false},"status":{"phase":"Terminated"}}"#;
    let patched = server.send_as("PATCH", "/api/v1/nodes/n/status", MERGE, patch).await;
    assert_eq!(
        (&patched.body["spec"]["unschedulable"], &patched.body["status"]["phase"]),
        (&json!(true), &json!("Terminated"))
    );
}

#[tokio::test(start_paused = true)]
async fn concurrent_patches_are_all_kept() {
    let server = Harness::new().await;
    server.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..20).map(|n| {
        let (server, path) = (&server, path.as_str());
        async move { server.send_as("PATCH", path, MERGE, format!(r#"{{"data":{{"n{n}":"x"}}}}"#)).await.code }
    });
    assert!(futures::future::join_all(patches).await.iter().all(|code| *code == 200));
    assert_eq!(server.get(&path).await.body["data"].as_object().unwrap().len(), 21);
}
