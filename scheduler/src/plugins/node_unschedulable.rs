//! Cordoned nodes take no new Pods, but for those that tolerate it (DaemonSets).

use k8s_openapi::api::core::v1::Taint;

use super::{FilterNode, Unfit, taint_toleration::tolerates};
use crate::{pod::PodInfo, snapshot::Snapshot};

pub const REASON: &str = "node(s) were unschedulable";
const TAINT: &str = "node.kubernetes.io/unschedulable";

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<FilterNode<'a>> {
    let taint = Taint { key: TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
    let is_tolerated = pod.tolerations().iter().any(|toleration| tolerates(toleration, &taint));
    Some(Box::new(move |node| match node.is_unschedulable() && !is_tolerated {
        true => Err(Unfit::for_good(REASON)),
        false => Ok(()),
    }))
}
