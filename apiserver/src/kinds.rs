//! Which kinds this server serves, looked up by path and by place of storage.

use std::{collections::HashMap, sync::LazyLock};

use api::AnyKind;

type Index = HashMap<(String, String), &'static dyn AnyKind>;

/// By group and version (`apps/v1`) and plural.
static BY_PATH: LazyLock<Index> = LazyLock::new(|| {
    let entry = |kind: &'static dyn AnyKind| {
        let descriptor = kind.descriptor();
        ((descriptor.api_version(), descriptor.plural.clone()), kind)
    };
    all().map(entry).collect()
});

/// The kind in whose form the objects of a stored resource are kept.
static BY_STORAGE: LazyLock<HashMap<String, &'static dyn AnyKind>> = LazyLock::new(|| {
    let mut kinds: HashMap<String, &'static dyn AnyKind> = HashMap::new();
    for kind in all() {
        let descriptor = kind.descriptor();
        let natural = crate::cache::stored_as(&descriptor.group, &descriptor.plural) == descriptor.stored_as;
        let known = kinds.contains_key(&descriptor.stored_as);
        if !known || (natural && !is_preferred(kinds[&descriptor.stored_as], &descriptor.stored_as)) {
            kinds.insert(descriptor.stored_as.clone(), kind);
        }
    }
    kinds
});

fn is_preferred(kind: &dyn AnyKind, stored_as: &str) -> bool {
    let descriptor = kind.descriptor();
    crate::cache::stored_as(&descriptor.group, &descriptor.plural) == stored_as
}

/// Every kind, in the order of the registry.
pub fn all() -> impl Iterator<Item = &'static dyn AnyKind> {
    api::kinds::ALL.iter().map(AsRef::as_ref)
}

/// The kind that serves this group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static dyn AnyKind> {
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    BY_PATH.get(&(group_version, plural.to_owned())).copied()
}

/// The kind in whose form a stored resource is kept.
pub fn stored_as(name: &str) -> Option<&'static dyn AnyKind> {
    BY_STORAGE.get(name).copied()
}

/// Whether objects are stored in the form of `kind`, so that stored bytes can be served as they are.
pub fn is_storage_form(kind: &dyn AnyKind) -> bool {
    stored_as(&kind.descriptor().stored_as).is_some_and(|stored| std::ptr::addr_eq(stored, kind))
}
