//! One file on this machine: every object in memory, every commit on disk before anybody sees it.
//!
//! Callers hand their commits to one writer thread. It stages all that wait on a snapshot, writes them with one fsync,
//! publishes them, and only then answers. Readers and watchers never touch the disk.

use std::{path::Path, sync::Arc, thread::JoinHandle};

use async_trait::async_trait;
use clock::Clock;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::{Entry, Error, List, Page, Retention, Revision, Store, Watch, Write, mvcc::Mvcc};

mod disk;
mod record;
mod writer;

use disk::Disk;
use writer::{Job, Request};

/// Commits that may wait for the writer; more of them wait in their callers.
const QUEUE_COMMITS_MAX: usize = 1_024;

/// How an embedded store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much history is kept, over restarts too.
    pub retention: Retention,
    /// What keys with a `ttl` expire by.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self { retention: Retention::default(), clock: Clock::machine() }
    }
}

/// The store in one file. Dropping it finishes the commits that wait, and closes the file.
pub struct Embedded {
    /// Deletes keys that are due.
    _expiry: AbortOnDropHandle<()>,
    /// Dropped before the writer, which ends when nobody can send to it. Nobody else holds a sender over an `await`.
    requests: mpsc::UnboundedSender<Request>,
    /// What bounds the queue.
    places: Semaphore,
    _writer: Writer,
    mvcc: Arc<Mvcc>,
}

impl Embedded {
    /// Opens the file, or makes a new one, readable by its owner only. Its directory must exist.
    ///
    /// Fails with [`Error::Failed`] when the file is in use, damaged or not a store; it is left as it is.
    /// Must be called inside a tokio runtime.
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || Disk::open(&path)).await;
        let (disk, recovered) = opened.map_err(|error| Error::Failed(format!("opening the store: {error}")))??;

        let mut objects = recovered.objects;
        let mvcc = Arc::new(Mvcc::new(objects.clone(), options.retention, options.clock));
        let replay = recovered.records.into_iter().map(|(revision, outcomes)| objects.apply(revision, outcomes));
        let commits = replay.collect();
        mvcc.publish(objects, commits, mvcc.clock.now());

        let (requests, queue) = mpsc::unbounded_channel();
        let writer = Writer::spawn(writer::Writer::new(queue, disk, mvcc.clone()))?;
        let expiry = AbortOnDropHandle::new(tokio::spawn(expire(mvcc.clone(), requests.downgrade())));
        let places = Semaphore::new(QUEUE_COMMITS_MAX);
        Ok(Self { _expiry: expiry, requests, places, _writer: writer, mvcc })
    }

    async fn ask(&self, job: Job) -> Result<Revision, Error> {
        let _place = self.places.acquire().await.map_err(|_| closed())?;
        submit(&self.requests, job, &self.mvcc.clock)?.await.map_err(|_| closed())?
    }
}

type Answer = oneshot::Receiver<Result<Revision, Error>>;

fn submit(requests: &mpsc::UnboundedSender<Request>, job: Job, clock: &Clock) -> Result<Answer, Error> {
    let (reply, answer) = oneshot::channel();
    requests.send(Request { job, now: clock.now(), reply }).map_err(|_| closed())?;
    Ok(answer)
}

async fn expire(mvcc: Arc<Mvcc>, requests: mpsc::WeakUnboundedSender<Request>) {
    mvcc.expire_forever(async || {
        // Not held while waiting: that would keep the writer from ending.
        let answer = submit(&requests.upgrade().ok_or_else(closed)?, Job::Expire, &mvcc.clock)?;
        answer.await.map_err(|_| closed())?.map(drop)
    })
    .await;
}

fn closed() -> Error {
    Error::Unavailable("the store was closed".into())
}

/// The writer's thread; dropping it waits for its end.
struct Writer(Option<JoinHandle<()>>);

impl Writer {
    fn spawn(writer: writer::Writer) -> Result<Self, Error> {
        let spawned = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run());
        let thread = spawned.map_err(|error| Error::Failed(format!("starting the writer: {error}")))?;
        Ok(Self(Some(thread)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        Ok(self.mvcc.get(key))
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        self.mvcc.list(&list)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, Error> {
        self.ask(Job::Commit(writes)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.mvcc.watch(prefix, after)
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.mvcc.revision())
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.mvcc.progress();
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.ask(Job::Compact(revision)).await.map(drop)
    }
}
