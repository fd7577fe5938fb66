//! Priority: a Pod's class becomes its priority.

use std::sync::Arc;

use api::{Object, Status, object::ObjectExt};
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Step};

const GROUP: &str = "scheduling.k8s.io";

pub(super) struct Priority;

#[async_trait]
impl Step for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        if !attributes.is_about("", "pods") {
            return Ok(());
        }
        match (attributes.operation, attributes.old) {
            (Operation::Create, _) => resolve(attributes, pod),
            (Operation::Update, Some(old)) => {
                keep(pod, old);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>, class: &Object) -> Result<(), Status> {
        let is_write = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !is_write || !attributes.is_about(GROUP, "priorityclasses") || class["globalDefault"] != true {
            return Ok(());
        }
        match default_class(attributes) {
            Some(other) if other.name() != class.name() => Err(attributes.forbidden(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            ))),
            _ => Ok(()),
        }
    }
}

/// A client that leaves out what was computed at creation means no change.
fn keep(pod: &mut Object, old: &Object) {
    for field in ["priority", "preemptionPolicy"] {
        let before = &old["spec"][field];
        if pod["spec"].get(field).is_none_or(Value::is_null) && !before.is_null() {
            pod["spec"][field] = before.clone();
        }
    }
}

fn resolve(attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
    let name = pod.text("/spec/priorityClassName").to_owned();
    let class = match name.as_str() {
        "" => default_class(attributes),
        name => {
            let class = attributes.view.get(GROUP, "priorityclasses", "", name);
            Some(class.ok_or_else(|| attributes.forbidden(format!("no PriorityClass with name {name} was found")))?)
        }
    };
    let value = class.as_ref().map_or(0, |class| class["value"].as_i64().unwrap_or(0));
    let policy = class.as_ref().map_or("PreemptLowerPriority", |class| class.text("/preemptionPolicy"));
    let spec = &mut pod["spec"];
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != value) {
        return Err(attributes.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        )));
    }
    if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| !policy.is_empty() && *given != policy) {
        return Err(attributes.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    if let Some(class) = class.as_ref().filter(|_| name.is_empty()) {
        spec["priorityClassName"] = class.name().into();
    }
    spec["priority"] = value.into();
    if !policy.is_empty() {
        spec["preemptionPolicy"] = policy.into();
    }
    Ok(())
}

/// Should there be several, by a race, the one with the lowest value.
fn default_class(attributes: &Attributes<'_>) -> Option<Arc<Object>> {
    let classes = attributes.view.list(GROUP, "priorityclasses", None).into_iter();
    classes.filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::Case;

    fn class(name: &str, value: i64, is_default: bool) -> Value {
        let preemption = "Never";
        json!({"metadata": {"name": name}, "value": value, "globalDefault": is_default, "preemptionPolicy": preemption})
    }

    fn pod(spec: Value) -> Case {
        Case::create("pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec}))
            .with(GROUP, "priorityclasses", class("high", 1000, false))
            .with(GROUP, "priorityclasses", class("usual", 5, true))
    }

    #[tokio::test]
    async fn the_class_decides() {
        let rows = [
            (json!({"priorityClassName": "high"}), "high 1000 Never"),
            (json!({}), "usual 5 Never"),
            (
                json!({"priorityClassName": "none"}),
                "pods \"p\" is forbidden: no PriorityClass with name none was found",
            ),
            (
                json!({"priorityClassName": "high", "priority": 7}),
                "pods \"p\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority \
                 admission controller computed 1000 from the given PriorityClass name",
            ),
        ];
        for (spec, expected) in rows {
            let result = match pod(spec).admitted(&Priority).await {
                Ok(pod) => format!(
                    "{} {} {}",
                    pod.text("/spec/priorityClassName"),
                    pod["spec"]["priority"],
                    pod.text("/spec/preemptionPolicy")
                ),
                Err(status) => status.message,
            };
            assert_eq!(result, expected);
        }
    }

    #[tokio::test]
    async fn without_classes_the_priority_is_zero() {
        let case = Case::create("pods", json!({"metadata": {"name": "p"}, "spec": {}}));
        let pod = case.admitted(&Priority).await.unwrap();
        assert_eq!(
            (&pod["spec"]["priority"], &pod["spec"]["preemptionPolicy"]),
            (&json!(0), &json!("PreemptLowerPriority"))
        );
    }
}
