//! Leader election on a Lease, with upstream's semantics: of several candidates one works at a time.
//!
//! Safety rests on time: a leader that cannot renew stops working at the renew deadline, which comes before
//! others may take the lease. Others measure from when *they* saw the last renewal, on their own clock.

use std::{future::Future, time::Duration};

use anyhow::bail;
use clock::Clock;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Which lease, and how long everything takes.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    pub namespace: String,
    pub name: String,
    /// Unique among the candidates: host name and a UUID.
    pub identity: String,
    /// How long others wait after the last renewal that they saw.
    pub lease_duration: Duration,
    /// How long a leader tries to renew before it stops working. Less than `lease_duration`.
    pub renew_deadline: Duration,
    /// Between attempts.
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// Upstream's defaults: 15 s, 10 s, 2 s, in kube-system.
    pub fn new(name: &str, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// What a candidate knows of the lease: its last state and when it was first seen so.
#[derive(Default)]
struct Observed {
    lease: Option<Lease>,
    since: Timestamp,
}

/// What to do about the lease.
#[derive(Debug, PartialEq)]
enum Move {
    Create(LeaseSpec),
    Update(LeaseSpec),
    /// Another one leads.
    Wait,
}

/// Waits for the lease, then runs `work` while renewing it; gives it back when `stop` fires.
///
/// # Errors
/// The lease was lost while `work` ran: the process should end, since others work now. Or `work` failed.
pub async fn lead<F>(
    client: Client,
    clock: Clock,
    config: LeaderConfig,
    stop: CancellationToken,
    work: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut candidate =
        Candidate { api: Api::namespaced(client, &config.namespace), clock, config, observed: Observed::default() };
    tokio::select! { () = candidate.acquire() => (), () = stop.cancelled() => return Ok(()) }
    tracing::info!(identity = candidate.config.identity, lease = candidate.config.name, "became leader");
    let leading = stop.child_token();
    let outcome = tokio::select! {
        outcome = work(leading.clone()) => outcome,
        () = candidate.keep() => {
            leading.cancel();
            bail!("leader election lost: {} was not renewed within {:?}", candidate.config.name, candidate.config.renew_deadline)
        }
    };
    candidate.release().await;
    outcome
}

struct Candidate {
    api: Api<Lease>,
    clock: Clock,
    config: LeaderConfig,
    observed: Observed,
}

impl Candidate {
    async fn acquire(&mut self) {
        while !self.attempt().await {
            sleep(self.config.retry_period).await;
        }
    }

    /// Returns when the lease could not be renewed in time.
    async fn keep(&mut self) {
        loop {
            sleep(self.config.retry_period).await;
            let deadline = self.config.renew_deadline;
            if timeout(deadline, self.acquire()).await.is_err() {
                return;
            }
        }
    }

    /// One try to take or renew the lease; whether it is ours now.
    async fn attempt(&mut self) -> bool {
        match self.try_attempt().await {
            Ok(ours) => ours,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "leader election");
                false
            }
        }
    }

    async fn try_attempt(&mut self) -> kube::Result<bool> {
        let found = self.api.get_opt(&self.config.name).await?;
        let now = self.clock.now();
        if self.observed.lease.as_ref().map(|lease| &lease.spec) != found.as_ref().map(|lease| &lease.spec) {
            self.observed = Observed { lease: found.clone(), since: now };
        }
        let written = match decide(&self.observed, &self.config, now) {
            Move::Wait => return Ok(false),
            Move::Create(spec) => {
                let name = Some(self.config.name.clone());
                let lease = Lease { metadata: ObjectMeta { name, ..ObjectMeta::default() }, spec: Some(spec) };
                self.api.create(&PostParams::default(), &lease).await?
            }
            Move::Update(spec) => {
                let lease = Lease { spec: Some(spec), ..found.unwrap_or_default() };
                self.api.replace(&self.config.name, &PostParams::default(), &lease).await?
            }
        };
        self.observed = Observed { lease: Some(written), since: now };
        Ok(true)
    }

    /// Lets the next candidate start at once.
    async fn release(&mut self) {
        let Some(mut lease) = self.observed.lease.take() else { return };
        let now = MicroTime(self.clock.now());
        if let Some(spec) = &mut lease.spec {
            *spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..spec.clone()
            };
        }
        if let Err(error) = self.api.replace(&self.config.name, &PostParams::default(), &lease).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "lease not released");
        }
    }
}

/// Takes the lease where it is free, ours or expired.
fn decide(observed: &Observed, config: &LeaderConfig, now: Timestamp) -> Move {
    let fresh = LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(config.lease_duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(0),
        ..LeaseSpec::default()
    };
    let Some(lease) = &observed.lease else { return Move::Create(fresh) };
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder == config.identity {
        return Move::Update(LeaseSpec { renew_time: fresh.renew_time, ..spec });
    }
    let held_for = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
    if !holder.is_empty() && observed.since + held_for > now {
        return Move::Wait;
    }
    let transitions = spec.lease_transitions.unwrap_or(0).saturating_add(1);
    Move::Update(LeaseSpec { lease_transitions: Some(transitions), ..fresh })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn held_by(holder: &str, since: i64) -> Observed {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        Observed { lease: Some(Lease { spec: Some(spec), ..Lease::default() }), since: at(since) }
    }

    #[test]
    fn a_lease_is_taken_when_free_ours_or_expired() {
        let config = LeaderConfig::new("skiff", "me");
        let outcome = |observed: &Observed, now| match decide(observed, &config, at(now)) {
            Move::Wait => "wait".to_owned(),
            Move::Create(spec) => format!("create {:?}", spec.lease_transitions),
            Move::Update(spec) => format!("update {:?}", spec.lease_transitions),
        };
        assert_eq!(outcome(&Observed::default(), 0), "create Some(0)");
        assert_eq!(outcome(&held_by("me", 0), 99), "update Some(3)");
        assert_eq!(outcome(&held_by("other", 100), 114), "wait");
        assert_eq!(outcome(&held_by("other", 100), 115), "update Some(4)");
        assert_eq!(outcome(&held_by("", 100), 100), "update Some(4)");
    }
}
