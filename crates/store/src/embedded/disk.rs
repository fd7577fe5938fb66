//! The file: a base of objects, and behind it the history of commits, which is also the write-ahead log.
//!
//! A commit appends one record to the history. Now and then the oldest records are folded into the base, so a key that
//! is written often reaches the base once for many commits. Opening reads the base and replays the history.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::record;
use crate::{Error, Key, Revision, objects::Objects, objects::Outcome};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const HISTORY: TableDefinition<'_, Revision, &[u8]> = TableDefinition::new("history");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The revision that the objects table shows.
const BASE: &str = "base";
/// The layout of the three tables and their rows.
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;

/// Pages that redb keeps in memory. Reads never come here, so it serves only the writer.
const CACHE_BYTES: usize = 8 << 20;

/// Records beyond the kept history are folded when there are so many, or so many bytes, of them.
const FOLD_RECORDS: u64 = 1_000;
const FOLD_BYTES: usize = 16 << 20;

pub(super) struct Disk {
    path: PathBuf,
    database: Database,
    base: Revision,
    /// Appended since records were folded last.
    appended_bytes: usize,
}

/// What was in the file.
pub(super) struct Recovered {
    /// As they were at the base.
    pub objects: Objects,
    /// The commits since, oldest first.
    pub records: Vec<(Revision, Vec<(Key, Outcome)>)>,
}

impl Disk {
    /// Opens or makes the file and reads all of it.
    pub fn open(path: &Path) -> Result<(Self, Recovered), Error> {
        create_private(path).map_err(|error| refused(path, error.into()))?;
        // The check reads the file once more, and turns damage into an error where redb would panic later.
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.create(path).map_err(|error| refused(path, error.into()))?;
        let mut disk = Self { path: path.to_owned(), database, base: 0, appended_bytes: 0 };
        disk.initialise().map_err(|error| refused(path, error))?;
        let recovered = disk.load().map_err(|error| refused(path, error))?;
        Ok((disk, recovered))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn initialise(&mut self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            transaction.open_table(OBJECTS)?;
            transaction.open_table(HISTORY)?;
            let mut meta = transaction.open_table(META)?;
            let format = meta.get(FORMAT)?.map(|format| format.value());
            match format {
                None => drop(meta.insert(FORMAT, FORMAT_NOW)?),
                Some(FORMAT_NOW) => {}
                Some(other) => return Err(damaged(format!("it has format {other}; this program knows {FORMAT_NOW}"))),
            }
        }
        Ok(transaction.commit()?)
    }

    fn load(&mut self) -> Result<Recovered, redb::Error> {
        let transaction = self.database.begin_read()?;
        self.base = transaction.open_table(META)?.get(BASE)?.map_or(0, |base| base.value());

        let mut objects = Objects::at(self.base);
        for row in transaction.open_table(OBJECTS)?.iter()? {
            let (key, row) = row?;
            let decoded = record::decode_row(row.value()).filter(|(revision, _)| *revision <= self.base);
            let (revision, outcome) = decoded.ok_or_else(|| damaged(format!("object {} is damaged", key.value())))?;
            objects.restore(&Key::from(key.value()), revision, outcome);
        }
        let mut records = Vec::new();
        for (expected, row) in (self.base + 1..).zip(transaction.open_table(HISTORY)?.iter()?) {
            let (revision, row) = row?;
            let outcomes = record::decode(Bytes::copy_from_slice(row.value()));
            let whole = outcomes.filter(|_| revision.value() == expected);
            records.push((expected, whole.ok_or_else(|| damaged(format!("commit {expected} is damaged or missing")))?));
        }
        Ok(Recovered { objects, records })
    }

