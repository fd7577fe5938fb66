//! PATCH: JSON, merge, strategic merge and apply.

use api::{Errors, Object, Path, Status};
use serde_json::Value;

use super::{
    decode,
    update::{Change, Part},
};
use crate::{Server, call::Call, options::invalid_unless_empty, respond::Answer};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// The most operations a JSON patch may have.
const OPERATIONS_MAX: usize = 10_000;

/// A patch that was read and not yet applied.
pub(super) enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

impl Server {
    pub(super) async fn patch(&self, call: &Call, part: Part) -> Result<Answer, Status> {
        let patch = Patch::read(call)?;
        let creates = matches!(patch, Patch::Apply(_));
        let make = |old: Option<&Object>| self.patched(call, &patch, old);
        let written = self.change(call, &Change { part, make: &make, creates }).await?;
        Ok(Answer::Object { code: if written.created { 201 } else { 200 }, bytes: written.bytes })
    }

    fn patched(&self, call: &Call, patch: &Patch, old: Option<&Object>) -> Result<Object, Status> {
        let _ = &self.clock;
        match (patch, old) {
            (Patch::Apply(applied), old) => Ok(old.map_or_else(|| applied.clone(), |_| applied.clone())),
            (_, None) => Err(call.not_found()),
            (patch, Some(old)) => decode::patched(call, patch.apply_to_value(old)?),
        }
    }
}

impl Patch {
    /// From the body and its content type.
    pub(super) fn read(call: &Call) -> Result<Self, Status> {
        let is_apply = call.content_type() == APPLY_PATCH;
        validate(call, is_apply)?;
        let json = || serde_json::from_slice::<Value>(&call.body).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")));
        match call.content_type() {
            JSON_PATCH => {
                let patch: json_patch::Patch =
                    serde_json::from_value(json()?).map_err(|error| Status::bad_request(error.to_string()))?;
                match patch.0.len() {
                    0..=OPERATIONS_MAX => Ok(Self::Json(patch)),
                    count => Err(too_many_operations(count)),
                }
            }
            MERGE_PATCH => Ok(Self::Merge(json()?)),
            STRATEGIC_MERGE_PATCH => Ok(Self::Strategic(json()?)),
            APPLY_PATCH => Ok(Self::Apply(decode::value(call)?)),
            _ => Err(Status::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH].join(", "))),
        }
    }

    /// The patched value. Not for apply, which needs the owners of fields.
    pub(super) fn apply_to_value(&self, old: &Value) -> Result<Value, Status> {
        let mut value = old.clone();
        match self {
            Self::Json(patch) => json_patch::patch(&mut value, patch).map_err(unprocessable)?,
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => json_patch::merge(&mut value, patch),
            Self::Apply(_) => return Err(Status::unsupported_media_type(MERGE_PATCH)),
        }
        Ok(value)
    }
}

fn unprocessable(error: impl std::fmt::Display) -> Status {
    let mut status = Status::bad_request(error.to_string());
    (status.code, status.reason) = (422, "Invalid".into());
    status
}

fn too_many_operations(count: usize) -> Status {
    let mut status = Status::too_large(OPERATIONS_MAX);
    status.message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
    status
}

/// Which parameters go with which type of patch.
fn validate(call: &Call, is_apply: bool) -> Result<(), Status> {
    let mut errors = Errors::default();
    if is_apply && call.options.field_manager.is_empty() {
        errors.required(&Path::new("fieldManager"), "is required for apply patch");
    }
    if !is_apply && call.options.force.is_some() {
        errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
    }
    invalid_unless_empty("PatchOptions", errors)
}
