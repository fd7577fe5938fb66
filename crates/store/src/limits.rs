//! What one commit may hold: the same for every backend, so that moving to etcd never breaks a caller.

use std::collections::HashSet;

use crate::{Error, Key, Precondition, Revision, Write};

/// Keys and values of one commit, in bytes. A default etcd takes requests of 1.5 MiB; this leaves 36 KiB for what
/// else is in them.
pub const COMMIT_BYTES_MAX: usize = 1_500 * 1024;

/// Writes of one commit. A default etcd takes this many operations in a transaction.
pub const COMMIT_WRITES_MAX: usize = 128;

/// Refuses, with [`Error::Failed`], what no backend could commit.
pub(crate) fn check(writes: &[Write]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Failed(why));
    if writes.is_empty() {
        return refuse("a commit needs at least one write".into());
    }
    if writes.len() > COMMIT_WRITES_MAX {
        return refuse(format!("a commit of {} writes is over the limit of {COMMIT_WRITES_MAX}", writes.len()));
    }
    let bytes: usize = writes.iter().map(Write::bytes).sum();
    if bytes > COMMIT_BYTES_MAX {
        return refuse(format!("a commit of {bytes} bytes is over the limit of {COMMIT_BYTES_MAX} bytes"));
    }
    let mut seen = HashSet::new();
    match writes.iter().find(|write| writes.len() > 1 && !seen.insert(write.key())) {
        Some(twice) => refuse(format!("key {} is written twice in one commit", twice.key())),
        None => Ok(()),
    }
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// Whether this write may happen to a key last written at `current` (`None`: it does not exist).
    pub(crate) fn allowed_on(&self, current: Option<Revision>) -> bool {
        let (precondition, must_exist) = match self {
            Self::Put { precondition, .. } => (precondition, false),
            Self::Delete { precondition, .. } => (precondition, true),
        };
        let holds = match precondition {
            Precondition::None => true,
            Precondition::Absent => current.is_none(),
            Precondition::Revision(revision) => current == Some(*revision),
        };
        holds && (current.is_some() || !must_exist)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, bytes: usize) -> Write {
        Write::Put { key: key.into(), value: vec![0; bytes].into(), precondition: Precondition::None, ttl: None }
    }

    #[test]
    fn names_the_limit_that_was_hit() {
        let refused = |writes: &[Write]| check(writes).unwrap_err().to_string();
        assert_eq!(refused(&[]), "store failed: a commit needs at least one write");
        assert_eq!(
            refused(&[put("a", COMMIT_BYTES_MAX)]),
            "store failed: a commit of 1536001 bytes is over the limit of 1536000 bytes"
        );
        assert_eq!(refused(&[put("a", 1), put("a", 2)]), "store failed: key a is written twice in one commit");
        let many: Vec<_> = (0..=COMMIT_WRITES_MAX).map(|index| put(&index.to_string(), 1)).collect();
        assert_eq!(refused(&many), "store failed: a commit of 129 writes is over the limit of 128");
        assert_eq!(check(&many[1..]), Ok(()));
    }
}
