//! `kill -9` in the middle of commits: what was acknowledged is there, and nothing is there by half.
//!
//! This program starts itself once more as the victim, which says on stdout what was acknowledged.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use store::{Embedded, Options, Precondition, Store};

use crate::backends::{delete, put, put_if, under};

const VICTIM: &str = "STORE_KILL_TEST_VICTIM";
const WRITERS: usize = 16;

/// Does nothing, unless it is the victim.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Embedded::open(Path::new(&path), Options::default()).await.unwrap());
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer)));
        futures::future::join_all(writers).await;
    });
}

/// Writes pairs whose halves are equal, and now and then deletes one, until it is killed.
async fn write(store: Arc<Embedded>, writer: usize) {
    let (left, right) = (format!("left/{writer:02}"), format!("right/{writer:02}"));
    for round in 1_u64.. {
        let (last, revision) = store.get(&left).await.unwrap();
        let number = last.as_ref().map_or(revision, |entry| number(&entry.value)) + round;
        let value = format!("{number:0>500}");
        let guard = last.as_ref().map_or(Precondition::Absent, |entry| Precondition::Revision(entry.revision));
        let deletes = last.is_some() && round % 7 == 0;
        let writes = match deletes {
            true => vec![delete(&left), delete(&right)],
            false => vec![put_if(&left, &value, guard), put(&right, &value)],
        };
        let revision = store.commit(writes).await.unwrap();
        let number = if deletes { 0 } else { number };
        let mut parent = std::io::stdout();
        writeln!(parent, "\nacknowledged {revision} {writer} {number}").unwrap();
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn start_victim(path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kill::victim", "--nocapture"]).env(VICTIM, path);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Lets a victim write, kills it after so many acknowledgements, and returns all that it made, by writer.
fn acknowledged_before_kill(path: &Path, count: usize) -> BTreeMap<usize, (u64, u64)> {
    let mut victim = start_victim(path);
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = BTreeMap::new();
    let mut seen = 0;
    for line in lines {
        // The kill may cut the last line; a number is whole only with the one after it.
        let words: Vec<_> = line.split(' ').collect();
        let ["acknowledged", revision, writer, number] = words[..] else { continue };
        acknowledged.insert(writer.parse().unwrap(), (revision.parse().unwrap(), number.parse().unwrap()));
        seen += 1;
        if seen == count {
            victim.kill().unwrap();
        }
    }
    assert!(seen >= count, "the victim died by itself");
    victim.wait().unwrap();
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_there_by_half() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut newest = 0;
    for count in [1, 20, 150, 400, 777, 1_500] {
        let acknowledged = acknowledged_before_kill(&path, count);
        runtime.block_on(async {
            let store = Embedded::open(&path, Options::default()).await.unwrap();
            let revision = store.revision().await.unwrap();
            let page = store.list(under("left/")).await.unwrap();
            let right = store.list(under("right/")).await.unwrap();
            let halves = |page: store::Page| page.entries.into_iter().map(|entry| (entry.revision, entry.value));
            assert!(halves(page.clone()).eq(halves(right)), "a pair is there by half");

            for (writer, (acked, value)) in acknowledged {
                assert!(acked <= revision && revision >= newest, "revision {acked} went back to {revision}");
                let key = format!("left/{writer:02}");
                match store.get(&key).await.unwrap().0 {
                    Some(entry) if entry.revision == acked => assert_eq!(number(&entry.value), value),
                    // A later commit, which was durable but not told any more.
                    Some(entry) => assert!(entry.revision > acked, "{key} went back to {}", entry.revision),
                    None => {
                        let gone = store.list(store::List { at: Some(acked), ..under(&key) }).await.unwrap();
                        assert!(value == 0 || !gone.entries.is_empty(), "{key} is lost");
                        assert!(value == 0 || revision > acked, "{key} is lost");
                    }
                }
            }
            newest = revision;
        });
    }
}
