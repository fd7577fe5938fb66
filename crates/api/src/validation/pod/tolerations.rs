//! Tolerations of taints.

use k8s_openapi::api::core::v1::Toleration;

use crate::{
    field::{Errors, Path},
    names,
    validation::meta,
};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// What a taint does to Pods that do not tolerate it.
pub fn validate_taint_effect(effect: &str, path: &Path, errors: &mut Errors) {
    match effect {
        "" => errors.required(path, ""),
        effect if EFFECTS.contains(&effect) => {}
        other => errors.not_supported(path, other, EFFECTS),
    }
}

pub fn validate_tolerations(tolerations: Option<&[Toleration]>, path: &Path, errors: &mut Errors) {
    for (index, toleration) in tolerations.unwrap_or_default().iter().enumerate() {
        validate_toleration(toleration, &path.index(index), errors);
    }
}

fn validate_toleration(toleration: &Toleration, path: &Path, errors: &mut Errors) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    let at = path.child("operator");
    if !key.is_empty() {
        meta::validate_label_name(&key, &path.child("key"), errors);
    } else if operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&at, &operator, why);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&path.child("effect"), &effect, why);
    }
    match operator.as_str() {
        "Equal" | "" => {
            let wrong = names::is_valid_label_value(&value);
            if !wrong.is_empty() {
                errors.invalid(&at, &value, wrong.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.invalid(&at, &value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        "Lt" | "Gt" => errors.not_supported(&at, &operator, &["Equal", "Exists", "Lt", "Gt"]),
        _ => errors.not_supported(&at, &operator, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        validate_taint_effect(&effect, &path.child("effect"), errors);
    }
}
