//! etcd behind the trait: several API servers over one etcd, one revision counter, which is etcd's.
//!
//! One watch over everything under the root feeds a [`Journal`], from which all watchers of this process are
//! served: each event crosses the network once, and the commits of every prefix arrive in one order. A watch
//! from before that journal gets a feed of its own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use clock::Clock;
use etcd_client::{
    Certificate, Client, CompactionOptions, ConnectOptions, GetOptions, GetResponse, Identity, KvClient, TlsOptions,
    WatchClient,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{Entry, Error, Key, List, Page, Retention, Revision, Store, Watch, Write, journal::Journal};

mod failure;
mod feed;
mod leases;
mod txn;

use feed::Feed;
use leases::Leases;

/// A call that takes longer has failed with [`Error::Unavailable`].
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries that one call of a list asks for, so that no single message grows without bound.
const LIST_CALL_ENTRIES: usize = 5_000;
/// How long the feed may take to bring what is committed already, before a marker is written to draw it on.
const FEED_GRACE: Duration = Duration::from_millis(100);

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// Every key lies under this; it ends in `/`.
    pub prefix: String,
    /// A PEM file with the certificates to trust; without it, endpoints are `http://`.
    pub ca_file: Option<PathBuf>,
    /// PEM files with the client's certificate and key; both or none.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self { prefix: "/registry/".into(), ca_file: None, cert_file: None, key_file: None }
    }
}

/// The store in etcd. Cheap reads of the past, resumption and expiry are etcd's own; dropping it ends its watches.
pub struct Etcd {
    shared: Arc<Shared>,
    /// Feeds the journal.
    _feeding: AbortOnDropHandle<()>,
}

/// What the store and its feeds share.
struct Shared {
    root: Root,
    kv: KvClient,
    watch: WatchClient,
    leases: Leases,
    clock: Clock,
    journal: Mutex<Journal>,
    /// How far the journal is.
    position: watch::Sender<Revision>,
    /// Held by the one who writes a marker.
    marking: tokio::sync::Mutex<()>,
    /// Held by every watch that has a feed of its own, which the journal's position says nothing about.
    own_feeds: Arc<()>,
    /// Ends the watches that have a feed of their own.
    closed: CancellationToken,
}

/// Where our keys lie among etcd's.
#[derive(Clone, Debug)]
struct Root {
    prefix: String,
    /// A key just before the prefix, inside the range that feeds watch. Writing it moves every feed on.
    marker: String,
}

impl Root {
    fn new(prefix: &str) -> Result<Self, Error> {
        match prefix.strip_suffix('/') {
            Some(stem) => Ok(Self { prefix: prefix.to_owned(), marker: format!("{stem}.progress") }),
            None => Err(Error::Failed(format!("the prefix of keys in etcd must end in '/': {prefix}"))),
        }
    }

    fn outer(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// Our key of an etcd key; `None` when it is not ours.
    fn inner(&self, key: &[u8]) -> Option<Key> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix).map(Key::from)
    }

    /// The first etcd key after all that lie under `prefix`.
    fn end(&self, prefix: &str) -> Vec<u8> {
        let mut end = self.outer(prefix);
        while end.last() == Some(&0xff) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        end
    }

    fn entry(&self, kv: &etcd_client::KeyValue) -> Option<Entry> {
        let value = Bytes::copy_from_slice(kv.value());
        self.inner(kv.key()).map(|key| Entry { key, value, revision: kv.mod_revision() as u64 })
    }
}

