//! Object metadata: the rules that hold for every kind.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};

use super::check;
use crate::{
    field::{Errors, Path},
    kind::NameRule,
    names,
};

/// Keys and values of all annotations together.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// A field manager's name.
pub const FIELD_MANAGER_BYTES_MAX: usize = 128;
/// The subresource named in a managedFields entry.
const SUBRESOURCE_BYTES_MAX: usize = 256;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What is wrong with a name; empty if nothing. As a `prefix` it will get a suffix, so that it may end in a dash.
pub fn name_messages(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    let masked = if prefix { names::masked_trailing_dash(name) } else { name.to_owned() };
    match rule {
        NameRule::DnsSubdomain => names::is_dns1123_subdomain(&masked),
        NameRule::DnsLabel => names::is_dns1123_label(&masked),
        NameRule::Dns1035Label => names::is_dns1035_label(&masked),
        NameRule::PathSegment if prefix => names::is_path_segment_prefix(name),
        NameRule::PathSegment => names::is_path_segment_name(name),
    }
}

/// The metadata of an object that is about to be created; its name has been generated if it had to be.
pub fn validate_object_meta(meta: &ObjectMeta, namespaced: bool, rule: NameRule, errors: &mut Errors) {
    let path = Path::new("metadata");
    if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
        check(name_messages(rule, prefix, true), prefix, &path.child("generateName"), errors);
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.required(&path.child("name"), "name or generateName is required"),
        name => check(name_messages(rule, name, false), name, &path.child("name"), errors),
    }
    validate_namespace(meta, namespaced, &path.child("namespace"), errors);
    if let Some(generation) = meta.generation.filter(|generation| *generation < 0) {
        errors.invalid(&path.child("generation"), generation, super::NOT_NEGATIVE);
    }
    validate_common(meta, &path, errors);
}

/// The change from `old` to `new`, where `new` is what the server is about to store.
pub fn validate_object_meta_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    let path = Path::new("metadata");
    if old.deletion_timestamp.is_some() {
        validate_no_new_finalizers(new, old, &path.child("finalizers"), errors);
    }
    if new.generation.unwrap_or(0) < old.generation.unwrap_or(0) {
        errors.invalid(&path.child("generation"), new.generation.unwrap_or(0), "must not be decremented");
    }
    errors.immutable(&path.child("name"), &new.name, &old.name);
    errors.immutable(&path.child("namespace"), &new.namespace, &old.namespace);
    errors.immutable(&path.child("uid"), &new.uid, &old.uid);
    errors.immutable(&path.child("creationTimestamp"), &new.creation_timestamp, &old.creation_timestamp);
    errors.immutable(&path.child("deletionTimestamp"), &new.deletion_timestamp, &old.deletion_timestamp);
    let (grace, old_grace) = (&new.deletion_grace_period_seconds, &old.deletion_grace_period_seconds);
    errors.immutable(&path.child("deletionGracePeriodSeconds"), grace, old_grace);
    validate_common(new, &path, errors);
}

/// What both creation and update look at.
fn validate_common(meta: &ObjectMeta, path: &Path, errors: &mut Errors) {
    validate_labels(meta.labels.as_ref(), &path.child("labels"), errors);
    validate_annotations(meta.annotations.as_ref(), &path.child("annotations"), errors);
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    validate_owner_references(owners, &path.child("ownerReferences"), errors);
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    validate_finalizers(finalizers, &path.child("finalizers"), errors);
    let entries = meta.managed_fields.as_deref().unwrap_or_default();
    validate_managed_fields(entries, &path.child("managedFields"), errors);
}

fn validate_namespace(meta: &ObjectMeta, namespaced: bool, path: &Path, errors: &mut Errors) {
    match (namespaced, meta.namespace.as_deref().unwrap_or_default()) {
        (true, "") => errors.required(path, ""),
        (true, namespace) => check(names::is_dns1123_label(namespace), namespace, path, errors),
        (false, "") => {}
        (false, _) => errors.forbidden(path, "not allowed on this type"),
    }
}

/// A label's key.
pub fn validate_label_name(name: &str, path: &Path, errors: &mut Errors) {
    check(names::is_qualified_name(name), name, path, errors);
}

/// Keys and values of labels, or of a selector made of labels.
pub fn validate_labels(labels: Option<&BTreeMap<String, String>>, path: &Path, errors: &mut Errors) {
    for (key, value) in labels.into_iter().flatten() {
        validate_label_name(key, path, errors);
        check(names::is_valid_label_value(value), value, path, errors);
    }
}

/// Keys of annotations, in any letter case, and the size of all.
pub fn validate_annotations(annotations: Option<&BTreeMap<String, String>>, path: &Path, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        for message in names::is_qualified_name(&key.to_lowercase()) {
            errors.invalid(path, key, message);
        }
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_owner_references(owners: &[OwnerReference], path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners {
        validate_owner_reference(owner, path, errors);
        if owner.controller != Some(true) {
            continue;
        }
        let this = format!("{}/{}", owner.kind, owner.name);
        match &controller {
            None => controller = Some(this),
            Some(first) => {
                let why = "Only one reference can have Controller set to true. Found \"true\" in references for";
                errors.invalid(path, owners, format!("{why} {first} and {this}"));
            }
        }
    }
}

fn validate_owner_reference(owner: &OwnerReference, path: &Path, errors: &mut Errors) {
    let version = owner.api_version.rsplit('/').next().unwrap_or_default();
    if version.is_empty() {
        errors.invalid(&path.child("apiVersion"), &owner.api_version, "version must not be empty");
    }
    for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
        if value.is_empty() {
            errors.invalid(&path.child(field), value, "must not be empty");
        }
    }
    if owner.api_version == "v1" && owner.kind == "Event" {
        errors.invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner");
    }
}

