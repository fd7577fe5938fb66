//! What the kinds that make Pods of a template have in common.

use k8s_openapi::{
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::{
    field::{Errors, Path},
    kinds::core::pod::template_labels,
    selector::{Selector, SelectorError},
    validation::{
        percent_of, pod::validate_pod_template, selector::is_empty, validate_count_or_percent, validate_label_selector,
        validate_non_negative, validate_not_above_100_percent,
    },
};

/// `25%`
pub fn percent(percent: u8) -> IntOrString {
    IntOrString::String(format!("{percent}%"))
}

/// A selector, and a template whose Pods it selects. `kind` is how upstream calls the owner in sentences (for a
/// ReplicaSet, where it speaks of selectors: `deployment`).
pub fn validate_selector(selector: &LabelSelector, kind: &str, path: &Path, errors: &mut Errors) {
    let path = path.child("selector");
    if is_missing(selector) {
        return errors.required(&path, "");
    }
    validate_label_selector(Some(selector), &path, errors);
    if is_empty(selector) {
        errors.invalid(&path, selector, format!("empty selector is invalid for {kind}"));
    }
}

/// A field that is required decodes as its default where it is missing.
fn is_missing(selector: &LabelSelector) -> bool {
    *selector == LabelSelector::default()
}

/// The selector to match with: a missing one selects nothing.
pub fn selector_of(selector: &LabelSelector) -> Result<Selector, SelectorError> {
    Selector::from_api(Some(selector).filter(|selector| !is_missing(selector)))
}

/// The template of a workload that restarts what ends; `path` leads to the spec.
pub fn validate_template(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    kind: &str,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("template");
    match selector_of(selector) {
        Err(_) => return errors.invalid(&path.child("selector"), selector, "invalid label selector"),
        Ok(selector) => validate_labels_match(&selector, template, &at, errors),
    }
    validate_pod_template(template, &at, errors);
    validate_runs_on(template, kind, &at, errors);
}

/// The Pods must be ones that their owner selects.
pub fn validate_labels_match(selector: &Selector, template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let labels = template_labels(template);
    if !selector.is_everything() && !selector.matches(&labels) {
        let path = path.child("metadata").child("labels");
        errors.invalid(&path, &labels, "`selector` does not match template `labels`");
    }
}

/// Pods that are kept running restart always and have no deadline.
pub fn validate_runs_on(template: &PodTemplateSpec, kind: &str, path: &Path, errors: &mut Errors) {
    let spec = template.spec.clone().unwrap_or_default();
    let path = path.child("spec");
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), why);
    }
}

/// Counts that may not be below zero.
pub fn validate_counts(counts: &[(&str, Option<i64>)], path: &Path, errors: &mut Errors) {
    for (field, count) in counts {
        validate_non_negative(count.unwrap_or_default(), &path.child(field), errors);
    }
}

/// Counts that are part of a whole.
pub fn validate_parts(parts: &[(&str, i32)], whole: i32, why: &str, path: &Path, errors: &mut Errors) {
    for (field, part) in parts.iter().filter(|(_, part)| *part > whole) {
        errors.invalid(&path.child(field), part, why);
    }
}

/// A counter that only grows.
pub fn validate_collisions(new: Option<i32>, old: Option<i32>, errors: &mut Errors) {
    let new = new.unwrap_or_default();
    if new < old.unwrap_or_default() {
        errors.invalid(&Path::new("status").child("collisionCount"), new, "cannot be decremented");
    }
}

/// How many Pods may be missing, and how many more there may be, while a change rolls out.
pub fn validate_rolling(
    max_unavailable: Option<&IntOrString>,
    max_surge: Option<&IntOrString>,
    path: &Path,
    errors: &mut Errors,
) {
    let zero = IntOrString::Int(0);
    let (unavailable, surge) = (max_unavailable.unwrap_or(&zero), max_surge.unwrap_or(&zero));
    let at = path.child("maxUnavailable");
    validate_count_or_percent(unavailable, &at, errors);
    validate_count_or_percent(surge, &path.child("maxSurge"), errors);
    if amount(unavailable) == 0 && amount(surge) == 0 {
        errors.invalid(&at, unavailable, "may not be 0 when `maxSurge` is 0");
    }
    validate_not_above_100_percent(unavailable, &at, errors);
}

/// The number in a count or a percentage.
pub fn amount(value: &IntOrString) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        text => percent_of(text).unwrap_or_default(),
    }
}

/// A selector as tables show it; `<none>` where it is empty.
pub fn selector_cell(selector: &LabelSelector) -> String {
    match Selector::from_api(Some(selector)) {
        Ok(selector) if selector.is_everything() => "<none>".into(),
        Ok(selector) => selector.to_string(),
        Err(error) => format!("<error: {}>", error.0),
    }
}