impl Etcd {
    /// Connects to `endpoints` (`https://host:2379` or, for tests, `http://`) and reads the revision once, so that a
    /// wrong address or certificate shows here. Must be called inside a tokio runtime.
    pub async fn connect(endpoints: &[String], options: EtcdOptions) -> Result<Self, Error> {
        let root = Root::new(&options.prefix)?;
        let connect = connect_options(&options).await?;
        let client = Client::connect(endpoints, Some(connect)).await.map_err(failure::of)?;
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        let kv = client.kv_client().max_decoding_message_size(usize::MAX);
        let revision = call(kv.clone().get(root.marker.as_str(), None)).await.and_then(|reply| revision_of(&reply))?;
        let shared = Arc::new(Shared {
            root,
            kv,
            watch: client.watch_client().max_decoding_message_size(usize::MAX),
            leases: Leases::new(client.lease_client(), clock.clone()),
            clock,
            journal: Mutex::new(Journal::new(revision, Retention::default())),
            position: watch::Sender::new(revision),
            marking: tokio::sync::Mutex::default(),
            own_feeds: Arc::default(),
            closed: CancellationToken::new(),
        });
        let feeding = AbortOnDropHandle::new(tokio::spawn(feed::fill_journal(shared.clone(), revision)));
        Ok(Self { shared, _feeding: feeding })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.shared.closed.cancel();
        self.shared.journal.lock().end(&closed());
    }
}

fn closed() -> Error {
    Error::Unavailable("the store was closed".into())
}

async fn connect_options(options: &EtcdOptions) -> Result<ConnectOptions, Error> {
    let connect = ConnectOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        // etcd closes connections that ping more often than every 5 s.
        .with_keep_alive(Duration::from_secs(30), Duration::from_secs(10))
        // A member that is cut off from its leader ends our watches instead of staying silent.
        .with_require_leader(true);
    let Some(ca_file) = &options.ca_file else {
        return Ok(connect);
    };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca_file).await?));
    match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert).await?, read(key).await?)),
        (None, None) => {}
        _ => return Err(Error::Failed("etcd's client certificate and its key go together".into())),
    }
    Ok(connect.with_tls(tls))
}

async fn read(file: &PathBuf) -> Result<Vec<u8>, Error> {
    tokio::fs::read(file).await.map_err(|error| Error::Failed(format!("cannot read {}: {error}", file.display())))
}

/// Waits for etcd's answer, but not for ever: a balanced channel without a live endpoint would.
async fn call<T>(call: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(reply) => reply.map_err(failure::of),
        Err(_) => Err(Error::Unavailable(format!("etcd did not answer within {CALL_TIMEOUT:?}"))),
    }
}

fn revision_of(reply: &GetResponse) -> Result<Revision, Error> {
    let header = reply.header().ok_or_else(|| Error::Unavailable("etcd answered without a header".into()))?;
    Ok(header.revision() as u64)
}

impl Shared {
    async fn range(&self, key: Vec<u8>, options: GetOptions) -> Result<GetResponse, Error> {
        call(self.kv.clone().get(key, Some(options))).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        revision_of(&self.range(self.root.marker.clone().into(), GetOptions::new().with_count_only()).await?)
    }

    /// Puts the numbers, which etcd does not tell, into an error about `requested`.
    async fn explained(&self, error: Error, requested: Revision) -> Error {
        match error {
            Error::Compacted { .. } => {
                Error::Compacted { requested, oldest: self.journal.lock().oldest().max(requested + 1) }
            }
            Error::Future { .. } => match self.revision().await {
                Ok(current) => Error::Future { requested, current },
                Err(error) => error,
            },
            other => other,
        }
    }

