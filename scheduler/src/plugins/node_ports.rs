//! Two Pods cannot have one port of a node.

use super::{FilterNode, Unfit};
use crate::{pod::PodInfo, snapshot::Snapshot};

pub const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<FilterNode<'a>> {
    if pod.host_ports.is_empty() {
        return None;
    }
    Some(Box::new(|node| {
        let is_taken = pod.host_ports.iter().any(|port| node.host_ports.iter().any(|used| port.conflicts_with(used)));
        if is_taken { Err(Unfit::until_others_leave(REASON)) } else { Ok(()) }
    }))
}
