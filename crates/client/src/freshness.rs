//! The freshness gate: nobody decides again on a cache that has not yet seen their own last write.
//!
//! Instead of counting expected events, a key stays with its worker until the caches of the kinds it wrote
//! have reached the revisions of its writes. A delete's answer need not carry a revision: there the gate
//! waits until the object is gone or leaving.

use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use kube::Resource;

use crate::{Key, informer::Informer};

/// A cache that lags longer than this is not waited for: the watch must be broken, and a decision on
/// old state is safe, only wasteful.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What one write must have become in the cache of its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// The cache has seen this revision.
    Revision(u64),
    /// The object with this uid is gone or has a deletionTimestamp.
    Leaving { key: Key, uid: String },
}

/// The part of an informer that the gate needs, whatever its kind.
trait View: Send + Sync {
    fn seen<'a>(&'a self, mark: &'a Mark) -> BoxFuture<'a, ()>;
}

impl<K: Resource + Send + Sync + 'static> View for Informer<K> {
    fn seen<'a>(&'a self, mark: &'a Mark) -> BoxFuture<'a, ()> {
        match mark {
            Mark::Revision(revision) => Box::pin(self.reached(*revision)),
            Mark::Leaving { key, uid } => Box::pin(self.leaving(&key.namespace, &key.name, uid)),
        }
    }
}

/// The caches that one controller reads.
#[derive(Default)]
pub struct Gate {
    views: Vec<(String, Box<dyn View>)>,
}

impl Gate {
    /// Adds the cache of a kind.
    pub fn watch<K: Resource<DynamicType = ()> + Send + Sync + 'static>(&mut self, informer: &Informer<K>) {
        self.views.push((K::kind(&()).into_owned(), Box::new(informer.clone())));
    }

    /// Waits until the caches show these writes, given as kind and mark. Kinds that no cache holds pass.
    pub async fn pass(&self, marks: &[(String, Mark)]) {
        let waits = marks.iter().flat_map(|(kind, mark)| {
            self.views.iter().filter(move |(viewed, _)| viewed == kind).map(move |(_, view)| view.seen(mark))
        });
        if tokio::time::timeout(WAIT_MAX, join_all(waits)).await.is_err() {
            tracing::warn!(?marks, "a cache did not show our own writes within {WAIT_MAX:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn named(name: &str, uid: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {"namespace": "n", "name": name, "uid": uid}})).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_opens_for_what_the_cache_shows_and_after_a_while_for_anything() {
        let mut gate = Gate::default();
        gate.watch(&Informer::holding([named("a", "1")], &[]));
        let leaving = |uid: &str| Mark::Leaving { key: Key::new("n", "a"), uid: uid.into() };
        let since = tokio::time::Instant::now();
        gate.pass(&[("ConfigMap".into(), leaving("0")), ("Pod".into(), Mark::Revision(9))]).await;
        assert_eq!(since.elapsed(), Duration::ZERO);
        gate.pass(&[("ConfigMap".into(), leaving("1"))]).await;
        assert_eq!(since.elapsed(), WAIT_MAX);
    }
}
