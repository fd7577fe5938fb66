//! PATCH: JSON, merge, strategic merge and apply.

use api::{
    Errors, Object, Path, Status,
    patch::{self, PatchType},
    schema::Schema,
};
use serde_json::Value;

use super::{
    decode, managed,
    update::{Change, Part},
};
use crate::{Server, call::Call, options::invalid_unless_empty, respond::Answer};

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, \
                        application/strategic-merge-patch+json, application/apply-patch+yaml";

/// A patch that was read and not yet applied.
pub(super) struct Patch {
    r#type: PatchType,
    body: Value,
}

impl Server {
    pub(super) async fn patch(&self, call: &Call, part: Part) -> Result<Answer, Status> {
        let patch = Patch::read(call)?;
        let creates = patch.r#type == PatchType::Apply && part == Part::Object;
        let make = |old: Option<&Object>| match (patch.r#type, old) {
            (PatchType::Apply, old) => managed::applied(self, call, &patch.body, old),
            (_, None) => Err(call.not_found()),
            (_, Some(old)) => decode::patched(call, patch.apply_to(old, decode::schema_of(call))?),
        };
        let written = self.change(call, &Change { part, make: &make, creates }).await?;
        Ok(Answer::Object { code: if written.created { 201 } else { 200 }, bytes: written.bytes })
    }
}

impl Patch {
    /// From the body and its content type.
    pub(super) fn read(call: &Call) -> Result<Self, Status> {
        let r#type = PatchType::from_content_type(call.content_type());
        let r#type = r#type.ok_or_else(|| Status::unsupported_media_type(ACCEPTED))?;
        let is_apply = r#type == PatchType::Apply;
        validate(call, is_apply)?;
        Ok(Self { r#type, body: decode::patch(call, is_apply)? })
    }

    /// The patched value. Not for apply, which needs the owners of fields.
    pub(super) fn apply_to(&self, old: &Value, schema: Schema<'_>) -> Result<Value, Status> {
        patch::patch(self.r#type, old, &self.body, schema)
    }
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
