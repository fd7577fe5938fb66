//! Nodes that already have the Pod's images are liked better, large images more; spread over the cluster.

use std::collections::BTreeMap;

use super::{SCORE_MAX, ScoreNode};
use crate::{pod::PodInfo, snapshot::Snapshot};

const MIB: i64 = 1024 * 1024;
/// Smaller sums of images do not matter.
const BYTES_MIN: i64 = 23 * MIB;
/// For each container; more does not count.
const BYTES_MAX_PER_CONTAINER: i64 = 1000 * MIB;

pub fn score<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<ScoreNode<'a>> {
    let spec = pod.spec();
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let images: Vec<String> = containers.filter_map(|container| container.image.as_deref().map(normalized)).collect();
    let nodes = i64::try_from(snapshot.nodes.len()).unwrap_or(i64::MAX).max(1);
    let mut holders: BTreeMap<&str, i64> = BTreeMap::new();
    for image in &images {
        let count = snapshot.nodes.values().filter(|node| node.images.contains_key(image)).count();
        holders.insert(image, i64::try_from(count).unwrap_or(i64::MAX));
    }
    if holders.values().all(|count| *count == 0) {
        return None;
    }
    let holders: BTreeMap<String, i64> = holders.into_iter().map(|(image, count)| (image.to_owned(), count)).collect();
    let bytes_max = BYTES_MAX_PER_CONTAINER * i64::try_from(images.len()).unwrap_or(1);
    Some(Box::new(move |node| {
        let held = images.iter().filter_map(|image| Some(node.images.get(image)? * holders.get(image)? / nodes));
        let bytes = held.sum::<i64>().clamp(BYTES_MIN, bytes_max.max(BYTES_MIN));
        SCORE_MAX * (bytes - BYTES_MIN) / (bytes_max - BYTES_MIN).max(1)
    }))
}

/// `nginx` is `nginx:latest`.
fn normalized(image: &str) -> String {
    let tag = image.rfind(':').filter(|at| !image[*at..].contains('/'));
    if tag.is_some() || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