    /// Writes commits; they are on the disk when it returns.
    pub fn append(&mut self, records: &[(Revision, Vec<u8>)]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut history = transaction.open_table(HISTORY)?;
            for (revision, record) in records {
                history.insert(revision, record.as_slice())?;
                self.appended_bytes += record.len();
            }
        }
        Ok(transaction.commit()?)
    }

    /// Folds records up to `oldest` into the base when that is worth while. It is made durable by the next append:
    /// until then a crash only brings back the records.
    pub fn tidy(&mut self, oldest: Revision) -> Result<(), redb::Error> {
        let surplus = oldest.saturating_sub(self.base);
        if surplus >= FOLD_RECORDS || (surplus > 0 && self.appended_bytes >= FOLD_BYTES) {
            self.fold(oldest, Durability::None)
        } else {
            Ok(())
        }
    }

    /// Makes the base show `revision`, which is in the history, and drops the records up to it.
    pub fn fold(&mut self, revision: Revision, durability: Durability) -> Result<(), redb::Error> {
        if revision <= self.base {
            return Ok(());
        }
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        fold(&transaction, revision)?;
        transaction.commit()?;
        self.base = revision;
        self.appended_bytes = 0;
        Ok(())
    }
}

fn fold(transaction: &WriteTransaction, base: Revision) -> Result<(), redb::Error> {
    let mut latest = BTreeMap::new();
    for row in transaction.open_table(HISTORY)?.extract_from_if(..=base, |_, _| true)? {
        let (revision, row) = row?;
        let revision = revision.value();
        let outcomes = record::decode(Bytes::copy_from_slice(row.value()));
        let outcomes = outcomes.ok_or_else(|| damaged(format!("commit {revision} is damaged")))?;
        latest.extend(outcomes.into_iter().map(|(key, outcome)| (key, (revision, outcome))));
    }
    let mut objects = transaction.open_table(OBJECTS)?;
    for (key, (revision, outcome)) in latest {
        match outcome {
            Some((value, deadline)) => {
                drop(objects.insert(&*key, record::encode_row(revision, &value, deadline).as_slice())?);
            }
            None => drop(objects.remove(&*key)?),
        }
    }
    transaction.open_table(META)?.insert(BASE, base)?;
    Ok(())
}

/// Makes an empty file that only its owner can read (it will hold Secrets), unless there is one.
fn create_private(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(directory)?.sync_all()
        }
    }
}

fn damaged(why: String) -> redb::Error {
    redb::Error::Corrupted(why)
}

fn refused(path: &Path, error: redb::Error) -> Error {
    let path = path.display();
    Error::Failed(match error {
        redb::Error::DatabaseAlreadyOpen => format!("{path} is in use by another process"),
        redb::Error::Io(error) if error.kind() != ErrorKind::InvalidData => format!("cannot open {path}: {error}"),
        error => format!("{path} is damaged or not a store (nothing in it was changed): {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Commit;

    fn stored(objects: &Objects) -> Vec<(String, Revision)> {
        let (entries, _) = objects.page("", None, None);
        entries.into_iter().map(|entry| (entry.key.to_string(), entry.revision)).collect()
    }

    #[test]
    fn folding_changes_what_history_is_kept_but_not_what_is_stored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (mut disk, recovered) = Disk::open(&path).unwrap();
        let mut objects = recovered.objects;
        for (revision, key, value) in [(1, "a", Some("1")), (2, "b", Some("2")), (3, "a", None), (4, "c", Some("4"))] {
            let outcome = value.map(|value| (Bytes::from(value), None));
            let commit: Commit = objects.apply(revision, [(Key::from(key), outcome)]);
            disk.append(&[(revision, record::encode(&commit, |_| None))]).unwrap();
        }
        for (base, kept) in [(0, 4), (1, 3), (3, 1), (4, 0)] {
            disk.fold(base, Durability::Immediate).unwrap();
            drop(disk);
            let recovered;
            (disk, recovered) = Disk::open(&path).unwrap();
            assert_eq!((disk.base, recovered.records.len()), (base, kept));
            let mut objects = recovered.objects;
            for (revision, outcomes) in recovered.records {
                objects.apply(revision, outcomes);
            }
            assert_eq!(objects.revision(), 4);
            assert_eq!(stored(&objects), [("b".to_owned(), 2), ("c".to_owned(), 4)]);
        }
    }
}