fn validate_finalizers(finalizers: &[String], path: &Path, errors: &mut Errors) {
    for finalizer in finalizers {
        check(names::is_qualified_name(finalizer), finalizer, path, errors);
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let why = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.invalid(path, finalizers, why);
    }
}

fn validate_no_new_finalizers(new: &ObjectMeta, old: &ObjectMeta, path: &Path, errors: &mut Errors) {
    let set = |meta: &ObjectMeta| meta.finalizers.iter().flatten().cloned().collect::<BTreeSet<_>>();
    let added: Vec<_> = set(new).difference(&set(old)).map(|name| format!("{name:?}")).collect();
    if !added.is_empty() {
        let why = "no new finalizers can be added if the object is being deleted, found new finalizers";
        errors.forbidden(path, format!("{why} []string{{{}}}", added.join(", ")));
    }
}

/// The name of a field manager, as a request parameter or in an entry.
pub fn validate_field_manager(manager: &str, path: &Path, errors: &mut Errors) {
    if manager.len() > FIELD_MANAGER_BYTES_MAX {
        errors.too_long(path, FIELD_MANAGER_BYTES_MAX);
    }
    for (position, character) in manager.char_indices().filter(|(_, character)| character.is_control()) {
        let code = u32::from(character);
        errors.invalid(path, manager, format!("invalid character U+{code:04X} (at position {position})"));
    }
}

fn validate_managed_fields(entries: &[ManagedFieldsEntry], path: &Path, errors: &mut Errors) {
    for (index, entry) in entries.iter().enumerate() {
        let path = path.index(index);
        let operation = entry.operation.as_deref().unwrap_or_default();
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(&path.child("operation"), operation, "must be `Apply` or `Update`");
        }
        if let Some(fields_type) = entry.fields_type.as_deref().filter(|text| !matches!(*text, "" | "FieldsV1")) {
            errors.invalid(&path.child("fieldsType"), fields_type, "must be `FieldsV1`");
        }
        validate_field_manager(entry.manager.as_deref().unwrap_or_default(), &path.child("manager"), errors);
        if entry.subresource.as_ref().is_some_and(|name| name.len() > SUBRESOURCE_BYTES_MAX) {
            errors.too_long(&path.child("subresource"), SUBRESOURCE_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn meta(json: Value) -> ObjectMeta {
        serde_json::from_value(json).unwrap()
    }

    fn lines(errors: &Errors) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn check_create(json: Value, expected: Expect) {
        let mut errors = Errors::default();
        validate_object_meta(&meta(json), true, NameRule::DnsSubdomain, &mut errors);
        expected.assert_eq(&lines(&errors));
    }

    fn check_update(new: Value, old: Value, expected: Expect) {
        let mut errors = Errors::default();
        validate_object_meta_update(&meta(new), &meta(old), &mut errors);
        expected.assert_eq(&lines(&errors));
    }

    #[test]
    fn names_and_namespaces() {
        check_create(json!({"name": "a.b", "namespace": "n"}), expect![""]);
        check_create(
            json!({}),
            expect![[r#"
                metadata.name: Required value: name or generateName is required
                metadata.namespace: Required value"#]],
        );
        assert_eq!(name_messages(NameRule::DnsLabel, "web-", true), Vec::<String>::new());
        assert_eq!(name_messages(NameRule::DnsLabel, "web-", false).len(), 1);
        let mut errors = Errors::default();
        validate_object_meta(&meta(json!({"name": "a", "namespace": "b"})), false, NameRule::DnsLabel, &mut errors);
        expect!["metadata.namespace: Forbidden: not allowed on this type"].assert_eq(&lines(&errors));
    }

    #[test]
    fn owners_and_finalizers() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": "u", "controller": true});
        let mut errors = Errors::default();
        let owners = meta(json!({"ownerReferences": [owner("a"), owner("b")]})).owner_references.unwrap();
        validate_owner_references(&owners, &Path::new("o"), &mut errors);
        assert!(lines(&errors).ends_with("Found \"true\" in references for Node/a and Node/b"));
        check_create(
            json!({"name": "a", "namespace": "n", "finalizers": ["orphan", "foregroundDeletion"]}),
            expect![[
                r#"metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and foregroundDeletion cannot be both set"#
            ]],
        );
    }

    #[test]
    fn updates() {
        check_update(
            json!({"name": "a", "uid": "2", "generation": 1, "finalizers": ["x/y"], "deletionTimestamp": "2026-01-01T00:00:00Z"}),
            json!({"name": "a", "uid": "1", "generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
            expect![[r#"
                metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"x/y"}
                metadata.generation: Invalid value: 1: must not be decremented
                metadata.uid: Invalid value: "2": field is immutable"#]],
        );
    }
}
