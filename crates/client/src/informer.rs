//! Shared informers: one watch per kind, one cache for all who read, and a stream of changes for who asks.
//!
//! [`State`] and `Reflector::step` keep the watch alive; `cache` holds the objects.

mod cache;
mod source;

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, ListParams, WatchEvent, WatchParams},
    core::PartialObjectMeta,
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc::UnboundedReceiver, watch};
use tokio_util::sync::CancellationToken;

use self::{
    cache::Cache,
    source::{MetadataOnly, Source, Whole},
};

/// The server closes a watch after this many seconds; ours reconnects.
const WATCH_SECONDS: u32 = 290;
/// A watch silent for this much longer than it may last is taken for dead.
const WATCH_GRACE: Duration = Duration::from_secs(5);
/// Objects in one page, where the server does not stream lists.
const PAGE_OBJECTS: u32 = 500;
/// Delays between attempts after failures, doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The annotation of the bookmark that closes the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What an object can be found by, besides its name.
pub type Index<K> = (&'static str, fn(&K) -> Vec<String>);

/// Which objects of a kind an informer holds; all by default.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub labels: Option<String>,
    pub fields: Option<String>,
}

/// One change of the cache.
#[derive(Debug)]
pub enum Change<K> {
    Applied { old: Option<Arc<K>>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied { old, new } => Self::Applied { old: old.clone(), new: Arc::clone(new) },
            Self::Deleted(object) => Self::Deleted(Arc::clone(object)),
        }
    }
}

impl<K> Change<K> {
    /// The object after the change, or as it last was.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Deleted(object) => object,
        }
    }

    /// The object before the change, where there was one.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Applied { old, .. } => old.as_ref(),
            Self::Deleted(object) => Some(object),
        }
    }

    /// Both: whoever matched either of them is concerned.
    pub fn both(&self) -> impl Iterator<Item = &Arc<K>> {
        let old = match self {
            Self::Applied { old, .. } => old.as_ref(),
            Self::Deleted(_) => None,
        };
        std::iter::once(self.object()).chain(old)
    }
}

/// How far a cache has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Progress {
    synced: bool,
    revision: u64,
}

/// A watched, indexed cache of one kind; clones share it.
pub struct Informer<K>(Arc<Shared<K>>);

struct Shared<K> {
    cache: RwLock<Cache<K>>,
    progress: watch::Sender<Progress>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Informer<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Watches until `stop`. The cache is complete after [`Self::synced`].
    pub fn start(api: Api<K>, selection: Selection, stop: CancellationToken) -> Self {
        Self::start_indexed(api, selection, &[], stop)
    }

    /// As [`Self::start`], with further indexes for [`Self::indexed`].
    pub fn start_indexed(api: Api<K>, selection: Selection, indexes: &[Index<K>], stop: CancellationToken) -> Self {
        Self::reflect(Whole(api), selection, indexes, stop)
    }
}

impl Informer<PartialObjectMeta<DynamicObject>> {
    /// Watches only the metadata of a kind that is known at run time.
    pub fn start_metadata(api: Api<DynamicObject>, selection: Selection, stop: CancellationToken) -> Self {
        Self::reflect(MetadataOnly(api), selection, &[], stop)
    }
}

