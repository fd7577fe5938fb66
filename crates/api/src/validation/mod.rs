//! Rules that several kinds share. A rule of one kind lives in that kind's file.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    field::{Errors, Path},
    names,
};

pub mod conditions;
pub mod meta;
pub mod net;
pub mod pod;
pub mod resources;
pub mod selector;

pub use meta::{validate_object_meta, validate_object_meta_update};
pub use selector::validate_label_selector;

/// The sentence about a number below zero.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Turns the messages of a check in [`crate::names`] into errors about `value`.
pub fn check(messages: Vec<String>, value: &str, path: &Path, errors: &mut Errors) {
    for message in messages {
        errors.invalid(path, value, message);
    }
}

/// An RFC 1123 label.
pub fn validate_dns_label(value: &str, path: &Path, errors: &mut Errors) {
    check(names::is_dns1123_label(value), value, path, errors);
}

/// An RFC 1123 subdomain.
pub fn validate_dns_subdomain(value: &str, path: &Path, errors: &mut Errors) {
    check(names::is_dns1123_subdomain(value), value, path, errors);
}

/// `name` or `prefix/name`.
pub fn validate_qualified_name(value: &str, path: &Path, errors: &mut Errors) {
    check(names::is_qualified_name(value), value, path, errors);
}

/// A count, an age, ...: zero or more.
pub fn validate_non_negative(value: i64, path: &Path, errors: &mut Errors) {
    if value < 0 {
        errors.invalid(path, value, NOT_NEGATIVE);
    }
}

/// One of a few words; empty is missing.
pub fn validate_choice(value: Option<&str>, choices: &[&str], path: &Path, errors: &mut Errors) {
    match value.unwrap_or_default() {
        "" => errors.required(path, ""),
        known if choices.contains(&known) => {}
        other => errors.not_supported(path, other, choices),
    }
}

/// A count, or a percentage of something.
pub fn validate_count_or_percent(value: &IntOrString, path: &Path, errors: &mut Errors) {
    match value {
        IntOrString::Int(count) => validate_non_negative(i64::from(*count), path, errors),
        IntOrString::String(text) => check(names::is_percent(text), text, path, errors),
    }
}

/// The percentage in `"25%"`; `None` for a count or anything else.
pub fn percent_of(value: &IntOrString) -> Option<i32> {
    match value {
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
        IntOrString::Int(_) => None,
    }
}

/// A percentage may not be above 100.
pub fn validate_not_above_100_percent(value: &IntOrString, path: &Path, errors: &mut Errors) {
    if percent_of(value).is_some_and(|percent| percent > 100) {
        errors.invalid(path, value, "must not be greater than 100%");
    }
}
