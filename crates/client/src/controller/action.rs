//! One write that a decision asks for, as data.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt, api::ApiResource, api::PropagationPolicy};
use serde::Serialize;
use serde_json::Value;

use super::Note;
use crate::Key;

/// Which object.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub resource: ApiResource,
    /// Without a name for a create whose name the server chooses.
    pub key: Key,
}

/// What to do with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    Create(Value),
    /// PUT, of a subresource where one is named; fails where the object has changed.
    Replace {
        object: Value,
        subresource: Option<&'static str>,
    },
    /// JSON merge patch, of a subresource where one is named.
    Patch {
        patch: Value,
        subresource: Option<&'static str>,
    },
    Delete(Deletion),
}

/// How to delete, and under which condition. The default is: as the kind does, whatever its state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deletion {
    pub uid: Option<String>,
    pub revision: Option<String>,
    pub propagation: Option<PropagationPolicy>,
    /// 0: at once, without waiting for the node.
    pub grace_seconds: Option<u32>,
}

/// A write, and what to tell the user about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    pub target: Target,
    pub verb: Verb,
    /// Told after success; the name that the server chose is appended for a create with `generateName`.
    pub success: Option<Note>,
    /// Told after failure; the error is appended.
    pub failure: Option<Note>,
}

impl Action {
    /// An action on an object of any kind.
    pub fn new(resource: ApiResource, key: Key, verb: Verb) -> Self {
        Self { target: Target { resource, key }, verb, success: None, failure: None }
    }

    fn on<K: Resource<DynamicType = ()>>(object: &K, verb: Verb) -> Self {
        let meta = object.meta();
        let key = Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        Self::new(ApiResource::erase::<K>(&()), key, verb)
    }

    /// Creates an object; that it exists already counts as success.
    pub fn create<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::on(object, Verb::Create(value(object)))
    }

    /// Replaces an object, provided that it is still at the resourceVersion given within.
    pub fn replace<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::on(object, Verb::Replace { object: value(object), subresource: None })
    }

    /// Replaces a subresource, under the same condition.
    pub fn replace_in<K>(subresource: &'static str, object: &K) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        Self::on(object, Verb::Replace { object: value(object), subresource: Some(subresource) })
    }

    /// Writes the status, unless it is as before.
    pub fn status<K>(old: &K, new: &K) -> Option<Self>
    where
        K: Resource<DynamicType = ()> + Serialize + PartialEq,
    {
        (old != new).then(|| Self::replace_in("status", new))
    }

    /// Merges `patch` into an object, provided that it is still the one with this uid.
    pub fn patch<K: Resource<DynamicType = ()>>(object: &K, patch: Value) -> Self {
        Self::on(object, Verb::Patch { patch: with_uid(patch, object.meta()), subresource: None })
    }

    /// Merges `patch` into a subresource, under the same condition.
    pub fn patch_in<K: Resource<DynamicType = ()>>(subresource: &'static str, object: &K, patch: Value) -> Self {
        Self::on(object, Verb::Patch { patch: with_uid(patch, object.meta()), subresource: Some(subresource) })
    }

    /// Deletes the object with this uid; that it is gone already counts as success.
    pub fn delete<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::on(object, Verb::Delete(Deletion { uid: object.uid(), ..Deletion::default() }))
    }

    /// Deletes the object in exactly this state.
    pub fn delete_at_revision<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let revision = object.resource_version();
        Self::on(object, Verb::Delete(Deletion { uid: object.uid(), revision, ..Deletion::default() }))
    }

    /// Deletes the object with this uid at once, without grace.
    pub fn delete_at_once<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let deletion = Deletion { uid: object.uid(), grace_seconds: Some(0), ..Deletion::default() };
        Self::on(object, Verb::Delete(deletion))
    }

    #[must_use]
    pub fn telling(mut self, success: Note) -> Self {
        self.success = Some(success);
        self
    }

    #[must_use]
    pub fn failing(mut self, failure: Note) -> Self {
        self.failure = Some(failure);
        self
    }
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("Kubernetes objects are maps with string keys")
}

fn with_uid(mut patch: Value, meta: &ObjectMeta) -> Value {
    if let Some(uid) = &meta.uid {
        patch["metadata"]["uid"] = Value::from(uid.clone());
    }
    patch
}

impl Verb {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Replace { .. } => "replace",
            Self::Patch { .. } => "patch",
            Self::Delete(_) => "delete",
        }
    }

    fn subresource(&self) -> Option<&'static str> {
        match self {
            Self::Replace { subresource, .. } | Self::Patch { subresource, .. } => *subresource,
            Self::Create(_) | Self::Delete(_) => None,
        }
    }
}

/// One line, for tests and logs: `create Pod default/web-1`.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.name(), self.target.resource.kind)?;
        if let Some(subresource) = self.verb.subresource() {
            write!(f, "/{subresource}")?;
        }
        write!(f, " {}", self.target.key)?;
        match &self.verb {
            Verb::Patch { patch, .. } => write!(f, " {patch}"),
            Verb::Delete(Deletion { propagation: Some(propagation), .. }) => write!(f, " {propagation:?}"),
            _ => Ok(()),
        }
    }
}
