//! `metav1.Condition`s in a status.

use std::{collections::HashSet, sync::LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use regex::Regex;

use super::meta::validate_label_name;
use crate::field::{Errors, Path};

const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

const REASON_FORMAT: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
static REASON: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!("^{REASON_FORMAT}$")).expect("a constant pattern that compiles"));

/// Each type once, and each condition complete.
pub fn validate_conditions(conditions: &[Condition], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if !seen.insert(&condition.type_) {
            errors.duplicate(&path.child("type"), &condition.type_);
        }
        validate_condition(condition, &path, errors);
    }
}

fn validate_condition(condition: &Condition, path: &Path, errors: &mut Errors) {
    validate_label_name(&condition.type_, &path.child("type"), errors);
    if !matches!(condition.status.as_str(), "True" | "False" | "Unknown") {
        errors.not_supported(&path.child("status"), &condition.status, &["False", "True", "Unknown"]);
    }
    if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
        errors.invalid(&path.child("observedGeneration"), generation, "must be greater than or equal to zero");
    }
    let reason = &condition.reason;
    if reason.is_empty() {
        errors.required(&path.child("reason"), "");
    } else if !REASON.is_match(reason) {
        let why = "a condition reason must start with alphabetic character, optionally followed by a string of \
                   alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
        let examples = "'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB'";
        let rule = format!("{why} (e.g. {examples}, regex used for validation is '{REASON_FORMAT}')");
        errors.invalid(&path.child("reason"), reason, rule);
    }
    if reason.len() > REASON_BYTES_MAX {
        errors.too_long(&path.child("reason"), REASON_BYTES_MAX);
    }
    if condition.message.len() > MESSAGE_BYTES_MAX {
        errors.too_long(&path.child("message"), MESSAGE_BYTES_MAX);
    }
}
