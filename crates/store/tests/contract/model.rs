//! Random histories, held against a model that keeps every moment as a plain map.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use store::{Entry, Error, Key, List, Precondition, Revision, Write};

use crate::backends::{Mirror, Subject, refusal, under};

const KEYS: [&str; 6] = ["a/1", "a/2", "a/3", "ab/1", "b/1", "b/2"];
const PREFIXES: [&str; 4] = ["", "a/", "b", "c/"];

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(usize, Action)>),
    List { prefix: usize, after: Option<usize>, limit: Option<usize>, back: Option<usize> },
    Watch { prefix: usize, back: usize },
    Compact { back: usize },
    Restart,
}

#[derive(Clone, Copy, Debug)]
struct Action {
    /// `None` deletes.
    value: Option<u8>,
    when: When,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    Absent,
    /// At the key's own revision, if it has one.
    Current,
    Stale,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let when =
        prop_oneof![4 => Just(When::Always), 1 => Just(When::Absent), 2 => Just(When::Current), 1 => Just(When::Stale)];
    let action = (proptest::option::weighted(0.7, 0..9u8), when).prop_map(|(value, when)| Action { value, when });
    let list = (0..PREFIXES.len(), proptest::option::of(0..KEYS.len()), proptest::option::of(0..4usize));
    let list = (list, proptest::option::of(0..12usize));
    let list = list.prop_map(|((prefix, after, limit), back)| Step::List { prefix, after, limit, back });
    let step = prop_oneof![
        12 => vec((0..KEYS.len(), action), 1..4).prop_map(Step::Commit),
        5 => list,
        3 => (0..PREFIXES.len(), 0..12usize).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        1 => (0..6usize).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..40)
}

type Moment = BTreeMap<Key, Entry>;

struct Model {
    /// What there was at each revision, oldest first.
    moments: Vec<(Revision, Moment)>,
    compacted: Revision,
}

impl Model {
    fn now(&self) -> &(Revision, Moment) {
        self.moments.last().unwrap()
    }

    /// The moment so many commits ago.
    fn back(&self, back: usize) -> &(Revision, Moment) {
        &self.moments[self.moments.len().saturating_sub(back + 1)]
    }

    /// What the commit does, or the write that forbids it.
    fn commit(&self, writes: &[Write]) -> Result<impl Fn(Revision) -> Moment, usize> {
        let present = |write: &Write| self.now().1.get(write.key());
        let allowed = |write: &Write| match write {
            Write::Put { precondition: Precondition::None, .. } => true,
            Write::Delete { precondition: Precondition::None, .. } => present(write).is_some(),
            Write::Put { precondition: Precondition::Absent, .. } => present(write).is_none(),
            Write::Delete { precondition: Precondition::Absent, .. } => false,
            Write::Put { precondition: Precondition::Revision(revision), .. }
            | Write::Delete { precondition: Precondition::Revision(revision), .. } => {
                present(write).is_some_and(|entry| entry.revision == *revision)
            }
        };
        match writes.iter().position(|write| !allowed(write)) {
            Some(index) => Err(index),
            None => Ok(move |revision| {
                let mut moment = self.now().1.clone();
                for write in writes {
                    match write.clone() {
                        Write::Put { key, value, .. } => moment.insert(key.clone(), Entry { key, value, revision }),
                        Write::Delete { key, .. } => moment.remove(&key),
                    };
                }
                moment
            }),
        }
    }

    fn writes(&self, actions: &[(usize, Action)]) -> Vec<Write> {
        let unique: BTreeMap<_, _> = actions.iter().copied().collect();
        let write = |(key, Action { value, when }): (usize, Action)| {
            let key = Key::from(KEYS[key]);
            let precondition = match (when, self.now().1.get(&key)) {
                (When::Always, _) => Precondition::None,
                (When::Absent, _) | (When::Current, None) => Precondition::Absent,
                (When::Current, Some(entry)) => Precondition::Revision(entry.revision),
                (When::Stale, _) => Precondition::Revision(self.moments[0].0),
            };
            match value {
                Some(value) => Write::Put { key, value: vec![value; 3].into(), precondition, ttl: None },
                None => Write::Delete { key, precondition },
            }
        };
        unique.into_iter().map(write).collect()
    }

