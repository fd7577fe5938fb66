//! The surface of the API, as one table to review.

use std::{collections::HashSet, fmt::Write};

use expect_test::expect_file;
use serde_json::json;

use super::ALL;
use crate::kind::{AnyKind, Column, Subresource};

fn line(kind: &dyn AnyKind) -> String {
    let descriptor = kind.descriptor();
    let mut text = format!(
        "{} {} {} {}",
        descriptor.api_version(),
        descriptor.kind,
        descriptor.plural,
        if descriptor.is_namespaced() { "namespaced" } else { "cluster" },
    );
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = write!(text, "\n    {name}: {value}");
        }
    };
    fact("short", descriptor.short_names.join(" "));
    fact("categories", descriptor.categories.join(" "));
    fact("verbs", descriptor.verbs.join(" "));
    let subresource = |sub: &Subresource| format!("{}({})", sub.name, sub.verbs.join(" "));
    fact("subresources", descriptor.subresources.iter().map(subresource).collect::<Vec<_>>().join(" "));
    let column =
        |column: &Column| if column.priority == 0 { column.name.to_owned() } else { format!("[{}]", column.name) };
    fact("columns", kind.columns().iter().map(column).collect::<Vec<_>>().join(", "));
    let mut fields: Vec<_> = kind.selectable_fields(&json!({})).into_iter().map(|(name, _)| name).collect();
    fields.retain(|name| !name.starts_with("metadata."));
    fact("fields", fields.join(" "));
    fact("stored as", descriptor.stored_as.clone());
    text
}

#[test]
fn the_surface() {
    let lines: Vec<_> = ALL.iter().map(|kind| line(kind.as_ref())).collect();
    expect_file!["surface.txt"].assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn names_are_unique_and_in_order() {
    let mut seen = HashSet::new();
    for kind in ALL.iter() {
        let descriptor = kind.descriptor();
        let names = descriptor.short_names.iter().chain([&descriptor.plural, &descriptor.singular]);
        for name in names.collect::<HashSet<_>>() {
            assert!(seen.insert((descriptor.group.clone(), name.clone())), "{name} twice in {}", descriptor.group);
        }
    }
    let mut groups: Vec<&str> = ALL.iter().map(|kind| kind.descriptor().group.as_str()).collect();
    groups.dedup();
    assert_eq!(groups.len(), groups.iter().collect::<HashSet<_>>().len(), "kinds of a group stand together");
}

/// What holds for every kind, shown on an object that has only a name.
#[test]
fn every_kind_keeps_its_promises() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    for kind in ALL.iter() {
        let descriptor = kind.descriptor();
        let bare = json!({"apiVersion": descriptor.api_version(), "kind": descriptor.kind, "metadata": {"name": "a"}});
        let once = kind.set_defaults(bare).unwrap();
        assert_eq!(
            kind.set_defaults(once.clone()).unwrap(),
            once,
            "{}: defaults change nothing twice",
            descriptor.kind
        );
        let new = kind.prepare_for_create(once).unwrap();
        kind.validate(&new).unwrap();
        let same = kind.prepare_for_update(new.clone(), &new).unwrap();
        let again = kind.validate_update(&same, &new).unwrap();
        assert_eq!(same, new, "{}: sending an object again changes nothing", descriptor.kind);
        assert!(again.iter().count() <= kind.validate(&new).unwrap().iter().count(), "{}", descriptor.kind);
        assert_eq!(kind.row(&new, now).len(), kind.columns().len(), "{}: one cell a column", descriptor.kind);
        assert_eq!(kind.from_stored(kind.to_stored(new.clone())), new, "{}: stored and read back", descriptor.kind);
    }
}
