//! Nodes whose CPU and memory would be used to like shares are liked better.

use super::{SCORE_MAX, ScoreNode};
use crate::{pod::PodInfo, snapshot::Snapshot};

pub fn score<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<ScoreNode<'a>> {
    if pod.requests.cpu_millis == 0 && pod.requests.memory_bytes == 0 {
        // Best effort Pods change no balance (upstream skips them too).
        return None;
    }
    Some(Box::new(|node| {
        let (wanted, used, all) = (&pod.requests, &node.requested, &node.allocatable);
        let share = |used: i64, all: i64| if all == 0 { 1.0 } else { (used as f64 / all as f64).min(1.0) };
        let cpu = share(wanted.cpu_millis + used.cpu_millis, all.cpu_millis);
        let memory = share(wanted.memory_bytes + used.memory_bytes, all.memory_bytes);
        // The standard deviation of two shares.
        let spread = (cpu - memory).abs() / 2.0;
        ((1.0 - spread) * SCORE_MAX as f64) as i64
    }))
}
