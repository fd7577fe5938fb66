//! etcd expires keys by leases; keys of about the same deadline share one, as there may be thousands of them.

use std::{collections::HashMap, time::Duration};

use clock::Clock;
use etcd_client::LeaseClient;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::call;
use crate::Error;

/// Keys on one lease, at most: they are deleted in one revision.
const LEASE_KEYS_MAX: u32 = 1_000;

struct Shared {
    id: i64,
    /// Until then a key put on this lease still lives for its whole `ttl`.
    usable_until: Timestamp,
    keys: u32,
}

/// The leases that keys are put on at present, by `ttl` in seconds.
pub(super) struct Leases {
    client: LeaseClient,
    clock: Clock,
    open: Mutex<HashMap<u64, Shared>>,
}

impl Leases {
    pub fn new(client: LeaseClient, clock: Clock) -> Self {
        Self { client, clock, open: Mutex::default() }
    }

    /// A lease that ends not before `ttl` from now, and not much later: by a twentieth, a second at least, a minute at
    /// most.
    pub async fn lease(&self, ttl: Duration) -> Result<i64, Error> {
        let seconds = (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1);
        let mut open = self.open.lock().await;
        let now = self.clock.now();
        open.retain(|_, shared| shared.usable_until > now && shared.keys < LEASE_KEYS_MAX);
        if let Some(shared) = open.get_mut(&seconds) {
            shared.keys += 1;
            return Ok(shared.id);
        }
        let slack = (seconds / 20).clamp(1, 60);
        let granted = call(self.client.clone().grant((seconds + slack) as i64, None)).await?;
        let usable_until = now.checked_add(Duration::from_secs(slack)).unwrap_or(Timestamp::MAX);
        open.insert(seconds, Shared { id: granted.id(), usable_until, keys: 1 });
        Ok(granted.id())
    }

    /// Forgets all leases, for when etcd says that one is gone.
    pub async fn forget(&self) {
        self.open.lock().await.clear();
    }
}
