//! Annotations that mean something to a Pod. Most were fields' forerunners.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PodSpec, Toleration},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{MIRROR_POD, tolerations::validate_tolerations, volumes::validate_descending};
use crate::{
    field::{Errors, Path},
    kinds::core::pod::warnings::containers,
};

const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APP_ARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";

/// `path` leads to the annotations.
pub fn validate(meta: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(annotations) = &meta.annotations else { return };
    if let Some(value) = annotations.get(MIRROR_POD)
        && spec.node_name.as_deref().unwrap_or_default().is_empty()
    {
        errors.invalid(&path.key(MIRROR_POD), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(text) = annotations.get(TOLERATIONS).filter(|text| !text.is_empty()) {
        match serde_json::from_str::<Vec<Toleration>>(text) {
            Ok(tolerations) => validate_tolerations(Some(&tolerations), &path.child(TOLERATIONS), errors),
            Err(error) => errors.invalid(path, TOLERATIONS, error.to_string()),
        }
    }
    if let Some(cost) = annotations.get(DELETION_COST) {
        let is_plain = !cost.starts_with('+') && (cost == "0" || !cost.starts_with('0'));
        if !is_plain || cost.parse::<i32>().is_err() {
            errors.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
        }
    }
    for (key, profile) in annotations {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            validate_seccomp_profile(profile, &path.child(key), errors);
        }
    }
    for (key, profile) in annotations {
        let Some(name) = key.strip_prefix(APP_ARMOR_CONTAINER) else { continue };
        if !containers(spec, path).iter().any(|(container, _)| container.name == name) {
            errors.invalid(&path.key(key), name, "container not found");
        }
        if !["", "runtime/default", "unconfined"].contains(&profile.as_str()) && !profile.starts_with("localhost/") {
            errors.invalid(&path.key(key), profile, format!("invalid AppArmor profile name: {profile:?}"));
        }
    }
}

fn validate_seccomp_profile(profile: &str, path: &Path, errors: &mut Errors) {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => {}
        other => match other.strip_prefix("localhost/") {
            Some(file) => validate_descending(file, path, errors),
            None => errors.invalid(path, other, "must be a valid seccomp profile"),
        },
    }
}

/// Where an annotation and the field that replaced it are both given, they must say the same. `path` leads to the spec.
pub fn validate_against_fields(meta: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(annotations) = &meta.annotations else { return };
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let seccomp = |profile: Option<(String, Option<String>)>, key: &str, path: &Path, errors: &mut Errors| {
        compare(annotations, key, profile, &["runtime/default", "docker/default"], "seccomp", path, errors);
    };
    let profile = of_pod.seccomp_profile.map(|profile| (profile.type_, profile.localhost_profile));
    seccomp(profile, SECCOMP_POD, &path.child("securityContext").child("seccompProfile"), errors);
    let containers = containers(spec, path);
    for (container, path) in &containers {
        let own = container.security_context.clone().unwrap_or_default();
        let profile = own.seccomp_profile.map(|profile| (profile.type_, profile.localhost_profile));
        let key = format!("{SECCOMP_CONTAINER}{}", container.name);
        seccomp(profile, &key, &path.child("securityContext").child("seccompProfile"), errors);
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    for (container, path) in &containers {
        let own = container.security_context.clone().unwrap_or_default().app_armor_profile;
        let profile = own.or_else(|| of_pod.app_armor_profile.clone());
        let profile = profile.map(|profile| (profile.type_, profile.localhost_profile));
        let key = format!("{APP_ARMOR_CONTAINER}{}", container.name);
        let path = path.child("securityContext").child("appArmorProfile");
        compare(annotations, &key, profile, &["runtime/default"], "apparmor", &path, errors);
    }
}

#[allow(clippy::too_many_arguments)]
fn compare(
    annotations: &BTreeMap<String, String>,
    key: &str,
    profile: Option<(String, Option<String>)>,
    defaults: &[&str],
    what: &str,
    path: &Path,
    errors: &mut Errors,
) {
    let (Some(annotation), Some((kind, file))) = (annotations.get(key), profile) else { return };
    let same_type = match kind.as_str() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => defaults.contains(&annotation.as_str()),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !same_type {
        errors.forbidden(&path.child("type"), format!("{what} type in annotation and field must match"));
    } else if kind == "Localhost" && annotation.strip_prefix("localhost/") != file.as_deref() {
        let why = format!("{what} profile in annotation and field must match");
        errors.forbidden(&path.child("localhostProfile"), why);
    }
}
