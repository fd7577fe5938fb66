//! A Pod that names its node goes there or nowhere.

use super::{FilterNode, Unfit};
use crate::{pod::PodInfo, snapshot::Snapshot};

pub const REASON: &str = "node(s) didn't match the requested node name";

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<FilterNode<'a>> {
    let wanted = pod.node_name()?;
    Some(Box::new(move |node| if node.name() == wanted { Ok(()) } else { Err(Unfit::for_good(REASON)) }))
}
