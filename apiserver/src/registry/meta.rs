//! The metadata that the server decides, whatever the kind.

use api::{
    Errors, Object, Status,
    object::ObjectExt,
    validation::meta::{validate_object_meta, validate_object_meta_update},
};
use jiff::Timestamp;
use serde_json::Value;

use crate::{Server, call::Call};

/// Longest prefix of a generated name, in bytes; the suffix makes it 63.
const GENERATE_NAME_BYTES_MAX: usize = 58;
const SUFFIX_LENGTH: usize = 5;

/// A moment as metadata has it: whole seconds.
pub(super) fn seconds(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// Sets namespace, or fails if the object names another than the request.
pub(super) fn ensure_namespace(call: &Call, object: &mut Object) -> Result<(), Status> {
    let (wanted, given) = (call.namespace(), object.namespace());
    if !given.is_empty() && !wanted.is_empty() && given != wanted {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    let namespace = if wanted.is_empty() { Value::Null } else { wanted.into() };
    object.set_metadata("namespace", namespace);
    Ok(())
}

/// The name in the object must be the one in the path.
pub(super) fn check_name(call: &Call, object: &Object) -> Result<(), Status> {
    let (given, wanted) = (object.name(), call.name());
    if given == wanted {
        return Ok(());
    }
    Err(Status::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({wanted})")))
}

/// Whether the server picks the name.
pub(super) fn wants_generated_name(object: &Object) -> bool {
    object.name().is_empty() && !object.text("/metadata/generateName").is_empty()
}

/// One owner, one reference; upstream's warning where a client sends it twice.
pub(super) fn deduplicate_owners(call: &Call, object: &mut Object) {
    let Some(owners) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) else { return };
    let mut unique: Vec<Value> = Vec::new();
    for owner in owners.drain(..) {
        match unique.contains(&owner) {
            false => unique.push(owner),
            true => call.warnings.push(format!(
                ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and \
                 may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
                owner["uid"].as_str().unwrap_or_default()
            )),
        }
    }
    *owners = unique;
}

impl Server {
    /// `prefix` and a random suffix.
    pub(super) fn generate_name(&self, object: &mut Object) {
        let prefix = object.text("/metadata/generateName");
        let end =
            prefix.char_indices().map(|(at, _)| at).find(|at| *at >= GENERATE_NAME_BYTES_MAX).unwrap_or(prefix.len());
        let name = format!("{}{}", &prefix[..end], self.chance.suffix(SUFFIX_LENGTH));
        object.set_metadata("name", name.into());
    }

    /// What a new object gets, and what it may not bring.
    pub(super) fn set_system_fields(&self, call: &Call, object: &mut Object) {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            object.set_metadata(field, Value::Null);
        }
        object.set_metadata("uid", self.chance.uuid().to_string().into());
        object.set_metadata("creationTimestamp", seconds(self.clock.now()));
        if call.descriptor().has_generation {
            object.set_metadata("generation", 1.into());
        }
    }
}

/// An update changes none of these; what it leaves out is filled in.
pub(super) fn keep_system_fields(object: &mut Object, old: &Object) {
    let old_meta = &old["metadata"];
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
        object.set_metadata(field, old_meta.get(field).cloned().unwrap_or_default());
    }
    if object.uid().is_empty() {
        object.set_metadata("uid", old.uid().into());
    }
}

/// The kind's rules and those of metadata, for a new object.
pub(super) fn validate_new(call: &Call, object: &Object) -> Result<(), Status> {
    let descriptor = call.descriptor();
    let mut errors = Errors::default();
    validate_object_meta(&object.object_meta(), descriptor.is_namespaced(), descriptor.name_rule, &mut errors);
    errors.extend(call.kind.validate(object)?);
    invalid(call, object, errors)
}

/// The kind's rules and those of metadata, for a change. `of_kind` are the kind's findings.
pub(super) fn validate_change(call: &Call, object: &Object, old: &Object, of_kind: Errors) -> Result<(), Status> {
    let mut errors = Errors::default();
    validate_object_meta_update(&object.object_meta(), &old.object_meta(), &mut errors);
    errors.extend(of_kind);
    invalid(call, object, errors)
}

fn invalid(call: &Call, object: &Object, errors: Errors) -> Result<(), Status> {
    let descriptor = call.descriptor();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&descriptor.group, &descriptor.kind, object.name(), errors)),
    }
}
