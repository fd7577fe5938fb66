//! Server-side apply, and the book-keeping of field ownership for every other write.
//!
//! [`apply`] merges an applied configuration into the live object; [`track_update`] records what a
//! create, update or patch changed. Both are pure: the time comes with the [`Writer`].

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    Descriptor, Status,
    object::ObjectExt,
    schema::{Schema, canonicalize_quantities},
    status::Cause,
};

mod field_set;
mod managed;
mod typed;

pub use field_set::{FieldSet, PathElement, print_path};

use managed::{Entry, Managed, Manager, Operation};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotations of one object together may not be larger.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// The longest name of a manager, in bytes.
const MANAGER_BYTES_MAX: usize = 128;

/// Who writes, in which version, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager` of the request, or [`manager_of_user_agent`].
    pub manager: &'a str,
    /// `apps/v1`
    pub api_version: &'a str,
    pub kind: &'a str,
    /// `status`, `scale`, ...; empty for the object itself.
    pub subresource: &'a str,
    pub now: Timestamp,
    pub schema: Schema<'a>,
    /// What this request cannot change, see [`reset_fields`].
    pub reset: &'a FieldSet,
}

impl Writer<'_> {
    fn manager(&self, operation: Operation) -> Manager {
        Manager::new(self.manager, operation, self.api_version, self.subresource)
    }

    fn time(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// `/v1, Kind=Pod`, `apps/v1, Kind=Deployment`: as Go prints it.
    fn printed_kind(&self) -> String {
        let slash = if self.api_version.contains('/') { "" } else { "/" };
        format!("{slash}{}, Kind={}", self.api_version, self.kind)
    }
}

/// The fields that a write to the object, or to a subresource of it, leaves as they are.
pub fn reset_fields(descriptor: &Descriptor, subresource: &str) -> FieldSet {
    match subresource {
        "" if descriptor.has_subresource("status") => FieldSet::of_fields(&[&["status"]]),
        "status" => FieldSet::of_fields(&[&["spec"], &["metadata"]]),
        _ => FieldSet::default(),
    }
}

