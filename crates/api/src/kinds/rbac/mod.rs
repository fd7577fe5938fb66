//! Kinds of rbac.authorization.k8s.io: roles hold rules, bindings give them to subjects.

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use serde_json::{Value, json};

use crate::{
    field::{Errors, Path},
    kind::{AGE_COLUMN, Column, NAME_COLUMN, column, wide},
    names,
};

mod cluster_role;
mod cluster_role_binding;
mod role;
mod role_binding;

/// The API group of roles, users and groups.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// One rule: verbs, and either resources or paths.
pub fn validate_rule(rule: &PolicyRule, namespaced: bool, path: &Path, errors: &mut Errors) {
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if rule.verbs.is_empty() {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if let Some(urls) = rule.non_resource_urls.as_ref().filter(|urls| !urls.is_empty()) {
        let path = path.child("nonResourceURLs");
        if namespaced {
            errors.invalid(&path, urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if !is_empty(&rule.api_groups) || !is_empty(&rule.resources) || !is_empty(&rule.resource_names) {
            errors.invalid(&path, urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if is_empty(&rule.api_groups) {
        errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if is_empty(&rule.resources) {
        errors.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

fn validate_rules(rules: Option<&Vec<PolicyRule>>, namespaced: bool, errors: &mut Errors) {
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        validate_rule(rule, namespaced, &Path::new("rules").index(index), errors);
    }
}

/// Fills in the API groups that can be no other.
fn default_binding(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    let default = |group: &mut Option<String>| {
        if group.as_deref().unwrap_or_default().is_empty() {
            *group = Some(GROUP.into());
        }
    };
    default(&mut role.api_group);
    for subject in subjects.into_iter().flatten().filter(|subject| matches!(subject.kind.as_str(), "User" | "Group")) {
        default(&mut subject.api_group);
    }
}

fn validate_role_ref(role: &RoleRef, kinds: &[&str], errors: &mut Errors) {
    let path = Path::new("roleRef");
    let group = role.api_group.as_deref().unwrap_or_default();
    if group != GROUP {
        errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.not_supported(&path.child("kind"), &role.kind, kinds);
    }
    if role.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    for message in names::is_path_segment_name(&role.name) {
        errors.invalid(&path.child("name"), &role.name, message);
    }
}

fn validate_same_role(new: &RoleRef, old: &RoleRef, errors: &mut Errors) {
    if new != old {
        let value = json!({"APIGroup": new.api_group, "Kind": new.kind, "Name": new.name});
        errors.invalid(&Path::new("roleRef"), value, "cannot change roleRef");
    }
}

fn validate_subjects(subjects: Option<&Vec<Subject>>, namespaced: bool, errors: &mut Errors) {
    for (index, subject) in subjects.into_iter().flatten().enumerate() {
        validate_subject(subject, namespaced, &Path::new("subjects").index(index), errors);
    }
}

fn validate_subject(subject: &Subject, namespaced: bool, path: &Path, errors: &mut Errors) {
    if subject.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                for message in names::is_dns1123_subdomain(&subject.name) {
                    errors.invalid(&path.child("name"), &subject.name, message);
                }
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.namespace.as_deref().unwrap_or_default().is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" if group != GROUP => errors.not_supported(&path.child("apiGroup"), group, &[GROUP]),
        "User" | "Group" => {}
        other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// The columns of both kinds of binding.
fn binding_columns() -> Vec<Column> {
    vec![
        NAME_COLUMN,
        column("Role", "The role that the subjects get."),
        AGE_COLUMN,
        wide("Users", "Users in the binding"),
        wide("Groups", "Groups in the binding"),
        wide("ServiceAccounts", "ServiceAccounts in the binding"),
    ]
}

fn role_cell(role: &RoleRef) -> Value {
    format!("{}/{}", role.kind, role.name).into()
}

/// Users, groups and service accounts.
fn subject_cells(subjects: Option<&Vec<Subject>>) -> [Value; 3] {
    let of = |kind: &str| {
        let subjects = subjects.into_iter().flatten().filter(|subject| subject.kind == kind);
        let name = |subject: &Subject| match kind {
            "ServiceAccount" => format!("{}/{}", subject.namespace.as_deref().unwrap_or_default(), subject.name),
            _ => subject.name.clone(),
        };
        Value::from(subjects.map(name).collect::<Vec<_>>().join(", "))
    };
    [of("User"), of("Group"), of("ServiceAccount")]
}
