//! DELETE of one object and of a collection.

use std::sync::Arc;

use api::{Object, Status, object::ObjectExt};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use store::{Precondition, Revision};

use super::{
    commit::{Put, Refused},
    decode,
    deletion::{Deletion, answers_object, decide, orphans_by_default},
};
use crate::{
    Server,
    admission::Operation,
    allocation,
    cache::{Entry, key, unavailable},
    call::Call,
    options::DeleteOptions,
    respond::{Answer, parse},
};

/// How often a deletion is decided again because the object moved under it.
const ATTEMPTS_MAX: usize = 64;
/// Objects of a collection that are deleted at one time; their commits share an fsync.
const DELETIONS_AT_ONCE_MAX: usize = 32;

/// How a deletion ended.
enum Deleted {
    /// Gone; its last state.
    Gone(Object, Bytes),
    /// Still there, marked.
    Marked(Bytes),
    /// Still there, as before.
    Pending(Object, Bytes),
}

/// Which object: in a collection the request does not say.
struct Target<'a> {
    /// Empty for cluster-scoped kinds.
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Target<'a> {
    fn of(call: &'a Call) -> Self {
        Self { namespace: call.namespace(), name: call.name() }
    }

    fn key(&self, call: &Call) -> store::Key {
        key(call.kind, self.namespace, self.name)
    }
}

/// The object at the time of a decision.
struct Current {
    object: Object,
    revision: Revision,
    /// In stored form, stamped.
    bytes: Bytes,
}

impl Server {
    pub(super) async fn delete(&self, call: &Call) -> Result<Answer, Status> {
        let options = delete_options(call)?;
        let deleted = self.delete_object(call, &Target::of(call), &options).await?;
        let descriptor = call.descriptor();
        let status = |object: &Object| Status::deleted(call.resource(), call.name(), object.uid());
        // Upstream says so only to the oldest of its clients.
        let accepted = if options.orphan_dependents == Some(false) { 202 } else { 200 };
        Ok(match deleted {
            Deleted::Gone(_, bytes) if answers_object(descriptor) => Answer::Object { code: 200, bytes },
            Deleted::Gone(object, _) => Answer::Status(status(&object)),
            Deleted::Marked(bytes) => Answer::Object { code: accepted, bytes },
            Deleted::Pending(_, bytes) if answers_object(descriptor) => Answer::Object { code: accepted, bytes },
            Deleted::Pending(object, _) => Answer::Status(status(&object)),
        })
    }

    /// Deletes what the parameters select. Answers the list of what was selected.
    pub(super) async fn delete_collection(&self, call: &Call) -> Result<Answer, Status> {
        let options = delete_options(call)?;
        let list = self.page(call).await?;
        let delete = |entry: Arc<Entry>| {
            let options = &options;
            async move { self.delete_selected(call, &entry, options).await }
        };
        let deletions = futures::stream::iter(list.entries.clone()).map(delete);
        deletions.buffer_unordered(DELETIONS_AT_ONCE_MAX).try_collect::<()>().await?;
        Ok(Answer::List(list))
    }

    /// Deletes one of a collection; that it is gone already is no failure.
    async fn delete_selected(&self, call: &Call, entry: &Entry, options: &DeleteOptions) -> Result<(), Status> {
        let mut path = entry.key.split('/').skip(1);
        let namespace = if call.descriptor().is_namespaced() { path.next().unwrap_or_default() } else { "" };
        let target = Target { namespace, name: path.next().unwrap_or_default() };
        match self.delete_object(call, &target, options).await {
            Err(status) if status.code != 404 => Err(status),
            _ => Ok(()),
        }
    }

    /// Deletes the object that the request names, which may be a request for a subresource.
    pub(crate) async fn delete_named(&self, call: &Call, options: &DeleteOptions) -> Result<(), Status> {
        self.delete_object(call, &Target::of(call), options).await.map(drop)
    }

    async fn delete_object(
        &self,
        call: &Call,
        target: &Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let key = target.key(call);
        let cached = self.cache.resource(&call.descriptor().stored_as).get(&key);
        let mut current = cached.map(|entry| present(call, &entry));
        let mut is_fresh = false;
        for _ in 0..ATTEMPTS_MAX {
            let refused = match &current {
                Some(current) => self.delete_once(call, target, options, current).await,
                None => Err(Status::not_found(call.resource(), target.name).into()),
            };
            let moved_to = match refused {
                Ok(deleted) => return Ok(deleted),
                Err(Refused::Failed(status)) if is_fresh => return Err(*status),
                Err(Refused::Failed(status)) => {
                    let (entry, _) = self.store.get(&key).await.map_err(unavailable)?;
                    if entry.as_ref().map(|entry| entry.revision) == current.as_ref().map(|current| current.revision) {
                        return Err(*status);
                    }
                    entry
                }
                Err(Refused::Moved(entry)) => entry,
                Err(Refused::ClaimLost) => continue,
            };
            is_fresh = true;
            current = moved_to.map(|entry| {
                let bytes = api::encoding::stamp(&entry.value, entry.revision);
                Current { object: call.kind.from_stored(parse(&bytes)), revision: entry.revision, bytes }
            });
        }
        Err(Status::modified(call.resource(), target.name))
    }

    async fn delete_once(
        &self,
        call: &Call,
        target: &Target<'_>,
        options: &DeleteOptions,
        current: &Current,
    ) -> Result<Deleted, Refused> {
        let old = &current.object;
        options.check(call.resource(), target.name, old)?;
        let mut attributes = self.attributes(call, Operation::Delete, target.name, Some(old));
        (attributes.namespace, attributes.dry_run) = (target.namespace, options.dry_run);
        for step in &self.admission {
            step.validate(&attributes, old).await?;
        }
        match decide(call.descriptor(), old, options, self.clock.now()) {
            Deletion::Pending => Ok(Deleted::Pending(old.clone(), current.bytes.clone())),
            Deletion::Mark(object) => {
                let precondition = Precondition::Revision(current.revision);
                let put = Put { call, key: target.key(call), object, precondition, claims: Vec::new() };
                Ok(Deleted::Marked(self.put(put, options.dry_run).await?))
            }
            Deletion::Now if options.dry_run => Ok(Deleted::Gone(old.clone(), current.bytes.clone())),
            Deletion::Now => {
                let claims = allocation::claims(&attributes, None)?;
                self.remove(target.key(call), current.revision, claims).await?;
                Ok(Deleted::Gone(old.clone(), current.bytes.clone()))
            }
        }
    }
}

fn present(call: &Call, entry: &Arc<Entry>) -> Current {
    Current { object: call.kind.from_stored(parse(&entry.bytes)), revision: entry.revision, bytes: entry.bytes.clone() }
}

fn delete_options(call: &Call) -> Result<DeleteOptions, Status> {
    let options = match call.body.is_empty() {
        true => DeleteOptions::from_query(&call.options),
        false => {
            let mut options = DeleteOptions::from_body(&decode::value(call)?)?;
            options.dry_run |= call.options.dry_run;
            options
        }
    };
    options.validate()?;
    if orphans_by_default(call.descriptor())
        && call.descriptor().kind == "Job"
        && options.propagation_policy.is_none()
        && options.orphan_dependents.is_none()
    {
        call.warnings.push(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them \
             or set propagationPolicy=Orphan to suppress this warning",
        );
    }
    Ok(options)
}
