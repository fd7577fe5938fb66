//! Commits, deletes, expiry.

use std::{collections::BTreeSet, time::Duration};

use store::{COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, Error, Precondition, Write};

use crate::backends::{Subject, change, changes, delete, delete_if, entry, put, put_for, put_if, under};

pub async fn every_commit_has_a_greater_revision(subject: Subject) {
    let store = &subject.store;
    let mut last = store.revision().await.unwrap();
    for value in ["1", "1", "2"] {
        let revision = store.commit(vec![put("k", value)]).await.unwrap();
        assert!(revision > last);
        assert_eq!(store.revision().await.unwrap(), revision);
        last = revision;
    }
    let _ = store.commit(vec![put_if("k", "3", Precondition::Absent)]).await.unwrap_err();
    assert_eq!(store.revision().await.unwrap(), last);
}

pub async fn preconditions_guard_each_kind_of_write(subject: Subject) {
    use Precondition::{Absent, None as Always, Revision};
    let store = &subject.store;
    let stale = store.commit(vec![put("k", "0")]).await.unwrap();
    for (precondition, if_present, if_absent) in [
        (Always, true, true),
        (Absent, false, true),
        (Revision(stale), false, false),
        (Revision(0), false, false),
        (Revision(u64::MAX >> 2), false, false),
    ] {
        for (present, expected) in [(true, if_present), (false, if_absent)] {
            for is_delete in [false, true] {
                let _ = store.commit(vec![delete("k")]).await;
                let current = match present {
                    true => Some(entry("k", "1", store.commit(vec![put("k", "1")]).await.unwrap())),
                    false => None,
                };
                let write = if is_delete { delete_if("k", precondition) } else { put_if("k", "2", precondition) };
                let result = store.commit(vec![write]).await;
                let label = format!("{precondition:?} present: {present} delete: {is_delete}");
                if expected && (present || !is_delete) {
                    assert!(result.is_ok(), "{label}");
                } else {
                    assert_eq!(result, Err(Error::Precondition { index: 0, current }), "{label}");
                }
            }
        }
    }
    let _ = store.commit(vec![delete("k")]).await;
    let revision = store.commit(vec![put("k", "1")]).await.unwrap();
    let revision = store.commit(vec![put_if("k", "2", Revision(revision))]).await.unwrap();
    store.commit(vec![delete_if("k", Revision(revision))]).await.unwrap();
    assert_eq!(store.get("k").await.unwrap().0, None);
}

pub async fn a_commit_happens_whole_or_not_at_all(subject: Subject) {
    let store = &subject.store;
    let start = store.commit(vec![put("a", "1"), put("b", "1")]).await.unwrap();
    let writes =
        vec![put_if("a", "2", Precondition::Revision(start)), put_if("c", "2", Precondition::Absent), delete("gone")];
    let refused = store.commit(writes).await;
    assert_eq!(refused, Err(Error::Precondition { index: 2, current: None }));
    let both_fail = vec![put("d", "2"), put_if("b", "2", Precondition::Absent), delete("gone")];
    let refused = store.commit(both_fail).await;
    assert_eq!(refused, Err(Error::Precondition { index: 1, current: Some(entry("b", "1", start)) }));
    assert_eq!(store.list(under("")).await.unwrap().entries, [entry("a", "1", start), entry("b", "1", start)]);

    let writes = vec![put_if("a", "2", Precondition::Revision(start)), put("c", "2"), delete("b")];
    let revision = store.commit(writes).await.unwrap();
    assert_eq!(store.list(under("")).await.unwrap().entries, [entry("a", "2", revision), entry("c", "2", revision)]);
}

pub async fn what_no_backend_could_commit_is_refused(subject: Subject) {
    let store = &subject.store;
    let refused = async |writes: Vec<Write>| matches!(store.commit(writes).await, Err(Error::Failed(_)));
    assert!(refused(vec![]).await);
    assert!(refused(vec![put("k", "1"), put("k", "2")]).await);
    assert!(refused(vec![put("k", &"x".repeat(COMMIT_BYTES_MAX))]).await);
    assert!(refused((0..=COMMIT_WRITES_MAX).map(|n| put(&n.to_string(), "")).collect()).await);
    assert_eq!(store.list(under("")).await.unwrap().entries, []);

    store.commit(vec![put("k", &"x".repeat(COMMIT_BYTES_MAX - 1))]).await.unwrap();
    store.commit((0..COMMIT_WRITES_MAX).map(|n| put(&n.to_string(), "")).collect()).await.unwrap();
    assert_eq!(store.list(under("")).await.unwrap().entries.len(), COMMIT_WRITES_MAX + 1);
}