    fn page(&self, list: &List, moment: &Moment) -> (Vec<Entry>, u64) {
        let matches = |entry: &&Entry| {
            entry.key.starts_with(&list.prefix) && list.after.as_ref().is_none_or(|after| entry.key > *after)
        };
        let found: Vec<_> = moment.values().filter(matches).cloned().collect();
        let taken = list.limit.unwrap_or(found.len()).min(found.len());
        (found[..taken].to_vec(), (found.len() - taken) as u64)
    }
}

async fn commit(subject: &Subject, model: &mut Model, actions: &[(usize, Action)]) {
    let writes = model.writes(actions);
    let result = subject.store.commit(writes.clone()).await;
    let moment = match (model.commit(&writes), result) {
        (Ok(moment_at), Ok(revision)) => {
            assert!(revision > model.now().0);
            (revision, moment_at(revision))
        }
        (Err(expected), Err(Error::Precondition { index, current })) => {
            assert_eq!(index, expected);
            assert_eq!(current.as_ref(), model.now().1.get(writes[index].key()));
            return;
        }
        (expected, result) => panic!("{result:?}, but the model says {:?}", expected.err()),
    };
    model.moments.push(moment);
}

async fn list(subject: &Subject, model: &Model, list: List) {
    let at = list.at.unwrap_or(model.now().0);
    let result = subject.store.list(list.clone()).await;
    if at < model.compacted {
        assert!(matches!(result, Err(Error::Compacted { requested, .. }) if requested == at), "{result:?}");
        return;
    }
    let page = result.unwrap();
    let (_, moment) = model.moments.iter().rfind(|(revision, _)| *revision <= at).unwrap();
    let (entries, remaining) = model.page(&list, moment);
    assert_eq!((page.entries, page.remaining, page.more), (entries, Some(remaining), remaining > 0));
    assert!(page.revision >= at);
}

async fn watch(subject: &Subject, model: &Model, prefix: &str, back: usize) {
    let (start, moment) = model.back(back);
    let watch = subject.store.watch(prefix, *start).await;
    if *start < model.compacted {
        assert!(matches!(refusal(watch).await, Error::Compacted { requested, .. } if requested == *start));
        return;
    }
    let under = |moment: &Moment| model.page(&under(prefix), moment).0;
    let mut mirror = Mirror::at(under(moment), *start);
    let mut watch = watch.unwrap();
    subject.store.request_progress().await.unwrap();
    mirror.follow(&mut watch, model.now().0).await;
    assert_eq!(mirror.entries(), under(&model.now().1));
}

async fn run(mut subject: Subject, steps: Vec<Step>) -> Subject {
    let start = subject.store.list(under("")).await.unwrap();
    let moment = start.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    let mut model = Model { moments: vec![(start.revision, moment)], compacted: 0 };
    for step in steps {
        match step {
            Step::Commit(actions) => commit(&subject, &mut model, &actions).await,
            Step::List { prefix, after, limit, back } => {
                let after = after.map(|key| KEYS[key].into());
                let at = back.map(|back| model.back(back).0);
                list(&subject, &model, List { prefix: PREFIXES[prefix].into(), after, limit, at }).await;
            }
            Step::Watch { prefix, back } => watch(&subject, &model, PREFIXES[prefix], back).await,
            Step::Compact { back } => {
                let revision = model.back(back).0;
                subject.store.compact(revision).await.unwrap();
                model.compacted = model.compacted.max(revision);
            }
            Step::Restart => subject = subject.restart().await,
        }
    }
    watch(&subject, &model, "", 5).await;
    subject
}

fn check<F: Future<Output = Subject>>(cases: u32, start: impl Fn() -> F) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tested = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async { drop(run(start().await, steps).await) });
        Ok(())
    });
    tested.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn memory_behaves_as_the_model() {
    check(300, Subject::memory);
}

#[test]
fn embedded_behaves_as_the_model() {
    check(40, Subject::embedded_file);
}

#[cfg(feature = "etcd")]
#[test]
fn etcd_behaves_as_the_model() {
    check(12, Subject::etcd_server);
}
