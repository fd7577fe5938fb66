//! Whole GPUs as nodes publish them and as the scheduler gives them to Pods: the contract between the two.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The extended resource that counts whole GPUs.
pub const GPU: &str = "nvidia.com/gpu";
/// Node annotation: JSON list of [`Device`].
pub const INVENTORY_ANNOTATION: &str = "skiff.dev/gpu-inventory";
/// Pod annotation: JSON of an [`Assignment`].
pub const ASSIGNMENT_ANNOTATION: &str = "skiff.dev/gpu-devices";

/// Container name -> UUIDs.
pub type Assignment = BTreeMap<String, Vec<String>>;

/// One GPU of a node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub uuid: String,
    #[serde(default)]
    pub index: u32,
    #[serde(default)]
    pub model: String,
    #[serde(default, rename = "memoryMiB")]
    pub memory_mib: u64,
    /// NUMA node it hangs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// Missing means healthy.
    #[serde(default = "healthy")]
    pub healthy: bool,
}

fn healthy() -> bool {
    true
}