pub async fn a_deleted_key_is_gone_and_can_come_again(subject: Subject) {
    let store = &subject.store;
    let created = store.commit(vec![put("k", "1")]).await.unwrap();
    let mut watch = store.watch("k", created).await.unwrap();
    let deleted = store.commit(vec![delete("k")]).await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), (None, deleted));
    let again = store.commit(vec![put_if("k", "2", Precondition::Absent)]).await.unwrap();
    assert_eq!(changes(&mut watch).await, [change("k", None, Some(entry("k", "1", created)), deleted)]);
    assert_eq!(changes(&mut watch).await, [change("k", Some("2"), None, again)]);
}

pub async fn keys_expire_unless_written_again(subject: Subject) {
    let store = &subject.store;
    let second = Duration::from_secs(1);
    let keys = ["kept", "short", "renewed"];
    let revision = store.commit(keys.map(|key| put_for(key, "1", second)).into()).await.unwrap();
    let kept = store.commit(vec![put("kept", "2")]).await.unwrap();
    let renewed = store.commit(vec![put_for("renewed", "2", 3 * second)]).await.unwrap();
    let mut watch = store.watch("", renewed).await.unwrap();

    let first = changes(&mut watch).await;
    assert_eq!(first, [change("short", None, Some(entry("short", "1", revision)), first[0].revision)]);
    assert_eq!(store.get("short").await.unwrap().0, None);
    assert_eq!(store.get("renewed").await.unwrap().0, Some(entry("renewed", "2", renewed)));
    let second = changes(&mut watch).await;
    assert_eq!(second, [change("renewed", None, Some(entry("renewed", "2", renewed)), second[0].revision)]);
    assert_eq!(store.list(under("")).await.unwrap().entries, [entry("kept", "2", kept)]);
}

pub async fn many_keys_expire_together(subject: Subject) {
    let store = &subject.store;
    let mut waiting: BTreeSet<_> = (0..1_500).map(|n| format!("events/{n}")).collect();
    let keys: Vec<_> = waiting.iter().cloned().collect();
    let mut watch = store.watch("events/", store.revision().await.unwrap()).await.unwrap();
    for keys in keys.chunks(100) {
        store.commit(keys.iter().map(|key| put_for(key, "x", Duration::from_secs(1))).collect()).await.unwrap();
    }
    let mut notices = 0;
    while !waiting.is_empty() {
        notices += 1;
        for change in changes(&mut watch).await.into_iter().filter(|change| change.value.is_none()) {
            assert!(waiting.remove(&*change.key), "{} expired twice", change.key);
        }
    }
    assert!(notices < 100, "{notices} commits to expire 1,500 keys");
    assert_eq!(store.list(under("events/")).await.unwrap().entries, []);
}

pub async fn racing_increments_are_all_counted(subject: Subject) {
    let store = &subject.store;
    store.commit(vec![put("count", "0")]).await.unwrap();
    let increment = |store: std::sync::Arc<dyn store::Store>| async move {
        for _ in 0..25 {
            loop {
                let (current, _) = store.get("count").await.unwrap();
                let current = current.unwrap();
                let count: u32 = std::str::from_utf8(&current.value).unwrap().parse().unwrap();
                let precondition = Precondition::Revision(current.revision);
                match store.commit(vec![put_if("count", &(count + 1).to_string(), precondition)]).await {
                    Ok(_) => break,
                    Err(Error::Precondition { current: Some(other), .. }) => assert!(other.revision > current.revision),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    futures::future::join_all((0..8).map(|_| tokio::spawn(increment(store.clone())))).await;
    assert_eq!(store.get("count").await.unwrap().0.unwrap().value, "200");
}
