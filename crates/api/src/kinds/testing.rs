//! What the tests of kinds share: each takes JSON and compares text.

use expect_test::Expect;
use jiff::Timestamp;
use serde_json::Value;

use crate::{field::Errors, kind::Kind};

fn decode<K: Kind>(object: Value) -> K {
    serde_json::from_value(object).expect("the test's JSON fits the kind")
}

fn lines(errors: &Errors) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The object after defaults and preparation for creation, as YAML-like JSON.
pub fn check_created<K: Kind>(object: Value, expected: Expect) {
    let mut object: K = decode(object);
    object.set_defaults();
    object.prepare_for_create();
    expected.assert_eq(&serde_json::to_string_pretty(&object).expect("kinds encode"));
}

/// The errors of a new object, after defaults.
pub fn check_new<K: Kind>(object: Value, expected: Expect) {
    let mut object: K = decode(object);
    object.set_defaults();
    let mut errors = Errors::default();
    object.validate(&mut errors);
    object.validate_create(&mut errors);
    expected.assert_eq(&lines(&errors));
}

/// The errors of a change, after defaults and preparation; both objects are defaulted.
pub fn check_change<K: Kind>(old: Value, new: Value, expected: Expect) {
    let (mut old, mut new): (K, K) = (decode(old), decode(new));
    old.set_defaults();
    new.set_defaults();
    new.prepare_for_update(&old);
    let mut errors = Errors::default();
    new.validate(&mut errors);
    new.validate_update(&old, &mut errors);
    expected.assert_eq(&lines(&errors));
}

/// The cells of a row, seen at 2026-01-01T01:00:00Z.
pub fn check_row<K: Kind>(object: Value, expected: Expect) {
    let mut object: K = decode(object);
    object.set_defaults();
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a timestamp");
    let cells = object.row(now);
    assert_eq!(cells.len(), K::columns().len(), "one cell a column");
    let cells: Vec<_> = cells.iter().map(|cell| cell.as_str().map_or(cell.to_string(), str::to_owned)).collect();
    expected.assert_eq(&cells.join(" | "));
}
