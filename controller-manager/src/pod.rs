//! What controllers ask of a Pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};

/// The parts of a Pod that may be absent in the API but never are in a stored one.
pub trait PodFacts {
    fn spec(&self) -> Option<&PodSpec>;
    fn status(&self) -> Option<&PodStatus>;
    fn is_leaving(&self) -> bool;

    /// Empty while unscheduled.
    fn node_name(&self) -> &str {
        self.spec().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
    }

    fn phase(&self) -> &str {
        self.status().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
    }

    /// Its containers have ended for good.
    fn is_terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// It counts as a replica.
    fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_leaving()
    }

    fn condition(&self, r#type: &str) -> Option<&PodCondition> {
        let mut conditions = self.status()?.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == r#type)
    }

    fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|condition| condition.status == "True")
    }

    /// Since when it is ready; `None` where it is not.
    fn ready_since(&self) -> Option<Timestamp> {
        let condition = self.condition("Ready").filter(|condition| condition.status == "True")?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    }

    /// When it is, or was, ready for `min_ready_seconds`; `None` where it is not ready.
    fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        let wait = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
        match (self.ready_since(), wait.is_zero()) {
            (Some(since), _) => Some(since + wait),
            (None, true) if self.is_ready() => Some(Timestamp::MIN),
            (None, _) => None,
        }
    }
}

impl PodFacts for Pod {
    fn spec(&self) -> Option<&PodSpec> {
        self.spec.as_ref()
    }
    fn status(&self) -> Option<&PodStatus> {
        self.status.as_ref()
    }
    fn is_leaving(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// Counts as Kubernetes writes them: zero is absent.
pub fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// A number of objects as an `int32` of the API.
pub fn count(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}
