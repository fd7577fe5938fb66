//! How commits and objects lie on disk. Numbers are little-endian.
//!
//! A history record is a run of changes: key length `u32`, key, deadline `i64` (milliseconds since 1970; 0: never;
//! -1: the key was deleted, and nothing follows), value length `u32`, value.
//! An object row is: revision `u64`, deadline `i64`, value.

use bytes::{Buf, BufMut, Bytes};
use jiff::Timestamp;

use crate::{Key, Revision, journal::Commit, objects::Outcome};

const NEVER: i64 = 0;
const DELETED: i64 = -1;

/// The record of one commit; `deadline` tells when a key that it wrote expires.
pub(super) fn encode(commit: &Commit, deadline: impl Fn(&str) -> Option<Timestamp>) -> Vec<u8> {
    let mut record = Vec::new();
    for change in &commit.changes {
        record.put_u32_le(change.key.len() as u32);
        record.put_slice(change.key.as_bytes());
        match &change.value {
            None => record.put_i64_le(DELETED),
            Some(value) => {
                record.put_i64_le(millis(deadline(&change.key)));
                record.put_u32_le(value.len() as u32);
                record.put_slice(value);
            }
        }
    }
    record
}

/// What a commit did, or `None` when the record is damaged. Values share the record's memory.
pub(super) fn decode(mut record: Bytes) -> Option<Vec<(Key, Outcome)>> {
    let mut outcomes = Vec::new();
    while record.has_remaining() {
        let length = record.try_get_u32_le().ok()?;
        let key = Key::from(std::str::from_utf8(&take(&mut record, length)?).ok()?);
        let outcome = match record.try_get_i64_le().ok()? {
            DELETED => None,
            millis => {
                let length = record.try_get_u32_le().ok()?;
                Some((take(&mut record, length)?, deadline(millis)?))
            }
        };
        outcomes.push((key, outcome));
    }
    Some(outcomes)
}

/// The row of one object.
pub(super) fn encode_row(revision: Revision, value: &[u8], deadline: Option<Timestamp>) -> Vec<u8> {
    let mut row = Vec::with_capacity(16 + value.len());
    row.put_u64_le(revision);
    row.put_i64_le(millis(deadline));
    row.put_slice(value);
    row
}

/// The object of a row, or `None` when it is damaged.
pub(super) fn decode_row(mut row: &[u8]) -> Option<(Revision, Outcome)> {
    let revision = row.try_get_u64_le().ok()?;
    let deadline = deadline(row.try_get_i64_le().ok()?)?;
    Some((revision, Some((Bytes::copy_from_slice(row), deadline))))
}

fn take(record: &mut Bytes, length: u32) -> Option<Bytes> {
    let length = length as usize;
    (record.len() >= length).then(|| record.split_to(length))
}

/// Rounded up, so that no key expires early because of a restart.
fn millis(deadline: Option<Timestamp>) -> i64 {
    deadline.map_or(NEVER, |deadline| deadline.as_millisecond() + 1)
}

/// `Some(None)` is no deadline; `None` is none that could have been written.
fn deadline(millis: i64) -> Option<Option<Timestamp>> {
    match millis {
        NEVER => Some(None),
        1.. => Some(Some(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Change;

    #[test]
    fn a_record_reads_back_and_a_cut_one_is_refused() {
        let change = |key: &str, value: Option<&'static str>| Change {
            key: key.into(),
            value: value.map(Bytes::from),
            previous: None,
            revision: 7,
        };
        let changes = vec![change("a", Some("1")), change("gone", None), change("leased", Some(""))];
        let expires = Timestamp::from_millisecond(5_000).unwrap();
        let record = encode(&Commit { revision: 7, changes }, |key| (key == "leased").then_some(expires));
        let later = Timestamp::from_millisecond(5_001).unwrap();
        let expected = vec![
            ("a".into(), Some(("1".into(), None))),
            ("gone".into(), None),
            ("leased".into(), Some(("".into(), Some(later)))),
        ];
        assert_eq!(decode(record.clone().into()), Some(expected));
        assert_eq!(decode(Bytes::from(record).slice(..20)), None);
    }

    #[test]
    fn a_row_reads_back() {
        let row = encode_row(3, b"value", None);
        assert_eq!(decode_row(&row), Some((3, Some(("value".into(), None)))));
        assert_eq!(decode_row(&row[..9]), None);
    }
}
