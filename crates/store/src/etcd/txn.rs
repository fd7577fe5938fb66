//! A commit as an etcd transaction.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::{CALL_TIMEOUT, Root, Shared, failure};
use crate::{Entry, Error, Precondition, Revision, Write, limits};

impl Shared {
    /// All writes or none. Whether they happened is unknown after [`Error::Unavailable`].
    pub(super) async fn commit(&self, writes: Vec<Write>) -> Result<Revision, Error> {
        limits::check(&writes)?;
        let mut stale_lease = false;
        loop {
            let txn = self.transaction(&writes).await?;
            let reply = tokio::time::timeout(CALL_TIMEOUT, self.kv.clone().txn(txn)).await;
            match reply {
                Ok(Ok(reply)) => return outcome(&self.root, &writes, &reply),
                // A lease that we meant to share was revoked, or ended while etcd was away: once more with a new one.
                Ok(Err(error)) if !stale_lease && failure::is_lease_gone(&error) => {
                    stale_lease = true;
                    self.leases.forget().await;
                }
                Ok(Err(error)) => return Err(failure::of(error)),
                Err(_) => return Err(Error::Unavailable(format!("etcd did not answer within {CALL_TIMEOUT:?}"))),
            }
        }
    }

    async fn transaction(&self, writes: &[Write]) -> Result<Txn, Error> {
        let (mut compares, mut operations, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for write in writes {
            let key = self.root.outer(write.key());
            compares.extend(compare(write, key.clone()));
            reads.push(TxnOp::get(key.clone(), None));
            operations.push(match write {
                Write::Delete { .. } => TxnOp::delete(key, None),
                Write::Put { value, ttl, .. } => {
                    let lease = match ttl {
                        Some(ttl) => self.leases.lease(*ttl).await?,
                        None => 0,
                    };
                    TxnOp::put(key, value.to_vec(), Some(PutOptions::new().with_lease(lease)))
                }
            });
        }
        Ok(Txn::new().when(compares).and_then(operations).or_else(reads))
    }
}

/// What etcd must find for the write to happen.
fn compare(write: &Write, key: Vec<u8>) -> Option<Compare> {
    let compare = |op, revision: Revision| Some(Compare::mod_revision(key, op, revision as i64));
    match write {
        Write::Put { precondition, .. } => match precondition {
            Precondition::None => None,
            Precondition::Absent => compare(CompareOp::Equal, 0),
            // Zero would mean that the key is absent.
            Precondition::Revision(0) => compare(CompareOp::Less, 0),
            Precondition::Revision(revision) => compare(CompareOp::Equal, *revision),
        },
        Write::Delete { precondition, .. } => match precondition {
            Precondition::None => compare(CompareOp::Greater, 0),
            Precondition::Absent | Precondition::Revision(0) => compare(CompareOp::Less, 0),
            Precondition::Revision(revision) => compare(CompareOp::Equal, *revision),
        },
    }
}

fn outcome(root: &Root, writes: &[Write], reply: &TxnResponse) -> Result<Revision, Error> {
    if reply.succeeded() {
        let header = reply.header().ok_or_else(|| Error::Unavailable("etcd answered without a header".into()))?;
        return Ok(header.revision() as u64);
    }
    for (index, (write, read)) in writes.iter().zip(reply.op_responses()).enumerate() {
        let current: Option<Entry> = match read {
            TxnOpResponse::Get(found) => found.kvs().first().and_then(|kv| root.entry(kv)),
            _ => None,
        };
        if !write.allowed_on(current.as_ref().map(|entry| entry.revision)) {
            return Err(Error::Precondition { index, current });
        }
    }
    Err(Error::Unavailable("etcd refused a commit whose preconditions hold".into()))
}