    /// Fails when `revision` cannot be watched from: it is compacted or in the future.
    async fn check(&self, revision: Revision) -> Result<(), Error> {
        // etcd is born at revision 1, and takes 0 for "now".
        let options = GetOptions::new().with_count_only().with_revision(revision.max(1) as i64);
        match self.range(self.root.marker.clone().into(), options).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explained(error, revision).await),
        }
    }

    /// One call of a list: what it found and how much follows. `at` zero is now.
    async fn page(&self, list: &List, at: Revision, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let start = match after.filter(|after| *after >= list.prefix.as_str()) {
            Some(after) => [self.root.outer(after).as_slice(), b"\0"].concat(),
            None => self.root.outer(&list.prefix),
        };
        let options = GetOptions::new().with_range(self.root.end(&list.prefix)).with_revision(at as i64);
        // A limit of zero means none to etcd.
        let options = if limit == 0 { options.with_count_only() } else { options.with_limit(limit as i64) };
        let reply = match self.range(start, options).await {
            Ok(reply) => reply,
            Err(error) => return Err(self.explained(error, at).await),
        };
        let entries: Vec<_> = reply.kvs().iter().filter_map(|kv| self.root.entry(kv)).collect();
        let remaining = (reply.count() as u64).saturating_sub(entries.len() as u64);
        let revision = if at == 0 { revision_of(&reply)? } else { at };
        Ok(Page::new((entries, remaining), revision))
    }

    /// Waits until the journal shows `revision`.
    async fn reached(&self, revision: Revision, within: Duration) -> Result<(), Error> {
        let mut position = self.position.subscribe();
        let reached = tokio::time::timeout(within, position.wait_for(|position| *position >= revision)).await;
        reached.map(drop).map_err(|_| Error::Unavailable("etcd's watch does not move".into()))
    }

    /// Moves every feed to a revision that is at least `revision`.
    async fn mark(&self, revision: Revision) -> Result<(), Error> {
        let _one_at_a_time = self.marking.lock().await;
        let own_feeds = Arc::strong_count(&self.own_feeds) > 1;
        if own_feeds || *self.position.borrow() < revision {
            call(self.kv.clone().put(self.root.marker.as_str(), "", None)).await?;
        }
        self.reached(revision, CALL_TIMEOUT).await
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        let reply = self.shared.range(self.shared.root.outer(key), GetOptions::new()).await?;
        Ok((reply.kvs().first().and_then(|kv| self.shared.root.entry(kv)), revision_of(&reply)?))
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        if list.at == Some(0) {
            self.shared.check(0).await?;
            return Ok(Page::new((Vec::new(), 0), 0));
        }
        let limit = list.limit.unwrap_or(usize::MAX);
        let (at, after) = (list.at.unwrap_or(0), list.after.as_deref());
        let mut page = self.shared.page(&list, at, after, limit.min(LIST_CALL_ENTRIES)).await?;
        while page.more && page.entries.len() < limit {
            let last = page.entries.last().map(|entry| entry.key.clone());
            let missing = (limit - page.entries.len()).min(LIST_CALL_ENTRIES);
            let next = self.shared.page(&list, page.revision, last.as_deref(), missing).await?;
            page.entries.extend(next.entries);
            (page.more, page.remaining) = (next.more, next.remaining);
        }
        Ok(page)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, Error> {
        self.shared.commit(writes).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let (oldest, newest) = {
            let journal = self.shared.journal.lock();
            (journal.oldest(), journal.revision())
        };
        if after > newest || after < oldest {
            self.shared.check(after).await?;
        }
        let served = self.shared.journal.lock().watch(prefix, after);
        match served {
            Err(Error::Compacted { .. }) => Ok(Feed::new(self.shared.clone(), after).watch(prefix)),
            served => served,
        }
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.shared.revision().await
    }

    /// Returns when the running watches have been told a revision that is at least as new as the call.
    ///
    /// etcd's own progress request is not used: before 3.4.25 and 3.5.8 its answer may overtake events. What is
    /// committed under our prefix moves the journal by itself; only when etcd's revision moved for other reasons is
    /// a marker written, whose event cannot overtake those of the same watch.
    async fn request_progress(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let revision = shared.revision().await?;
        let own_feeds = Arc::strong_count(&shared.own_feeds) > 1;
        if own_feeds || shared.reached(revision, FEED_GRACE).await.is_err() {
            shared.mark(revision).await?;
        }
        shared.journal.lock().progress();
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        match call(self.shared.kv.clone().compact(revision as i64, Some(CompactionOptions::new()))).await {
            Ok(_) => self.shared.journal.lock().compact(revision),
            Err(Error::Compacted { .. }) => {}
            Err(error) => return Err(self.shared.explained(error, revision).await),
        }
        Ok(())
    }
}
