//! Which objects of a resource a list or watch is about.

use std::sync::Arc;

use api::{
    AnyKind, Status,
    selector::{FieldSelector, Selector},
};
use serde_json::json;
use store::Key;

use crate::{
    cache::{Entry, Objects, key},
    options::Options,
    request::RequestInfo,
};

/// Namespace, labels and fields that must match.
#[derive(Clone, Debug)]
pub struct Selection {
    /// All keys begin so; ends in `/`.
    pub prefix: Key,
    /// The one key there can be, where the selection names the object.
    pub only: Option<Key>,
    labels: Selector,
    fields: FieldSelector,
}

impl Selection {
    pub fn new(kind: &dyn AnyKind, info: &RequestInfo, options: &Options) -> Result<Self, Status> {
        let labels = match options.label_selector.as_str() {
            "" => Selector::everything(),
            text => Selector::parse(text)
                .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?,
        };
        let mut fields =
            FieldSelector::parse(&options.field_selector).map_err(|error| Status::bad_request(error.to_string()))?;
        check_fields(kind, &fields)?;
        let named = fields.exact("metadata.name").map(str::to_owned);
        // `RequestInfo` copies the selected name, so that authorization sees it.
        if fields.is_everything() && !info.name.is_empty() {
            fields = FieldSelector::equal("metadata.name", &info.name);
        } else if !info.name.is_empty() && named.as_deref() != Some(info.name.as_str()) {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        let descriptor = kind.descriptor();
        let namespace = if descriptor.is_namespaced() { info.namespace.as_str() } else { "" };
        let prefix = match namespace {
            "" => format!("{}/", descriptor.stored_as),
            namespace => format!("{}/{namespace}/", descriptor.stored_as),
        };
        let knows_key = !descriptor.is_namespaced() || !namespace.is_empty();
        let only = fields.exact("metadata.name").filter(|_| knows_key).map(|name| key(kind, namespace, name));
        Ok(Self { prefix: prefix.into(), only, labels, fields })
    }

    /// Whether every object under the prefix is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        entry.key.starts_with(&*self.prefix)
            && (self.labels.is_everything() || self.labels.matches(&entry.facts.labels))
            && (self.fields.is_everything() || self.fields.matches(&entry.facts.fields))
    }

    /// The selected entries, in key order, beginning with the key `from` where one is given.
    pub fn pick<'a>(&'a self, objects: &'a Objects, from: Option<&str>) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let (start, end): (Key, Option<&Key>) = match (&self.only, from) {
            (Some(key), None) => (key.clone(), Some(key)),
            (_, Some(from)) => (from.into(), None),
            (None, None) => (self.prefix.clone(), None),
        };
        let inside = move |key: &Key| key.starts_with(&*self.prefix) && end.is_none_or(|end| key == end);
        objects
            .range(start..)
            .take_while(move |(key, _)| inside(key))
            .map(|(_, entry)| entry)
            .filter(|entry| self.matches(entry))
    }

    /// How many entries under the prefix follow `key`.
    pub fn count_after(&self, objects: &Objects, key: &Key) -> usize {
        let after = (std::ops::Bound::Excluded(key.clone()), std::ops::Bound::Unbounded);
        objects.range(after).take_while(|(key, _)| key.starts_with(&*self.prefix)).count()
    }
}

/// Fields that no object of the kind has are an error.
fn check_fields(kind: &dyn AnyKind, fields: &FieldSelector) -> Result<(), Status> {
    if fields.is_everything() {
        return Ok(());
    }
    let mut known: Vec<_> =
        kind.selectable_fields(&json!({"metadata": {}})).into_iter().map(|(name, _)| name).collect();
    if known.is_empty() {
        known = vec!["metadata.name", "metadata.namespace"];
    }
    let has_own = known.iter().any(|name| !name.starts_with("metadata."));
    match fields.requirements().iter().find(|requirement| !known.contains(&requirement.field.as_str())) {
        None => Ok(()),
        Some(unknown) if unknown.field == "metadata.namespace" => Ok(()),
        Some(unknown) if has_own => Err(Status::bad_request(format!("field label not supported: {}", unknown.field))),
        Some(unknown) => Err(Status::bad_request(format!(
            "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            unknown.field
        ))),
    }
}
