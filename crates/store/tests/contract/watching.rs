//! Watches, compaction, progress.

use std::sync::Arc;

use store::{Error, List, Notice, Store};

use crate::backends::{Mirror, Subject, change, changes, delete, entry, next, put, refusal, under};

pub async fn a_watch_delivers_every_kind_of_change(subject: Subject) {
    let store = &subject.store;
    let mut watch = store.watch("pods/", store.revision().await.unwrap()).await.unwrap();
    let first = store.commit(vec![put("pods/a", "1"), put("nodes/n", "1"), put("pods/b", "1")]).await.unwrap();
    store.commit(vec![put("nodes/n", "2")]).await.unwrap();
    let second = store.commit(vec![delete("pods/a"), put("pods/b", "2"), put("pods.x", "1")]).await.unwrap();

    let created = [change("pods/a", Some("1"), None, first), change("pods/b", Some("1"), None, first)];
    assert_eq!(changes(&mut watch).await, created);
    let changed = [
        change("pods/a", None, Some(entry("pods/a", "1", first)), second),
        change("pods/b", Some("2"), Some(entry("pods/b", "1", first)), second),
    ];
    assert_eq!(changes(&mut watch).await, changed);
}

pub async fn a_watch_from_the_past_replays_it(subject: Subject) {
    let store = &subject.store;
    let start = store.revision().await.unwrap();
    let mut revisions = Vec::new();
    for value in ["1", "2", "3"] {
        revisions.push(store.commit(vec![put("k", value)]).await.unwrap());
        store.commit(vec![put("other", value)]).await.unwrap();
    }
    for (skip, from) in [start, revisions[0], revisions[1]].into_iter().enumerate() {
        let mut watch = store.watch("k", from).await.unwrap();
        for &revision in &revisions[skip..] {
            assert_eq!(changes(&mut watch).await[0].revision, revision);
        }
        revisions.push(store.commit(vec![put("k", "live")]).await.unwrap());
        assert_eq!(changes(&mut watch).await[0].revision, *revisions.last().unwrap());
    }
}

pub async fn a_watch_resumes_where_another_stopped(mut subject: Subject) {
    let start = subject.store.revision().await.unwrap();
    let mut mirror = Mirror { revision: start, ..Mirror::default() };
    for round in 0..4 {
        let mut watch = subject.store.watch("k/", mirror.revision).await.unwrap();
        for key in ["k/1", "k/2", "other", "k/3"] {
            subject.store.commit(vec![put(key, &round.to_string())]).await.unwrap();
        }
        mirror.see(Notice::Changes(changes(&mut watch).await));
        mirror.see(Notice::Changes(changes(&mut watch).await));
        drop(watch);
        subject = subject.restart().await;
    }
    let page = subject.store.list(under("k/")).await.unwrap();
    let mut watch = subject.store.watch("k/", mirror.revision).await.unwrap();
    mirror.follow(&mut watch, page.entries.last().unwrap().revision).await;
    assert_eq!(mirror.entries(), page.entries);
}

pub async fn compacted_and_future_revisions_are_refused(subject: Subject) {
    let store = &subject.store;
    let mut revisions = Vec::new();
    for value in ["1", "2", "3", "4"] {
        revisions.push(store.commit(vec![put("k", value)]).await.unwrap());
    }
    let [_, old, middle, now] = revisions[..] else { panic!() };
    let mut running = store.watch("k", now).await.unwrap();
    store.compact(middle).await.unwrap();
    store.compact(middle).await.unwrap();
    store.compact(old).await.unwrap();

    let is_compacted = |error: Error| matches!(error, Error::Compacted { requested, .. } if requested == old);
    assert!(is_compacted(refusal(store.watch("k", old).await).await));
    assert!(is_compacted(store.list(List { at: Some(old), ..under("k") }).await.unwrap_err()));
    let page = store.list(List { at: Some(middle), ..under("k") }).await.unwrap();
    assert_eq!(page.entries, [entry("k", "3", middle)]);
    let mut watch = store.watch("k", middle).await.unwrap();
    assert_eq!(changes(&mut watch).await, [change("k", Some("4"), Some(entry("k", "3", middle)), now)]);

    let future = Error::Future { requested: now + 5, current: now };
    assert_eq!(refusal(store.watch("k", now + 5).await).await, future);
    assert_eq!(store.compact(now + 5).await, Err(future));

    store.compact(now).await.unwrap();
    let revision = store.commit(vec![put("k", "5")]).await.unwrap();
    assert_eq!(changes(&mut running).await[0].revision, revision);
}

pub async fn progress_comes_after_the_changes_it_covers(mut subject: Subject) {
    for restarted in [false, true] {
        let store = &subject.store;
        let start = store.revision().await.unwrap();
        for n in 0..20 {
            store.commit(vec![put("busy/k", &n.to_string()), put("quiet/k", &n.to_string())]).await.unwrap();
        }
        let now = store.commit(vec![put("busy/k", "last")]).await.unwrap();
        if restarted {
            subject = subject.restart().await;
        }
        let mut watch = subject.store.watch("quiet/", start).await.unwrap();
        subject.store.request_progress().await.unwrap();
        let mut seen = 0;
        loop {
            match next(&mut watch).await.unwrap() {
                Notice::Changes(changes) => seen += changes.len(),
                Notice::Progress(revision) if revision >= now => break,
                Notice::Progress(revision) => assert!(revision >= start),
            }
        }
        assert_eq!(seen, 20);
    }
}

pub async fn a_watch_under_concurrent_writers_equals_the_list(subject: Subject) {
    let store = &subject.store;
    let start = store.list(under("")).await.unwrap();
    let mut early = store.watch("", start.revision).await.unwrap();
    let writer = |number: usize, store: Arc<dyn Store>| async move {
        for round in 0..40 {
            let value = format!("{number}/{round}");
            let (mine, shared) = (format!("w{number}/{}", round % 5), format!("shared/{}", round % 3));
            let writes = match round % 4 {
                3 => vec![delete(&mine), put(&shared, &value)],
                _ => vec![put(&mine, &value), put(&shared, &value)],
            };
            match store.commit(writes).await {
                Ok(_) | Err(Error::Precondition { index: 0, current: None }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let writers: Vec<_> = (0..8).map(|number| tokio::spawn(writer(number, store.clone()))).collect();

    // A second watcher joins while they write.
    let mut mirror = Mirror { revision: start.revision, ..Mirror::default() };
    mirror.see(Notice::Changes(changes(&mut early).await));
    let middle = store.list(under("")).await.unwrap();
    let mut late = store.watch("", middle.revision).await.unwrap();
    let mut joined = Mirror::at(middle.entries, middle.revision);

    futures::future::join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
    let end = store.commit(vec![put("end", "")]).await.unwrap();
    mirror.follow(&mut early, end).await;
    joined.follow(&mut late, end).await;
    let page = store.list(under("")).await.unwrap();
    assert_eq!(mirror.entries(), page.entries);
    assert_eq!(joined.entries(), page.entries);
}

pub async fn a_watch_ends_when_the_store_closes(subject: Subject) {
    let mut watch = subject.store.watch("", subject.store.revision().await.unwrap()).await.unwrap();
    drop(subject);
    assert!(matches!(next(&mut watch).await, Err(Error::Unavailable(_))));
}
