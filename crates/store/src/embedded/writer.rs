//! The one thread that writes: stage what waits, one fsync, publish, answer.

use std::sync::Arc;

use jiff::Timestamp;
use redb::Durability;
use tokio::sync::{mpsc, oneshot};

use super::{closed, disk::Disk, record};
use crate::{Error, Revision, Write, mvcc::Mvcc};

/// Commits that share one fsync, at most.
const BATCH_COMMITS_MAX: usize = 256;

pub(super) enum Job {
    Commit(Vec<Write>),
    /// Delete the keys that are due.
    Expire,
    Compact(Revision),
}

pub(super) struct Request {
    pub job: Job,
    /// When it was asked: what a `ttl` counts from.
    pub now: Timestamp,
    pub reply: oneshot::Sender<Result<Revision, Error>>,
}

pub(super) struct Writer {
    requests: mpsc::UnboundedReceiver<Request>,
    disk: Disk,
    mvcc: Arc<Mvcc>,
    /// Why nothing can be written any more: after a failed write the file's state is known only by reading it anew.
    failed: Option<Error>,
}

impl Writer {
    pub fn new(requests: mpsc::UnboundedReceiver<Request>, disk: Disk, mvcc: Arc<Mvcc>) -> Self {
        Self { requests, disk, mvcc, failed: None }
    }

    /// Serves until nobody can ask any more.
    pub fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.requests.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH_COMMITS_MAX
                && let Ok(request) = self.requests.try_recv()
            {
                batch.push(request);
            }
            self.serve(batch.drain(..));
        }
        self.mvcc.close(&closed());
    }

    fn serve(&mut self, batch: impl Iterator<Item = Request>) {
        let (mut objects, now) = (self.mvcc.objects(), self.mvcc.clock.now());
        let (mut commits, mut records, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        for Request { job, now, reply } in batch {
            let staged = match job {
                Job::Commit(writes) => objects.stage(writes, now).map(Some),
                Job::Expire => Ok(objects.stage_expired(now)),
                Job::Compact(revision) => {
                    let _ = reply.send(self.compact(revision));
                    continue;
                }
            };
            if let Ok(Some(commit)) = &staged {
                records.push((commit.revision, record::encode(commit, |key| objects.deadline(key))));
            }
            // Refusals wait for the fsync too: they show states that are not durable yet.
            replies.push((reply, staged.as_ref().map(|_| objects.revision()).map_err(Error::clone)));
            commits.extend(staged.ok().flatten());
        }
        match self.append(&records) {
            Err(error) => replies.into_iter().for_each(|(reply, _)| drop(reply.send(Err(error.clone())))),
            Ok(()) => {
                if !commits.is_empty() {
                    self.mvcc.publish(objects, commits, now);
                }
                replies.into_iter().for_each(|(reply, result)| drop(reply.send(result)));
                self.tidy();
            }
        }
    }

    fn append(&mut self, records: &[(Revision, Vec<u8>)]) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if records.is_empty() => Ok(()),
            None => self.disk.append(records).map_err(|error| self.fail(&error)),
        }
    }

    fn tidy(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.disk.tidy(self.mvcc.oldest())
        {
            self.fail(&error);
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<Revision, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.mvcc.compact(revision)?;
        match self.disk.fold(self.mvcc.oldest(), Durability::Immediate) {
            Ok(()) => Ok(revision),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// From here on the store can only be read. Whether the commits of this write took effect is unknown.
    fn fail(&mut self, error: &redb::Error) -> Error {
        let why = format!("cannot write {}: {error}", self.disk.path().display());
        tracing::error!("{why}; the store refuses writes until it is opened again");
        self.failed = Some(Error::Failed(why.clone()));
        Error::Unavailable(why)
    }
}
