//! PriorityClass: a name for how much a Pod matters.

use k8s_openapi::{api::scheduling::v1::PriorityClass, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::Value;

use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, boolean, column, integer},
};

/// Names that only the system's own classes may have.
const SYSTEM_PREFIX: &str = "system-";
/// Above it is the system's.
pub const USER_VALUE_MAX: i32 = 1_000_000_000;
const SYSTEM_VALUE: i32 = 2 * USER_VALUE_MAX;

/// Name, value and description of the classes that every cluster has.
pub const SYSTEM_CLASSES: &[(&str, i32, &str)] = &[
    (
        "system-node-critical",
        SYSTEM_VALUE + 1000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        SYSTEM_VALUE,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// The classes that the API server creates when it starts.
pub fn system_classes() -> impl Iterator<Item = PriorityClass> {
    SYSTEM_CLASSES.iter().map(|(name, value, description)| PriorityClass {
        metadata: ObjectMeta { name: Some((*name).into()), ..ObjectMeta::default() },
        value: Some(*value),
        description: Some((*description).into()),
        ..PriorityClass::default()
    })
}

impl Kind for PriorityClass {
    const SHORT_NAMES: &'static [&'static str] = &["pc"];

    fn set_defaults(&mut self) {
        self.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
        self.value.get_or_insert_default();
    }

    fn prepare_for_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn validate(&self, errors: &mut Errors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let value = self.value.unwrap_or(0);
        if name.starts_with(SYSTEM_PREFIX) {
            if let Err(why) = check_system_class(name, value, self.global_default.unwrap_or(false)) {
                let reserved = "priority class names with 'system-' prefix are reserved for system use only. error:";
                errors.forbidden(&Path::new("metadata").child("name"), format!("{reserved} {why}"));
            }
        } else if value > USER_VALUE_MAX {
            let why = format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}");
            errors.forbidden(&Path::new("value"), why);
        }
        validate_preemption_policy(self.preemption_policy.as_deref(), &Path::new("preemptionPolicy"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.value.unwrap_or(0) != old.value.unwrap_or(0) {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        errors.immutable(&Path::new("preemptionPolicy"), &self.preemption_policy, &old.preemption_policy);
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            integer("Value", "The priority that pods of this class get."),
            boolean("Global-Default", "Whether pods that name no class get this one."),
            AGE_COLUMN,
            column("PreemptionPolicy", "Whether pods of this class may preempt pods of lower priority."),
        ]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            self.metadata.name.clone().into(),
            self.value.unwrap_or(0).into(),
            self.global_default.unwrap_or(false).into(),
            kind::age(&self.metadata, now).into(),
            self.preemption_policy.clone().unwrap_or_default().into(),
        ]
    }
}

/// `PreemptLowerPriority` or `Never`.
pub fn validate_preemption_policy(policy: Option<&str>, path: &Path, errors: &mut Errors) {
    const POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];
    if let Some(policy) = policy {
        crate::validation::validate_choice(Some(policy), POLICIES, path, errors);
    }
}

fn check_system_class(name: &str, value: i32, global_default: bool) -> Result<(), String> {
    match SYSTEM_CLASSES.iter().find(|(known, ..)| *known == name) {
        None => Err(format!("{name} is not a known system priority class")),
        Some((_, known, _)) if *known != value => Err(format!("value of {name} PriorityClass must be {known}")),
        Some(_) if global_default => Err(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_change, check_new, check_row};

    #[test]
    fn system_names_are_reserved() {
        for class in system_classes() {
            check_new::<PriorityClass>(serde_json::to_value(class).unwrap(), expect![""]);
        }
        check_new::<PriorityClass>(
            json!({"metadata": {"name": "system-mine"}, "value": 1}),
            expect![
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"
            ],
        );
        check_new::<PriorityClass>(
            json!({"metadata": {"name": "high"}, "value": 2000000000, "preemptionPolicy": "Always"}),
            expect![[r#"
                value: Forbidden: maximum allowed value of a user defined priority is 1000000000
                preemptionPolicy: Unsupported value: "Always": supported values: "PreemptLowerPriority", "Never""#]],
        );
    }

    #[test]
    fn value_stays() {
        check_change::<PriorityClass>(
            json!({"metadata": {"name": "a"}, "value": 1}),
            json!({"metadata": {"name": "a"}, "value": 2, "preemptionPolicy": "Never"}),
            expect![[r#"
                value: Forbidden: may not be changed in an update.
                preemptionPolicy: Invalid value: "Never": field is immutable"#]],
        );
        check_row::<PriorityClass>(
            json!({"metadata": {"name": "a"}, "value": 1}),
            expect!["a | 1 | false | <unknown> | PreemptLowerPriority"],
        );
    }
}
