use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
};

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

fn map(name: &str, revision: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "namespace": "n", "name": name, "uid": name, "resourceVersion": revision.to_string(),
        "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "owner", "controller": true}]}})
}

fn event(r#type: &str, object: Value) -> String {
    format!("{}\n", json!({"type": r#type, "object": object}))
}

fn end(revision: u64) -> String {
    let annotations = json!({INITIAL_EVENTS_END: "true"});
    let metadata = json!({"resourceVersion": revision.to_string(), "annotations": annotations});
    event("BOOKMARK", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))
}

/// A server that gives these answers in order, then hangs; it remembers the queries.
fn server(answers: Vec<(u16, String)>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answers, log, served) = (Mutex::new(VecDeque::from(answers)), Arc::clone(&asked), AtomicUsize::new(0));
    let answers = Arc::new(answers);
    let service = tower::service_fn(move |request: Request<Body>| {
        log.lock().push(request.uri().query().unwrap_or_default().to_owned());
        served.fetch_add(1, Ordering::Relaxed);
        let answers = Arc::clone(&answers);
        async move {
            let next = answers.lock().pop_front();
            let Some((code, text)) = next else { return std::future::pending().await };
            Ok::<_, tower::BoxError>(Response::builder().status(code).body(Body::from(text.into_bytes())).unwrap())
        }
    });
    (Client::new(service, "default"), asked)
}

fn names(informer: &Informer<ConfigMap>) -> Vec<String> {
    informer.list().iter().map(|map| map.name_any()).collect()
}

#[tokio::test(start_paused = true)]
async fn it_streams_the_list_then_follows_and_resumes_where_it_was() {
    let first = event("ADDED", map("a", 1)) + &event("ADDED", map("b", 2)) + &end(7) + &event("MODIFIED", map("a", 8));
    let second = event("DELETED", map("b", 9));
    let (client, asked) = server(vec![(200, first), (200, second)]);
    let informer = Informer::<ConfigMap>::start(Api::all(client), Selection::default(), CancellationToken::new());
    informer.synced().await;
    informer.reached(9).await;
    assert_eq!(names(&informer), ["a"]);
    assert_eq!(informer.owned_by("owner").len(), 1);
    assert!(asked.lock()[0].contains("sendInitialEvents=true"));
    assert!(asked.lock()[1].contains("resourceVersion=8"));
}

#[tokio::test(start_paused = true)]
async fn it_lists_where_the_server_does_not_stream() {
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "5"}, "items": [map("a", 1)]});
    let refusal = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "", "reason": "Invalid", "code": 422});
    let (client, asked) = server(vec![(422, refusal.to_string()), (200, list.to_string())]);
    let informer = Informer::<ConfigMap>::start(Api::all(client), Selection::default(), CancellationToken::new());
    informer.synced().await;
    assert_eq!((names(&informer), informer.revision()), (vec!["a".to_owned()], 5));
    assert!(asked.lock()[1].contains("limit=500"));
}

#[tokio::test(start_paused = true)]
async fn after_an_expired_watch_it_reads_all_and_tells_what_is_gone() {
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "too old", "reason": "Expired", "code": 410});
    let first = event("ADDED", map("a", 1)) + &event("ADDED", map("b", 2)) + &end(7) + &event("ERROR", gone);
    let second = event("ADDED", map("b", 2)) + &event("ADDED", map("c", 9)) + &end(10);
    let (client, _) = server(vec![(200, first), (200, second)]);
    let informer = Informer::<ConfigMap>::start(Api::all(client), Selection::default(), CancellationToken::new());
    let mut changes = informer.subscribe();
    informer.reached(10).await;
    let mut told = Vec::new();
    while let Ok(change) = changes.try_recv() {
        told.push(match change {
            Change::Applied { new, .. } => format!("+{}", new.name_any()),
            Change::Deleted(old) => format!("-{}", old.name_any()),
        });
    }
    assert_eq!(told, ["+a", "+b", "-a", "+c"]);
}
