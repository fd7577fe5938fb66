//! Event of events.k8s.io: the newer face of the core group's Event, which is what is stored.

use k8s_openapi::api::{core::v1 as core, events::v1::Event};
use serde_json::{Map, Value};

use crate::{
    field::{Errors, Path},
    kind::{Column, Kind},
    kinds::core::event as stored,
    object::Object,
};

/// Field names here and in the stored form; all other fields have the same name in both.
const RENAMED: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
];

/// Fields of the stored form that may not change, and the paths that errors give.
const IMMUTABLE: &[(&str, &str)] = &[
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

impl Kind for Event {
    const SHORT_NAMES: &'static [&'static str] = &["ev"];
    const CREATE_ON_UPDATE: bool = true;
    const STORED_AS: Option<&'static str> = Some("events");

    fn validate(&self, errors: &mut Errors) {
        stored::validate(&as_core(self), "reportingController", errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate_series(self, errors);
        if self.event_time.is_none() {
            errors.required(&Path::new("eventTime"), "");
        }
        let r#type = self.type_.as_deref().unwrap_or_default();
        if !matches!(r#type, "Normal" | "Warning") {
            errors.invalid(&Path::new("type"), "", format!("has invalid value: {type}"));
        }
        let source = self.deprecated_source.clone().unwrap_or_default();
        let set = |text: Option<String>| text.is_some_and(|text| !text.is_empty());
        let deprecated = [
            ("firstTimestamp", self.deprecated_first_timestamp.is_some()),
            ("lastTimestamp", self.deprecated_last_timestamp.is_some()),
            ("count", self.deprecated_count.unwrap_or(0) != 0),
            ("source", set(source.component) || set(source.host)),
        ];
        for (field, _) in deprecated.iter().filter(|(_, set)| *set) {
            errors.invalid(&Path::new(field), "", "needs to be unset");
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.series != old.series {
            validate_series(self, errors);
        }
        let json = |event: &Self| serde_json::to_value(as_core(event)).unwrap_or(Value::Null);
        let (new, old) = (json(self), json(old));
        for (field, path) in IMMUTABLE {
            if new.get(field) != old.get(field) {
                errors.invalid(&Path::new(path), new.get(field), "field is immutable");
            }
        }
    }

    fn columns() -> Vec<Column> {
        stored::columns()
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        stored::row(&as_core(self), now)
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        stored::selectable_fields(&as_core(self))
    }

    fn from_stored(stored: Object) -> Object {
        rename(stored, "events.k8s.io/v1", |field| RENAMED.iter().find(|(_, core)| *core == field).map(|pair| pair.0))
    }

    fn to_stored(object: Object) -> Object {
        rename(object, "v1", |field| RENAMED.iter().find(|(here, _)| *here == field).map(|pair| pair.1))
    }
}

fn rename(object: Object, api_version: &str, new_name: impl Fn(&str) -> Option<&'static str>) -> Object {
    let Value::Object(fields) = object else { return object };
    let rename = |(field, value): (String, Value)| match field.as_str() {
        "apiVersion" => (field, api_version.into()),
        name => (new_name(name).map_or(field.clone(), str::to_owned), value),
    };
    Value::Object(fields.into_iter().map(rename).collect::<Map<_, _>>())
}

fn as_core(event: &Event) -> core::Event {
    let event = event.clone();
    core::Event {
        action: event.action,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        metadata: event.metadata,
        reason: event.reason,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| core::EventSeries {
            count: Some(series.count),
            last_observed_time: Some(series.last_observed_time),
        }),
        source: event.deprecated_source,
        type_: event.type_,
    }
}

fn validate_series(event: &Event, errors: &mut Errors) {
    if event.series.as_ref().is_some_and(|series| series.count < 2) {
        errors.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_change, check_new};

    #[test]
    fn there_and_back() {
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "note": "n",
            "regarding": {"kind": "Pod"}, "deprecatedCount": 2, "reportingController": "c"});
        let stored = Event::to_stored(event.clone());
        assert_eq!(stored["message"], "n");
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(Event::from_stored(stored), event);
    }

    #[test]
    fn new_events_are_of_the_new_form() {
        check_new::<Event>(
            json!({"metadata": {"namespace": "default"}, "deprecatedCount": 1, "type": "Odd"}),
            expect![[r#"
                eventTime: Required value
                type: Invalid value: "": has invalid value: Odd
                count: Invalid value: "": needs to be unset"#]],
        );
    }

    #[test]
    fn only_the_series_changes() {
        let event = |note: &str, count: i32| {
            json!({"metadata": {"namespace": "default"}, "eventTime": "2026-01-01T00:00:00Z", "note": note, "type": "Normal",
                "reportingController": "c.io/x", "reportingInstance": "i", "action": "a", "reason": "r",
                "series": {"count": count, "lastObservedTime": "2026-01-01T00:00:00Z"}})
        };
        check_change::<Event>(event("a", 2), event("a", 3), expect![""]);
        check_change::<Event>(
            event("a", 2),
            event("b", 1),
            expect![[r#"
            series.count: Invalid value: "": should be at least 2
            message: Invalid value: "b": field is immutable"#]],
        );
    }
}
