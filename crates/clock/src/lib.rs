//! Time and chance, handed to whoever needs them.
//!
//! **Knows:** the machine's clock and random source, and their simulated counterparts.
//! **Does not know:** anything of Kubernetes.
//! **Invariants:** nothing else in the workspace reads the system clock or draws random bits; under
//! a paused tokio runtime and a seed, every value here is reproducible.
//! **Start reading at:** [`Clock::now`] and [`Chance`].

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use uuid::Uuid;

/// Wall-clock time: the machine's, or a virtual one that advances with tokio's (pausable) clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Machine,
    Virtual { epoch: Timestamp, started: tokio::time::Instant },
    Stopped(Timestamp),
}

impl Clock {
    /// The machine's clock.
    pub fn machine() -> Self {
        Self(Source::Machine)
    }

    /// A clock that reads `epoch` now and follows tokio's time from here on.
    /// Must be called inside a runtime; under `start_paused` it advances only with virtual time.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self(Source::Virtual { epoch, started: tokio::time::Instant::now() })
    }

    /// A clock that always reads `moment`: for tests that compare times.
    pub fn stopped_at(moment: Timestamp) -> Self {
        Self(Source::Stopped(moment))
    }

    /// The present moment.
    #[allow(clippy::disallowed_methods)]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Machine => Timestamp::now(),
            Source::Virtual { epoch, started } => *epoch + started.elapsed(),
            Source::Stopped(moment) => *moment,
        }
    }

    /// From now until `deadline`; zero when it has passed. Feed it to `tokio::time::sleep`.
    pub fn until(&self, deadline: Timestamp) -> Duration {
        Duration::try_from(deadline.duration_since(self.now())).unwrap_or(Duration::ZERO)
    }
}

/// Letters and digits of generated names: no vowels, so that no word appears by accident.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A source of randomness; clones share one stream.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The same seed gives the same stream.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A version 4 UUID.
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0u8; 16];
        self.0.lock().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// `length` characters for a generated name (upstream: `utilrand.String`).
    pub fn suffix(&self, length: usize) -> String {
        let mut rng = self.0.lock();
        (0..length).map(|_| SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())] as char).collect()
    }

    /// A number in `0..bound`; `bound` must not be zero.
    pub fn below(&self, bound: usize) -> usize {
        self.0.lock().random_range(0..bound)
    }

    /// `duration` stretched by a factor in `1.0..1.0 + factor`.
    pub fn jitter(&self, duration: Duration, factor: f64) -> Duration {
        duration.mul_f64(1.0 + self.0.lock().random::<f64>() * factor)
    }

    /// Fills `bytes` with random bits.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_reproduces_names_and_uuids() {
        let (a, b) = (Chance::seeded(7), Chance::seeded(7));
        assert_eq!((a.uuid(), a.suffix(5)), (b.uuid(), b.suffix(5)));
        assert_eq!(a.suffix(5).len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn virtual_time_follows_tokio() {
        let epoch: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(epoch);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().to_string(), "2026-01-01T00:01:30Z");
        assert_eq!(clock.until(epoch), Duration::ZERO);
    }
}
