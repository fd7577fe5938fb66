//! What the file promises beyond the contract: nothing is lost over restarts, and damage is one clear sentence.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use store::{Embedded, Error, List, Options, Retention, Store};

use crate::backends::{Mirror, change, changes, delete, entry, next, put, put_for, refusal, under};

async fn open(path: &Path) -> Embedded {
    Embedded::open(path, Options::default()).await.unwrap()
}

async fn refused(path: &Path) -> String {
    match Embedded::open(path, Options::default()).await {
        Err(Error::Failed(why)) => why.replace(&path.display().to_string(), "FILE"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
}

#[tokio::test]
async fn objects_revision_and_history_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).await;
    let first = store.commit(vec![put("a", "1"), put("b", "1")]).await.unwrap();
    let second = store.commit(vec![delete("a"), put("c", "2")]).await.unwrap();
    drop(store);

    let store = open(&path).await;
    let entries = [entry("b", "1", first), entry("c", "2", second)];
    assert_eq!(store.list(under("")).await.unwrap().entries, entries);
    let past = store.list(List { at: Some(first), ..under("") }).await.unwrap();
    assert_eq!(past.entries, [entry("a", "1", first), entry("b", "1", first)]);
    let mut watch = store.watch("", first).await.unwrap();
    let replayed = [change("a", None, Some(entry("a", "1", first)), second), change("c", Some("2"), None, second)];
    assert_eq!(changes(&mut watch).await, replayed);
    assert_eq!(store.commit(vec![put("d", "3")]).await.unwrap(), second + 1);
}

#[tokio::test]
async fn a_long_history_is_folded_and_the_file_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let retention = Retention { commits: 10, age: Duration::ZERO, bytes_max: usize::MAX };
    let options = Options { retention, ..Options::default() };
    let store = Arc::new(Embedded::open(&path, options.clone()).await.unwrap());
    let write = |writer: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..100 {
                let (key, value) = (format!("k{}", writer % 8), format!("{round:0>3000}"));
                store.commit(vec![put(&key, &value)]).await.unwrap();
            }
        })
    };
    futures::future::join_all((0..64).map(write)).await;
    let page = store.list(under("")).await.unwrap();
    assert_eq!(page.revision, 6_400);
    let old = store.watch("", page.revision - 11).await;
    assert!(matches!(refusal(old).await, Error::Compacted { .. }));
    drop(store);

    let store = Embedded::open(&path, options).await.unwrap();
    assert_eq!(store.list(under("")).await.unwrap(), page);
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!(bytes < 19_200_000 / 2, "the file has {bytes} bytes");
}

#[tokio::test]
async fn deadlines_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).await;
    store.commit(vec![put_for("folded", "1", Duration::from_secs(1))]).await.unwrap();
    let folded = store.commit(vec![put("kept", "1")]).await.unwrap();
    store.compact(folded).await.unwrap();
    let last = store.commit(vec![put_for("logged", "1", Duration::from_secs(1))]).await.unwrap();
    drop(store);

    let store = open(&path).await;
    let mut watch = store.watch("", last).await.unwrap();
    let mut mirror = Mirror::at(store.list(List { at: Some(last), ..under("") }).await.unwrap().entries, last);
    while mirror.objects.len() > 1 {
        mirror.see(next(&mut watch).await.unwrap());
    }
    assert_eq!(mirror.entries(), [entry("kept", "1", folded)]);
}

#[tokio::test]
async fn compaction_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).await;
    let first = store.commit(vec![put("a", "1")]).await.unwrap();
    let second = store.commit(vec![put("a", "2")]).await.unwrap();
    store.compact(second).await.unwrap();
    drop(store);
    let store = open(&path).await;
    let compacted = Error::Compacted { requested: first, oldest: second };
    assert_eq!(refusal(store.watch("", first).await).await, compacted);
    assert_eq!(store.get("a").await.unwrap(), (Some(entry("a", "2", second)), second));
}

#[tokio::test]
async fn the_file_is_for_its_owner_only_and_for_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let _store = open(&path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(refused(&path).await, "FILE is in use by another process");
}

#[tokio::test]
async fn a_file_that_is_damaged_or_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let missing = directory.path().join("missing/store");
    assert_eq!(refused(&missing).await, "cannot open FILE: No such file or directory (os error 2)");

    let store = open(&path).await;
    for n in 0..200 {
        store.commit(vec![put(&format!("k{n}"), &"x".repeat(2_000))]).await.unwrap();
    }
    drop(store);
    let sound = std::fs::read(&path).unwrap();
    let half = sound.len() / 2;
    let mut scratched = sound.clone();
    scratched[4096..half].iter_mut().for_each(|byte| *byte ^= 0x55);
    for damaged in [b"this is a letter, not a store".repeat(1_000), sound[..half].to_vec(), scratched] {
        std::fs::write(&path, &damaged).unwrap();
        let why = refused(&path).await;
        assert!(why.starts_with("FILE is damaged or not a store (nothing in it was changed): "), "{why}");
        assert!(std::fs::read(&path).unwrap() == damaged, "the damaged file was changed");
    }
    std::fs::write(&path, &sound).unwrap();
    assert_eq!(open(&path).await.list(under("")).await.unwrap().entries.len(), 200);
}
