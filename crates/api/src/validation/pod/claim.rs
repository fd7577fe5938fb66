//! The claim that an ephemeral volume (or a StatefulSet) makes for a Pod.

use k8s_openapi::{api::core::v1::PersistentVolumeClaimSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use crate::{
    field::{Errors, Path},
    names,
    quantity::Quantity as Amount,
    validation::{check, meta, resources::validate_amount, validate_label_selector},
};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Metadata of what will get its name elsewhere: labels and annotations, and nothing else.
pub fn validate_template_meta(metadata: Option<&ObjectMeta>, path: &Path, errors: &mut Errors) {
    let Some(metadata) = metadata else { return };
    meta::validate_annotations(metadata.annotations.as_ref(), &path.child("annotations"), errors);
    meta::validate_labels(metadata.labels.as_ref(), &path.child("labels"), errors);
    let bare = ObjectMeta { annotations: None, labels: None, ..metadata.clone() };
    for field in serde_json::to_value(bare).ok().as_ref().and_then(|bare| bare.as_object()).into_iter().flatten() {
        errors.forbidden(&path.child(field.0), "cannot be set");
    }
}

pub fn validate_claim_spec(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let at = path.child("accessModes");
    if modes.is_empty() {
        errors.required(&at, "at least 1 access mode is required");
    }
    validate_label_selector(spec.selector.as_ref(), &path.child("selector"), errors);
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        errors.not_supported(&at, mode, ACCESS_MODES);
    }
    let known: Vec<_> = modes.iter().filter(|mode| ACCESS_MODES.contains(&mode.as_str())).collect();
    if known.iter().any(|mode| *mode == "ReadWriteOncePod") && known.iter().any(|mode| *mode != "ReadWriteOncePod") {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let at = path.child("resources").key("storage");
    match requests.and_then(|requests| requests.get("storage")) {
        None => errors.required(&at, ""),
        Some(storage) if Amount::of(storage).sign() <= 0 => {
            errors.invalid(&at, &storage.0, "must be greater than zero");
        }
        Some(storage) => validate_amount("storage", storage, &at, errors),
    }
    for (class, field) in [
        (&spec.storage_class_name, "storageClassName"),
        (&spec.volume_attributes_class_name, "volumeAttributesClassName"),
    ] {
        if let Some(class) = class.as_deref().filter(|class| !class.is_empty()) {
            check(names::is_dns1123_subdomain(class), class, &path.child(field), errors);
        }
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|mode| !["Block", "Filesystem"].contains(mode)) {
        errors.not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    validate_data_source(spec, path, errors);
}

fn validate_data_source(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let mut look = |name: &str, kind: &str, group: Option<&String>, path: &Path| {
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if kind.is_empty() {
            errors.required(&path.child("kind"), "");
        }
        match group.map(String::as_str).unwrap_or_default() {
            "" if kind != "PersistentVolumeClaim" => {
                let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
                errors.invalid(path, kind, why);
            }
            "" => {}
            group => check(names::is_dns1123_subdomain(group), group, &path.child("apiGroup"), errors),
        }
    };
    if let Some(source) = &spec.data_source {
        look(&source.name, &source.kind, source.api_group.as_ref(), &path.child("dataSource"));
    }
    let Some(reference) = &spec.data_source_ref else { return };
    let at = path.child("dataSourceRef");
    look(&reference.name, &reference.kind, reference.api_group.as_ref(), &at);
    let namespace = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    if let Some(namespace) = namespace {
        check(names::is_dns1123_label(namespace), namespace, &at.child("namespace"), errors);
    }
    let Some(source) = &spec.data_source else { return };
    let same = (&source.api_group, &source.kind, &source.name);
    let at = path.child("dataSource");
    if namespace.is_some() {
        errors.invalid(path, at.as_str(), "may not be specified when dataSourceRef.namespace is specified");
    } else if same != (&reference.api_group, &reference.kind, &reference.name) {
        errors.invalid(path, at.as_str(), "must match dataSourceRef");
    }
}