impl<K> Informer<K>
where
    K: Resource + Send + Sync + 'static,
{
    fn reflect(
        source: impl Source<Object = K>,
        selection: Selection,
        indexes: &[Index<K>],
        stop: CancellationToken,
    ) -> Self {
        let informer = Self::detached(indexes);
        let reflector =
            Reflector { source, selection, informer: informer.clone(), state: State::Empty, streaming: true };
        tokio::spawn(async move {
            tokio::select! { () = reflector.run() => (), () = stop.cancelled() => () }
        });
        informer
    }

    fn detached(indexes: &[Index<K>]) -> Self {
        let shared =
            Shared { cache: RwLock::new(Cache::new(indexes)), progress: watch::Sender::new(Progress::default()) };
        Self(Arc::new(shared))
    }

    /// A complete cache of these objects which nothing watches: for tests of what reads informers.
    pub fn holding(objects: impl IntoIterator<Item = K>, indexes: &[Index<K>]) -> Self {
        let informer = Self::detached(indexes);
        informer.replace(objects.into_iter().collect(), 0);
        informer
    }

    /// The object of this name; the namespace is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.0.cache.read().get(namespace, name)
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.cache.read().list()
    }

    /// The objects of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.0.cache.read().in_namespace(namespace)
    }

    /// The objects whose controller reference has this uid, by namespace and name.
    pub fn owned_by(&self, owner_uid: &str) -> Vec<Arc<K>> {
        self.0.cache.read().indexed(cache::BY_OWNER, owner_uid)
    }

    /// The objects that an index given at start files under `value`, by namespace and name.
    pub fn indexed(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        self.0.cache.read().indexed(index, value)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.cache.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest resourceVersion seen, bookmarks included; 0 before the first list.
    pub fn revision(&self) -> u64 {
        self.0.progress.borrow().revision
    }

    /// Waits until the cache is complete.
    pub async fn synced(&self) {
        self.until(|progress| progress.synced).await;
    }

    pub fn is_synced(&self) -> bool {
        self.0.progress.borrow().synced
    }

    /// Waits until the cache holds everything up to `revision`.
    pub async fn reached(&self, revision: u64) {
        self.until(|progress| progress.synced && progress.revision >= revision).await;
    }

    /// Waits until the object with this uid is gone or being deleted.
    pub async fn leaving(&self, namespace: &str, name: &str, uid: &str) {
        let has_left = |_: &Progress| {
            self.get(namespace, name).is_none_or(|object| {
                object.meta().deletion_timestamp.is_some() || object.meta().uid.as_deref() != Some(uid)
            })
        };
        self.until(has_left).await;
    }

    async fn until(&self, reached: impl FnMut(&Progress) -> bool) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.progress.subscribe().wait_for(reached).await;
    }

    /// All changes from now on; first one `Applied` for each object that exists already.
    pub fn subscribe(&self) -> UnboundedReceiver<Change<K>> {
        self.0.cache.write().subscribe()
    }

    fn apply(&self, object: K) {
        let revision = revision_of(&object);
        self.0.cache.write().apply(object);
        self.advance(revision);
    }

    fn delete(&self, object: &K) {
        self.0.cache.write().remove(object.meta().namespace.as_deref().unwrap_or_default(), &object.name_any());
        self.advance(revision_of(object));
    }

    fn replace(&self, objects: Vec<K>, revision: u64) {
        self.0.cache.write().replace(objects);
        self.0.progress.send_modify(|progress| *progress = Progress { synced: true, revision });
    }

    fn advance(&self, revision: u64) {
        self.0.progress.send_modify(|progress| progress.revision = progress.revision.max(revision));
    }
}

/// The revision of an object as a number; 0 where a server's is not one.
pub fn revision_of(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().map_or(0, parse_revision)
}