/// The part of a user agent that names the program: `kubectl` of `kubectl/v1.35.2 (linux/amd64)`.
pub fn manager_of_user_agent(user_agent: &str) -> String {
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// Paths that no manager owns: they belong to the server.
fn server_fields() -> FieldSet {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    object
}

/// Records in `new.metadata.managedFields` what a create (`old` is `None`), an update or a patch changed.
/// Never fails: entries that cannot be read are forgotten.
pub fn track_update(old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let empty = Value::Object(serde_json::Map::new());
    let old = old.unwrap_or(&empty);
    let live = || Managed::decode(old).unwrap_or_default();
    let managed = if !writer.subresource.is_empty() {
        live()
    } else if Managed::is_reset(new) {
        Managed::default()
    } else {
        match Managed::decode(new) {
            Ok(managed) if !managed.0.is_empty() => managed,
            _ => live(),
        }
    };
    new.set_metadata("managedFields", Value::Null);
    if managed.0.is_empty() && !old.uid().is_empty() {
        // Nobody has been recorded since before the first apply, or a writer asked to forget: so it stays.
        return;
    }
    let mut managed = managed;
    record_update(&mut managed, &without_managed_fields(old), new, writer);
    managed.cap();
    new.set_metadata("managedFields", managed.encode());
}

fn record_update(managed: &mut Managed, old: &Value, new: &Value, writer: &Writer<'_>) {
    let difference = typed::compare(old, new, writer.schema).without(writer.reset);
    let changed = difference.added.union(&difference.modified);
    for entry in managed.0.values_mut() {
        entry.fields = entry.fields.difference(&changed).difference(&difference.removed);
    }
    managed.0.retain(|_, entry| !entry.fields.is_empty());
    let fields = changed.difference(&server_fields());
    if fields.is_empty() {
        return;
    }
    let manager = writer.manager(Operation::Update);
    let fields = match managed.0.get(&manager) {
        Some(previous) => previous.fields.union(&fields),
        None => fields,
    };
    managed.0.insert(manager, Entry { api_version: writer.api_version.into(), time: writer.time(), fields });
}

/// Applies a configuration: what it says is laid over `live` (`None`: the object is created), what this
/// manager said before and no longer says is removed unless somebody else owns it.
///
/// The result is neither defaulted nor validated. Fails with `Conflict` where fields of other managers
/// would change, unless `force`; with `BadRequest` or an internal error where the configuration is no
/// object of this kind.
pub fn apply(live: Option<&Value>, config: &Value, writer: &Writer<'_>, force: bool) -> Result<Value, Status> {
    check_config(config, writer)?;
    let mut config = config.clone();
    // What is no quantity is refused when the result is decoded.
    canonicalize_quantities(&mut config, writer.schema);
    let stored = match live {
        Some(live) => without_managed_fields(live),
        None => Value::Object(serde_json::Map::new()),
    };
    let managed = match live {
        Some(live) => Managed::decode(live)
            .map_err(|error| Status::unknown(format!("failed to decode managed fields: {error}")))?,
        None => Managed::default(),
    };
    let mut managed = managed;
    if managed.0.is_empty() {
        let before = Writer { manager: "before-first-apply", ..*writer };
        record_update(&mut managed, &Value::Object(serde_json::Map::new()), &stored, &before);
    }
    let (mut result, managed) = match merge_config(&stored, &config, managed.clone(), writer, force) {
        Ok(merged) => merged,
        Err(conflicts) => settle_with_last_applied(conflicts, &stored, &config, managed, writer)?,
    };
    if writer.manager == "kubectl" {
        update_last_applied(&mut result, &config);
    }
    result.set_metadata("managedFields", managed.encode());
    Ok(match live {
        Some(live) => ignore_timestamps(live, result),
        None => result,
    })
}

fn check_config(config: &Value, writer: &Writer<'_>) -> Result<(), Status> {
    let (api_version, kind) = (config.text("/apiVersion"), config.text("/kind"));
    if (api_version, kind) != (writer.api_version, writer.kind) {
        let claimed = Writer { api_version, kind, ..*writer }.printed_kind();
        return Err(Status::bad_request(format!("invalid object type: {claimed}")));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let problems = typed::problems(config, writer.schema);
    let problems = match problems.as_slice() {
        [] => return Ok(()),
        [only] => only.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let object = format!("{}/{}; {}", config.namespace(), config.name(), writer.printed_kind());
    Err(Status::unknown(format!("failed to create typed patch object ({object}): {problems}")))
}

/// A field that another manager owns and that would change.
type Conflict = (Manager, Vec<PathElement>);

fn merge_config(
    live: &Value,
    config: &Value,
    mut managed: Managed,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Managed), Vec<Conflict>> {
    let schema = writer.schema;
    let manager = writer.manager(Operation::Apply);
    let merged = typed::merge(live, config, schema);
    let fields = typed::field_set(config, schema).without(writer.reset);
    let entry = Entry { api_version: writer.api_version.into(), time: writer.time(), fields };
    let previous = managed.0.insert(manager.clone(), entry).map(|entry| entry.fields);
    let merged = match previous {
        Some(previous) => prune(merged, &managed, &previous, schema),
        None => merged,
    };
    let difference = typed::compare(live, &merged, schema).without(writer.reset);
    let changed = difference.added.union(&difference.modified);
    let mut conflicts = Vec::new();
    for (other, entry) in managed.0.iter_mut().filter(|(other, _)| **other != manager) {
        let lost = entry.fields.intersection(&changed);
        conflicts.extend(lost.paths().into_iter().map(|path| (other.clone(), path)));
        entry.fields = entry.fields.difference(&lost).difference(&difference.removed);
    }
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    if let Some(entry) = managed.0.get_mut(&manager) {
        entry.fields = entry.fields.difference(&server_fields());
    }
    managed.0.retain(|_, entry| !entry.fields.is_empty());
    Ok((merged, managed))
}

/// Takes out of `merged` what its manager applied before, does not apply now, and nobody else owns.
fn prune(merged: Value, managed: &Managed, previous: &FieldSet, schema: Schema<'_>) -> Value {
    let named = |value: &Value| typed::field_set(value, schema).with_named_fields(schema);
    let without = |paths: &FieldSet| {
        typed::remove(&merged, paths, schema).unwrap_or_else(|| Value::Object(serde_json::Map::new()))
    };
    let everything = named(&merged);
    let previous = previous.with_named_fields(schema);
    let owned = managed.all_fields().with_named_fields(schema);
    let pruned = without(&previous);
    let pruned = without(&everything.difference(&named(&pruned).union(&owned)));
    let gone = everything.difference(&named(&pruned)).intersection(&previous);
    without(&gone)
}

/// Conflicts with what `kubectl apply` on the client's side had set are no conflicts for kubectl: it takes
/// these fields over.
fn settle_with_last_applied(
    conflicts: Vec<Conflict>,
    live: &Value,
    config: &Value,
    managed: Managed,
    writer: &Writer<'_>,
) -> Result<(Value, Managed), Status> {
    let allowed = match writer.manager {
        "kubectl" => fields_last_applied(live, writer).unwrap_or_default(),
        _ => FieldSet::default(),
    };
    let rest: Vec<Conflict> = conflicts.into_iter().filter(|(_, path)| !allowed.contains(path)).collect();
    if !rest.is_empty() {
        return Err(conflict_status(&rest));
    }
    merge_config(live, config, managed, writer, true).map_err(|conflicts| conflict_status(&conflicts))
}

/// The fields of the last-applied annotation that still are as it says.
fn fields_last_applied(live: &Value, writer: &Writer<'_>) -> Option<FieldSet> {
    let annotations = live.pointer("/metadata/annotations")?;
    let last: Value = serde_json::from_str(annotations.get(LAST_APPLIED)?.as_str()?).ok()?;
    if last.text("/apiVersion") != writer.api_version {
        return None;
    }
    let difference = typed::compare(&last, live, writer.schema);
    let fields = typed::field_set(&last, writer.schema);
    Some(fields.difference(&difference.modified).difference(&difference.added).difference(&difference.removed))
}

/// Keeps the annotation of client-side apply true, where there is one.
fn update_last_applied(object: &mut Value, config: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.into(), format!("{config}\n").into());
    let bytes: usize = annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

fn conflict_status(conflicts: &[Conflict]) -> Status {
    let cause = |(manager, path): &Conflict| Cause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with {}", manager.printed()),
        field: print_path(path),
    };
    let message = match conflicts {
        [(manager, path)] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", manager.printed(), print_path(path))
        }
        many => {
            let mut lines = Vec::new();
            let mut last = None;
            for (manager, path) in many {
                if last.replace(manager) != Some(manager) {
                    lines.push(format!("conflicts with {}:", manager.printed()));
                }
                lines.push(format!("- {}", print_path(path)));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    Status::apply_conflict(conflicts.iter().map(cause).collect(), message)
}

/// `new`, or `old` where they differ in nothing but the times of their managedFields: a write that changes
/// nothing must not change the object.
pub fn ignore_timestamps(old: &Value, new: Value) -> Value {
    let timeless = |object: &Value| {
        let mut object = object.clone();
        let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        object
    };
    if timeless(old) == timeless(&new) { old.clone() } else { new }
}

#[cfg(test)]
mod tests;
