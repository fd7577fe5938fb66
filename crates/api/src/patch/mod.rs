//! The patch types that need no memory of earlier writers; server-side apply is in [`crate::apply`].

use serde_json::Value;

use crate::{Status, schema::Schema};

mod json;
mod merge;
mod strategic;

pub use json::{OPERATIONS_MAX, json_patch};
pub use merge::{merge_diff, merge_patch};
pub use strategic::strategic_merge_patch;

/// A kind of patch, by its content type.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    /// From a `Content-Type` header, parameters included.
    pub fn from_content_type(header: &str) -> Option<Self> {
        match header.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// `object` with a JSON, merge or strategic merge patch applied; the object itself is untouched on failure.
/// For [`PatchType::Apply`] call [`crate::apply::apply`] instead.
pub fn patch(patch_type: PatchType, object: &Value, patch: &Value, schema: Schema<'_>) -> Result<Value, Status> {
    match patch_type {
        PatchType::Json => json_patch(object, patch),
        PatchType::Merge => Ok(merge_patch(object, patch)),
        PatchType::Strategic => strategic_merge_patch(object, patch, schema),
        PatchType::Apply => Err(Status::internal("server-side apply is not a plain patch")),
    }
}