fn parse_revision(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Where a reflector stands.
enum State<K> {
    /// Nothing is known: everything must be read.
    Empty,
    /// The server streams what exists; `received` replaces the cache at the closing bookmark.
    Initial { stream: BoxStream<'static, kube::Result<WatchEvent<K>>>, received: Vec<K> },
    /// The cache holds everything up to `revision`; no watch is open.
    Listed { revision: String },
    /// The cache holds everything up to `revision`, and changes arrive.
    Watching { revision: String, stream: BoxStream<'static, kube::Result<WatchEvent<K>>> },
}

/// Why a step did not get further; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the request failed")]
    Request(#[from] kube::Error),
    #[error("the watch ended with an error: {0}")]
    Watch(String),
    #[error("the watch ended without an event")]
    Silent,
}

/// Keeps an informer's cache equal to the server's.
struct Reflector<S: Source> {
    source: S,
    selection: Selection,
    informer: Informer<S::Object>,
    state: State<S::Object>,
    /// Whether the server is asked to stream lists; it may not know how.
    streaming: bool,
}

impl<S: Source> Reflector<S> {
    async fn run(mut self) {
        let mut delay = RETRY_MIN;
        loop {
            match self.step().await {
                Ok(()) => delay = RETRY_MIN,
                Err(error) => {
                    tracing::debug!(kind = %self.source.url(), error = &error as &dyn std::error::Error, "watch");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn step(&mut self) -> Result<(), StepError> {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Empty if self.streaming => self.open_initial().await,
            State::Empty => self.list().await,
            State::Initial { stream, received } => self.receive_initial(stream, received).await,
            State::Listed { revision } => self.open(revision).await,
            State::Watching { revision, stream } => self.receive(revision, stream).await,
        }
    }

    fn watch_params(&self) -> WatchParams {
        WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            send_initial_events: false,
        }
    }

    async fn open_initial(&mut self) -> Result<(), StepError> {
        let params = WatchParams { send_initial_events: true, ..self.watch_params() };
        match self.source.watch(&params, "").await {
            Ok(stream) => self.state = State::Initial { stream, received: Vec::new() },
            // The server does not know streaming lists, or does not offer them for this kind.
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 405 | 422) => self.streaming = false,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn receive_initial(
        &mut self,
        mut stream: BoxStream<'static, kube::Result<WatchEvent<S::Object>>>,
        mut received: Vec<S::Object>,
    ) -> Result<(), StepError> {
        loop {
            match next(&mut stream).await.ok_or(StepError::Silent)?? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => received.push(object),
                WatchEvent::Deleted(object) => received.retain(|other| other.meta().uid != object.meta().uid),
                WatchEvent::Bookmark(mark) if mark.metadata.annotations.contains_key(INITIAL_EVENTS_END) => {
                    let revision = mark.metadata.resource_version;
                    self.informer.replace(received, parse_revision(&revision));
                    self.state = State::Watching { revision, stream };
                    return Ok(());
                }
                WatchEvent::Bookmark(_) => (),
                WatchEvent::Error(status) => return Err(StepError::Watch(status.message)),
            }
        }
    }

    async fn list(&mut self) -> Result<(), StepError> {
        let mut objects = Vec::new();
        let mut params = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(PAGE_OBJECTS),
            ..ListParams::default()
        };
        loop {
            let page = self.source.list(&params).await?;
            objects.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let revision = page.metadata.resource_version.unwrap_or_default();
                self.informer.replace(objects, parse_revision(&revision));
                self.state = State::Listed { revision };
                return Ok(());
            }
        }
    }

    async fn open(&mut self, revision: String) -> Result<(), StepError> {
        match self.source.watch(&self.watch_params(), &revision).await {
            Ok(stream) => self.state = State::Watching { revision, stream },
            Err(kube::Error::Api(status)) if status.code == 410 => (),
            Err(error) => {
                self.state = State::Listed { revision };
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn receive(
        &mut self,
        revision: String,
        mut stream: BoxStream<'static, kube::Result<WatchEvent<S::Object>>>,
    ) -> Result<(), StepError> {
        let event = match next(&mut stream).await {
            None => {
                self.state = State::Listed { revision };
                return Err(StepError::Silent);
            }
            Some(Err(error)) => {
                self.state = State::Listed { revision };
                return Err(error.into());
            }
            Some(Ok(event)) => event,
        };
        let version = |object: &S::Object| object.meta().resource_version.clone().unwrap_or_default();
        let revision = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let revision = version(&object);
                self.informer.apply(object);
                revision
            }
            WatchEvent::Deleted(object) => {
                self.informer.delete(&object);
                version(&object)
            }
            WatchEvent::Bookmark(mark) => {
                self.informer.advance(parse_revision(&mark.metadata.resource_version));
                mark.metadata.resource_version
            }
            // Expired: the state stays empty. Anything else: once more from where we are.
            WatchEvent::Error(status) if status.code == 410 => return Err(StepError::Watch(status.message)),
            WatchEvent::Error(status) => {
                self.state = State::Listed { revision };
                return Err(StepError::Watch(status.message));
            }
        };
        self.state = State::Watching { revision, stream };
        Ok(())
    }
}

/// The next event; `None` when the stream has ended or is silent beyond its own end.
async fn next<T>(stream: &mut BoxStream<'static, T>) -> Option<T> {
    let limit = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE;
    tokio::time::timeout(limit, stream.next()).await.ok().flatten()
}

#[cfg(test)]
mod tests;
