//! Gets and lists.

use store::{COMMIT_WRITES_MAX, Error, List, Write};

use crate::backends::{Subject, delete, entry, put, under};

pub async fn get_shows_what_was_committed(subject: Subject) {
    let store = &subject.store;
    let (absent, before) = store.get("pods/a").await.unwrap();
    assert_eq!(absent, None);
    let first = store.commit(vec![put("pods/a", "1")]).await.unwrap();
    assert!(first > before);
    assert_eq!(store.get("pods/a").await.unwrap(), (Some(entry("pods/a", "1", first)), first));
    let second = store.commit(vec![put("pods/a", "2")]).await.unwrap();
    let third = store.commit(vec![put("pods/b", "")]).await.unwrap();
    assert_eq!(store.get("pods/a").await.unwrap(), (Some(entry("pods/a", "2", second)), third));
    assert_eq!(store.get("pods/b").await.unwrap().0, Some(entry("pods/b", "", third)));
    assert_eq!(store.get("pods/").await.unwrap().0, None);
}

pub async fn a_list_is_sorted_and_stays_under_its_prefix(subject: Subject) {
    let store = &subject.store;
    let keys = ["pods/b/x", "pods.apps/a", "pods/a/y", "podsx/z", "pods/a/x", "nodes/n", "pods/é/x"];
    for key in keys {
        store.commit(vec![put(key, key)]).await.unwrap();
    }
    let listed = async |list: List| {
        let page = store.list(list).await.unwrap();
        assert_eq!((page.more, page.remaining), (false, Some(0)));
        assert_eq!(page.revision, store.revision().await.unwrap());
        page.entries.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(under("pods/")).await, ["pods/a/x", "pods/a/y", "pods/b/x", "pods/é/x"]);
    assert_eq!(listed(under("pods/a/")).await, ["pods/a/x", "pods/a/y"]);
    assert_eq!(listed(under("services/")).await, [""; 0]);
    assert_eq!(listed(under("")).await.len(), keys.len());
    assert_eq!(listed(List { after: Some("pods/a/y".into()), ..under("pods/") }).await, ["pods/b/x", "pods/é/x"]);
    assert_eq!(listed(List { after: Some("a".into()), ..under("pods/a/") }).await, ["pods/a/x", "pods/a/y"]);
    assert_eq!(listed(List { after: Some("z".into()), ..under("pods/a/") }).await, [""; 0]);
}

pub async fn pages_together_show_one_revision(subject: Subject) {
    let store = &subject.store;
    for key in ["k/1", "k/2", "k/3", "k/4", "k/5"] {
        store.commit(vec![put(key, "old")]).await.unwrap();
    }
    let first = store.list(List { limit: Some(2), ..under("k/") }).await.unwrap();
    assert_eq!((first.entries.len(), first.more, first.remaining), (2, true, Some(3)));

    store.commit(vec![put("k/4", "new"), delete("k/5"), put("k/35", "new"), put("k/9", "new")]).await.unwrap();

    let after = first.entries.last().map(|entry| entry.key.clone());
    let rest = List { limit: Some(2), after, at: Some(first.revision), ..under("k/") };
    let second = store.list(rest.clone()).await.unwrap();
    assert_eq!((second.entries.len(), second.more, second.remaining), (2, true, Some(1)));
    assert_eq!(second.revision, first.revision);
    let last = List { after: second.entries.last().map(|entry| entry.key.clone()), ..rest };
    let third = store.list(last).await.unwrap();
    assert_eq!((third.entries.len(), third.more, third.remaining), (1, false, Some(0)));

    let entries = [first.entries, second.entries, third.entries].concat();
    let expected: Vec<_> = (1..=5).map(|n| entry(&format!("k/{n}"), "old", entries[n - 1].revision)).collect();
    assert_eq!(entries, expected);
}

pub async fn a_limit_of_zero_counts(subject: Subject) {
    let store = &subject.store;
    let empty = store.list(List { limit: Some(0), ..under("k/") }).await.unwrap();
    assert_eq!((empty.entries.len(), empty.more, empty.remaining), (0, false, Some(0)));
    store.commit(vec![put("k/1", ""), put("k/2", "")]).await.unwrap();
    let two = store.list(List { limit: Some(0), ..under("k/") }).await.unwrap();
    assert_eq!((two.entries.len(), two.more, two.remaining), (0, true, Some(2)));
}

pub async fn the_past_can_be_listed(subject: Subject) {
    let store = &subject.store;
    let mut moments = vec![store.list(under("k/")).await.unwrap()];
    let commits = [
        vec![put("k/a", "1"), put("k/b", "1")],
        vec![put("k/a", "2"), put("other/x", "1")],
        vec![delete("k/b")],
        vec![put("other/x", "2")],
        vec![put("k/b", "3"), delete("k/a")],
    ];
    for commit in commits {
        store.commit(commit).await.unwrap();
        moments.push(store.list(under("k/")).await.unwrap());
    }
    for moment in &moments {
        let page = store.list(List { at: Some(moment.revision), ..under("k/") }).await.unwrap();
        assert_eq!(&page, moment);
    }
    let now = moments[5].revision;
    let future = store.list(List { at: Some(now + 1), ..under("k/") }).await;
    assert_eq!(future, Err(Error::Future { requested: now + 1, current: now }));
}

pub async fn a_long_list_of_large_values_comes_whole(subject: Subject) {
    let store = &subject.store;
    let keys: Vec<String> = (0..6_000).map(|n| format!("many/{n:05}")).collect();
    for keys in keys.chunks(COMMIT_WRITES_MAX) {
        let writes: Vec<Write> = keys.iter().map(|key| put(key, &"x".repeat(1_000))).collect();
        store.commit(writes).await.unwrap();
    }
    for n in 0..6 {
        store.commit(vec![put(&format!("large/{n}"), &"y".repeat(1_400_000))]).await.unwrap();
    }
    let page = store.list(under("many/")).await.unwrap();
    assert_eq!((page.more, page.remaining), (false, Some(0)));
    assert!(page.entries.iter().map(|entry| &*entry.key).eq(keys.iter().map(String::as_str)));
    assert_eq!(store.list(under("large/")).await.unwrap().entries.len(), 6);
    let most = store.list(List { limit: Some(5_500), ..under("many/") }).await.unwrap();
    assert_eq!((most.entries.len(), most.more, most.remaining), (5_500, true, Some(500)));
}
