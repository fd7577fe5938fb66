//! Event: something that happened to an object, as people read it.
//!
//! The form that is stored; events.k8s.io shows the same thing with other field names.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::{
    field::{Errors, Path},
    kind::{self, Column, Kind, NAME_COLUMN, NameRule, column, wide},
    names,
    validation::validate_qualified_name,
};

const REPORTING_INSTANCE_BYTES_MAX: usize = 128;
const ACTION_BYTES_MAX: usize = 128;
const REASON_BYTES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 1024;

impl Kind for Event {
    const SHORT_NAMES: &'static [&'static str] = &["ev"];
    const NAME_RULE: NameRule = NameRule::PathSegment;
    const CREATE_ON_UPDATE: bool = true;
    const STORED_AS: Option<&'static str> = Some("events");

    fn validate(&self, errors: &mut Errors) {
        validate(self, "reportingComponent", errors);
    }

    fn columns() -> Vec<Column> {
        columns()
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        row(self, now)
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        selectable_fields(self)
    }
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// The rules that hold in both groups.
pub fn validate(event: &Event, reporting_field: &str, errors: &mut Errors) {
    let namespace = text(&event.metadata.namespace);
    let about = text(&event.involved_object.namespace);
    let matches = match (event.event_time.is_some(), about) {
        (false, "") => matches!(namespace, "" | "default"),
        (false, about) => namespace == about,
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (true, _) => true,
    };
    if !matches {
        let path = Path::new("involvedObject").child("namespace");
        errors.invalid(&path, about, "does not match event.namespace");
    }
    if event.event_time.is_some() {
        validate_reporter(event, reporting_field, errors);
    }
    for message in names::is_dns1123_subdomain(namespace) {
        errors.invalid(&Path::new("namespace"), namespace, message);
    }
}

/// Events of the newer form say who reports, on what action, and are short.
fn validate_reporter(event: &Event, reporting_field: &str, errors: &mut Errors) {
    let path = Path::new(reporting_field);
    let controller = text(&event.reporting_component);
    if controller.is_empty() {
        errors.required(&path, "");
    }
    validate_qualified_name(controller, &path, errors);
    let limited = [
        ("reportingInstance", text(&event.reporting_instance), REPORTING_INSTANCE_BYTES_MAX, true),
        ("action", text(&event.action), ACTION_BYTES_MAX, true),
        ("reason", text(&event.reason), REASON_BYTES_MAX, true),
        ("message", text(&event.message), MESSAGE_BYTES_MAX, false),
    ];
    for (field, value, bytes_max, required) in limited {
        if required && value.is_empty() {
            errors.required(&Path::new(field), "");
        }
        if value.len() > bytes_max {
            errors.invalid(&Path::new(field), "", format!("can have at most {bytes_max} characters"));
        }
    }
}

pub fn columns() -> Vec<Column> {
    vec![
        column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
        column("Type", "Type of this event (Normal, Warning)."),
        column("Reason", "A short, machine understandable reason for the event."),
        column("Object", "The object that this event is about."),
        wide("Subobject", "The part of the object that this event is about."),
        wide("Source", "The component reporting this event."),
        column("Message", "A human-readable description of what happened."),
        wide("First Seen", "The time at which the event was first recorded."),
        wide("Count", "The number of times this event has occurred."),
        Column { priority: 1, ..NAME_COLUMN },
    ]
}

pub fn row(event: &Event, now: jiff::Timestamp) -> Vec<Value> {
    let first = event.first_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0));
    let series = event.series.as_ref();
    let last = match series {
        Some(series) => series.last_observed_time.as_ref().map(|time| time.0),
        None => event.last_timestamp.as_ref().map(|time| time.0).or(first),
    };
    let count = match series {
        Some(series) => series.count.unwrap_or(0),
        None => event.count.filter(|count| *count != 0).unwrap_or(1),
    };
    let kind = text(&event.involved_object.kind).to_lowercase();
    let object = match text(&event.involved_object.name) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        kind::since(last, now).into(),
        text(&event.type_).into(),
        text(&event.reason).into(),
        object.into(),
        text(&event.involved_object.field_path).into(),
        source_cell(event).into(),
        text(&event.message).trim().into(),
        kind::since(first, now).into(),
        count.into(),
        event.metadata.name.clone().into(),
    ]
}

/// `kubelet, node1`
fn source_cell(event: &Event) -> String {
    let source = event.source.clone().unwrap_or_default();
    let or = |first: Option<String>, second: &Option<String>| {
        first.filter(|text| !text.is_empty()).unwrap_or_else(|| text(second).to_owned())
    };
    let component = or(source.component, &event.reporting_component);
    match or(source.host, &event.reporting_instance).as_str() {
        "" => component,
        host => format!("{component}, {host}"),
    }
}

pub fn selectable_fields(event: &Event) -> Vec<(&'static str, String)> {
    let about = &event.involved_object;
    let component = event.source.as_ref().map(|source| text(&source.component)).filter(|name| !name.is_empty());
    let source = component.unwrap_or_else(|| text(&event.reporting_component));
    let fields = [
        ("involvedObject.kind", text(&about.kind)),
        ("involvedObject.namespace", text(&about.namespace)),
        ("involvedObject.name", text(&about.name)),
        ("involvedObject.uid", text(&about.uid)),
        ("involvedObject.apiVersion", text(&about.api_version)),
        ("involvedObject.resourceVersion", text(&about.resource_version)),
        ("involvedObject.fieldPath", text(&about.field_path)),
        ("reason", text(&event.reason)),
        ("reportingComponent", text(&event.reporting_component)),
        ("source", source),
        ("type", text(&event.type_)),
    ];
    fields.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_new, check_row};

    #[test]
    fn namespaces_agree() {
        check_new::<Event>(
            json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
            expect![[r#"involvedObject.namespace: Invalid value: "b": does not match event.namespace"#]],
        );
        check_new::<Event>(
            json!({"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Node"}}),
            expect![""],
        );
        check_new::<Event>(
            json!({"metadata": {"namespace": "a"}, "eventTime": "2026-01-01T00:00:00Z", "involvedObject": {"namespace": "a"}}),
            expect![[r#"
                reportingComponent: Required value
                reportingComponent: Invalid value: "": name part must be non-empty
                reportingComponent: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
                reportingInstance: Required value
                action: Required value
                reason: Required value"#]],
        );
    }

    #[test]
    fn rows() {
        check_row::<Event>(
            json!({
                "metadata": {"name": "e", "namespace": "a"}, "type": "Normal", "reason": "Pulled", "message": "done\n",
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"}, "count": 3,
                "source": {"component": "kubelet", "host": "n1"},
                "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:58:00Z"
            }),
            expect!["2m | Normal | Pulled | pod/p | spec.containers{c} | kubelet, n1 | done | 60m | 3 | e"],
        );
    }
}
