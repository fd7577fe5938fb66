//! Every write of a run, and what must hold of each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use futures::StreamExt;
use serde_json::Value;
use store::{Change, Notice, Revision, Store};

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    pub revision: Revision,
    pub key: String,
    /// The object afterwards; `Null` when it was deleted.
    pub object: Value,
}

#[derive(Default)]
struct Record {
    writes: Vec<Write>,
    /// Pod UID to Node, from the moment of the binding.
    bound: HashMap<String, String>,
    violations: Vec<String>,
}

/// The writes so far; clones share them.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Record>>);

impl History {
    /// Follows a store from its beginning, as long as the runtime lives.
    pub async fn follow(store: Arc<dyn Store>) -> Result<Self, store::Error> {
        let history = Self::default();
        let mut watch = store.watch("", 0).await?;
        let record = history.clone();
        tokio::spawn(async move {
            while let Some(notice) = watch.notices.next().await {
                match notice {
                    Ok(Notice::Changes(changes)) => {
                        changes.into_iter().for_each(|change| record.lock().take_in(change))
                    }
                    Ok(Notice::Progress(_)) => {}
                    Err(error) => record.lock().violations.push(format!("the history is lost: {error}")),
                }
            }
        });
        Ok(history)
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("nobody panics while recording")
    }

    /// How many writes there were.
    pub fn len(&self) -> usize {
        self.lock().writes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The writes from number `from` on.
    pub fn since(&self, from: usize) -> Vec<Write> {
        self.lock().writes.get(from..).unwrap_or_default().to_vec()
    }

    /// What must never happen, and did.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The last writes, one a line; Leases are left out.
    pub fn recent(&self, count: usize) -> String {
        let record = self.lock();
        let lines = record.writes.iter().rev().filter(|write| !is_heartbeat(write)).take(count);
        let mut lines: Vec<String> = lines.map(line).collect();
        lines.reverse();
        lines.join("\n")
    }
}

impl Record {
    fn take_in(&mut self, change: Change) {
        let newest = self.writes.last().map_or(0, |write| write.revision);
        if change.revision < newest {
            self.violations.push(format!("revision {} of {} follows {newest}", change.revision, change.key));
        }
        let object = change.value.map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap_or_default());
        if let (Some(uid), Some(node)) = (object["metadata"]["uid"].as_str(), object["spec"]["nodeName"].as_str()) {
            let first = self.bound.entry(uid.to_owned()).or_insert_with(|| node.to_owned());
            if first != node {
                self.violations.push(format!("{} was bound to {first} and then to {node}", change.key));
            }
        }
        self.writes.push(Write { revision: change.revision, key: change.key.to_string(), object });
    }
}

/// Whether this write only says that somebody lives.
pub fn is_heartbeat(write: &Write) -> bool {
    write.key.starts_with("leases")
}

fn line(write: &Write) -> String {
    let object = &write.object;
    let what = match object {
        Value::Null => "deleted".to_owned(),
        object if write.key.starts_with("events") => format!("{}: {}", object["reason"], object["message"]),
        object => format!(
            "generation {} node {} phase {} deleting {} replicas {} status {}",
            object["metadata"]["generation"],
            object["spec"]["nodeName"],
            object["status"]["phase"],
            object["metadata"]["deletionTimestamp"],
            object["spec"]["replicas"],
            object["status"]["replicas"],
        ),
    };
    format!("{:>6} {} {what}", write.revision, write.key)
}
