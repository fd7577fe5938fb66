//! What makes one kind different from another, and the same with its type erased.
//!
//! [`Kind`] is implemented in `kinds/<group>/<kind>.rs`, on the k8s-openapi type. [`AnyKind`] is what
//! the API server holds: JSON in, JSON out; a custom resource is one more implementor of it.

use std::{any::TypeId, marker::PhantomData};

use jiff::Timestamp;
use k8s_openapi::{Metadata, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{field::Errors, object::Object, status::Status};

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// What a name of this kind may look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    DnsSubdomain,
    /// RFC 1123 label: Namespace.
    DnsLabel,
    /// RFC 1035 label: Service.
    Dns1035Label,
    /// Anything that fits in a path segment: RBAC kinds.
    PathSegment,
}

/// A subresource as discovery lists it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subresource {
    /// `status`, `scale`, `log`, ...
    pub name: &'static str,
    /// Group, version and kind of what it exchanges; empty group and version: those of the parent.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// `status`, for any kind.
pub const fn status_of(kind: &'static str) -> Subresource {
    Subresource { name: "status", group: "", version: "", kind, verbs: &["get", "patch", "update"] }
}

/// `scale`, for workloads.
pub const SCALE: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: &["get", "patch", "update"],
};

/// Verbs of an ordinary stored kind.
pub const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One column of `kubectl get`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`, ...
    pub r#type: &'static str,
    /// `name` for the first column, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: u8,
}

/// A column that is always shown.
pub const fn column(name: &'static str, description: &'static str) -> Column {
    Column { name, r#type: "string", format: "", description, priority: 0 }
}

/// A column of whole numbers.
pub const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { r#type: "integer", ..column(name, description) }
}

/// A column of yes and no.
pub const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column { r#type: "boolean", ..column(name, description) }
}

/// A column that `-o wide` adds.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { priority: 1, ..column(name, description) }
}

/// The first column of every table.
pub const NAME_COLUMN: Column = Column {
    name: "Name",
    r#type: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some \
                  resources may allow a client to request the generation of an appropriate name automatically. \
                  Name is primarily intended for creation idempotence and configuration definition. Cannot be updated.",
    priority: 0,
};

/// The usual last column.
pub const AGE_COLUMN: Column = column("Age", "Time since this object was created.");

/// The last column of kinds that upstream has no printer for.
pub const CREATED_AT_COLUMN: Column =
    Column { r#type: "date", ..column("Created At", "When this object was created.") };

/// One built-in kind. Only `GROUP_VERSION_KIND` facts come from the type; the rest have defaults for a
/// kind that has no rules of its own.
pub trait Kind:
    k8s_openapi::Resource
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + JsonSchema
    + Clone
    + Send
    + Sync
    + 'static
{
    const SHORT_NAMES: &'static [&'static str] = &[];
    /// `all`, ...
    const CATEGORIES: &'static [&'static str] = &[];
    const SUBRESOURCES: &'static [Subresource] = &[];
    const VERBS: &'static [&'static str] = ALL_VERBS;
    const NAME_RULE: NameRule = NameRule::DnsSubdomain;
    /// Whether `metadata.generation` counts changes outside metadata and status.
    const HAS_GENERATION: bool = false;
    /// Whether an update may create the object (Lease, Endpoints, Event, ...).
    const CREATE_ON_UPDATE: bool = false;
    /// Whether an update without a resourceVersion is taken as "whatever is there now".
    const UNCONDITIONAL_UPDATE: bool = true;
    /// Whether a creator may set status (Node).
    const STATUS_ON_CREATE: bool = false;
    /// The key prefix it is stored under, if not `<plural>` or `<plural>.<group>`: kinds of two groups that are
    /// one thing share it (Event).
    const STORED_AS: Option<&'static str> = None;
    /// `service` of `services`.
    const SINGULAR: Option<&'static str> = None;

    /// Fills in what the user left out. Runs on everything that is decoded.
    fn set_defaults(&mut self) {}
    /// Clears what a creator may not set, fills in what the server decides. Status is cleared before,
    /// and the name is known.
    fn prepare_for_create(&mut self) {}
    /// The same for an update; status is taken from `old` before.
    fn prepare_for_update(&mut self, _old: &Self) {}
    /// For the status subresource; everything but status is taken from `old` before.
    fn prepare_for_status_update(&mut self, _old: &Self) {}
    fn validate(&self, _errors: &mut Errors) {}
    /// Only what holds for a new object and need not hold later; `validate` runs as well.
    fn validate_create(&self, _errors: &mut Errors) {}
    /// Only what concerns the change; `validate` runs as well.
    fn validate_update(&self, _old: &Self, _errors: &mut Errors) {}
    fn validate_status_update(&self, _old: &Self, _errors: &mut Errors) {}
    /// `Warning:` headers, one sentence each.
    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        Vec::new()
    }
    fn columns() -> Vec<Column> {
        vec![NAME_COLUMN, CREATED_AT_COLUMN]
    }
    /// Cells, in the order of `columns`.
    fn row(&self, _now: Timestamp) -> Vec<Value> {
        let created = self.metadata().creation_timestamp.as_ref();
        vec![self.metadata().name.clone().into(), created.map(|created| created.0.to_string()).into()]
    }
    /// Field selectors beside `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// From the form it is stored in to this one, and back (Event of events.k8s.io).
    fn from_stored(stored: Object) -> Object {
        stored
    }
    fn to_stored(object: Object) -> Object {
        object
    }
}

/// Time since creation, as `kubectl get` prints it.
pub fn age(meta: &ObjectMeta, now: Timestamp) -> String {
    since(meta.creation_timestamp.as_ref().map(|created| created.0), now)
}

/// Time since then, as `kubectl get` prints it.
pub fn since(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map_or_else(|| "<unknown>".into(), |then| human_duration(now.duration_since(then)))
}

/// Labels in one cell: `a=1,b=2`.
pub fn labels_cell(labels: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let pairs: Vec<_> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// The first few of many in one cell: `a,b,c + 2 more...`.
pub fn some_cell(all: &[String], shown_max: usize, if_empty: &str) -> String {
    match all {
        [] => if_empty.into(),
        all if all.len() <= shown_max => all.join(","),
        all => format!("{} + {} more...", all[..shown_max].join(","), all.len() - shown_max),
    }
}

/// `5s`, `2m30s`, `3h5m`, `4d`, ... (upstream: `duration.HumanDuration`).
pub fn human_duration(duration: jiff::SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |large: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{large}{unit}"),
        rest => format!("{large}{unit}{rest}{small}"),
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(hours / 24, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => pair(hours / 24 / 365, "y", (hours / 24) % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// The facts about a kind that need no object.
#[derive(Clone, Debug)]
pub struct Descriptor {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub scope: Scope,
    pub subresources: Vec<Subresource>,
    pub verbs: Vec<String>,
    pub name_rule: NameRule,
    pub has_generation: bool,
    pub create_on_update: bool,
    pub unconditional_update: bool,
    pub status_on_create: bool,
    pub stored_as: String,
    /// Name in OpenAPI definitions: `io.k8s.api.core.v1.Pod`.
    pub schema_name: String,
}

impl Descriptor {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.iter().any(|subresource| subresource.name == name)
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn group_resource(&self) -> crate::status::GroupResource<'_> {
        crate::status::GroupResource { group: &self.group, resource: &self.plural }
    }
}

/// A kind whose type is known only at run time. Objects are JSON; all methods are pure.
pub trait AnyKind: Send + Sync {
    fn descriptor(&self) -> &Descriptor;
    /// Decodes to the type (unknown fields fall away), sets defaults, encodes.
    /// Fails with `BadRequest` where the JSON does not fit the type.
    fn set_defaults(&self, object: Object) -> Result<Object, Status>;
    fn prepare_for_create(&self, object: Object) -> Result<Object, Status>;
    fn prepare_for_update(&self, object: Object, old: &Object) -> Result<Object, Status>;
    fn prepare_for_status_update(&self, object: Object, old: &Object) -> Result<Object, Status>;
    /// For an object that is about to be created.
    fn validate(&self, object: &Object) -> Result<Errors, Status>;
    fn validate_update(&self, object: &Object, old: &Object) -> Result<Errors, Status>;
    fn validate_status_update(&self, object: &Object, old: &Object) -> Result<Errors, Status>;
    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String>;
    fn columns(&self) -> Vec<Column>;
    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value>;
    /// All selectable fields with their values, `metadata.name` and `metadata.namespace` included.
    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)>;
    #[allow(clippy::wrong_self_convention, reason = "the kind does not become what was stored, it reads it")]
    fn from_stored(&self, stored: Object) -> Object;
    fn to_stored(&self, object: Object) -> Object;
    /// The JSON schema, with everything it refers to registered in `generator`.
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema;
}

struct Builtin<K> {
    descriptor: Descriptor,
    kind: PhantomData<fn() -> K>,
}

/// A built-in kind, as the registry holds it.
pub fn builtin<K: Kind>() -> Box<dyn AnyKind> {
    let namespaced = TypeId::of::<K::Scope>() == TypeId::of::<NamespaceResourceScope>();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let descriptor = Descriptor {
        group: K::GROUP.into(),
        version: K::VERSION.into(),
        kind: K::KIND.into(),
        plural: K::URL_PATH_SEGMENT.into(),
        singular: K::SINGULAR.map_or_else(|| K::KIND.to_ascii_lowercase(), str::to_owned),
        short_names: owned(K::SHORT_NAMES),
        categories: owned(K::CATEGORIES),
        scope: if namespaced { Scope::Namespaced } else { Scope::Cluster },
        subresources: K::SUBRESOURCES.to_vec(),
        verbs: owned(K::VERBS),
        name_rule: K::NAME_RULE,
        has_generation: K::HAS_GENERATION,
        create_on_update: K::CREATE_ON_UPDATE,
        unconditional_update: K::UNCONDITIONAL_UPDATE,
        status_on_create: K::STATUS_ON_CREATE,
        stored_as: match (K::STORED_AS, K::GROUP) {
            (Some(prefix), _) => prefix.into(),
            (None, "") => K::URL_PATH_SEGMENT.into(),
            (None, group) => format!("{}.{group}", K::URL_PATH_SEGMENT),
        },
        schema_name: K::schema_name().into_owned(),
    };
    Box::new(Builtin::<K> { descriptor, kind: PhantomData })
}

impl<K: Kind> Builtin<K> {
    fn decode(&self, object: &Object) -> Result<K, Status> {
        K::deserialize(object).map_err(|error| {
            let Descriptor { kind, version, .. } = &self.descriptor;
            Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
        })
    }

    fn encode(&self, typed: &K) -> Result<Object, Status> {
        serde_json::to_value(typed).map_err(Status::internal)
    }

    fn change(&self, object: &Object, change: impl FnOnce(&mut K)) -> Result<Object, Status> {
        let mut typed = self.decode(object)?;
        change(&mut typed);
        self.encode(&typed)
    }
}

impl<K: Kind> AnyKind for Builtin<K> {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
    fn set_defaults(&self, object: Object) -> Result<Object, Status> {
        self.change(&object, K::set_defaults)
    }
    fn prepare_for_create(&self, object: Object) -> Result<Object, Status> {
        self.change(&object, K::prepare_for_create)
    }
    fn prepare_for_update(&self, object: Object, old: &Object) -> Result<Object, Status> {
        let old = self.decode(old)?;
        self.change(&object, |typed| typed.prepare_for_update(&old))
    }
    fn prepare_for_status_update(&self, object: Object, old: &Object) -> Result<Object, Status> {
        let old = self.decode(old)?;
        self.change(&object, |typed| typed.prepare_for_status_update(&old))
    }
    fn validate(&self, object: &Object) -> Result<Errors, Status> {
        let mut errors = Errors::default();
        let typed = self.decode(object)?;
        typed.validate(&mut errors);
        typed.validate_create(&mut errors);
        Ok(errors)
    }
    fn validate_update(&self, object: &Object, old: &Object) -> Result<Errors, Status> {
        let mut errors = Errors::default();
        let typed = self.decode(object)?;
        typed.validate(&mut errors);
        typed.validate_update(&self.decode(old)?, &mut errors);
        Ok(errors)
    }
    fn validate_status_update(&self, object: &Object, old: &Object) -> Result<Errors, Status> {
        let mut errors = Errors::default();
        self.decode(object)?.validate_status_update(&self.decode(old)?, &mut errors);
        Ok(errors)
    }
    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let old = old.and_then(|old| self.decode(old).ok());
        self.decode(object).map(|typed| typed.warnings(old.as_ref())).unwrap_or_default()
    }
    fn columns(&self) -> Vec<Column> {
        K::columns()
    }
    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        self.decode(object).map(|typed| typed.row(now)).unwrap_or_default()
    }
    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let Ok(typed) = self.decode(object) else { return Vec::new() };
        let meta = typed.metadata();
        let mut fields = typed.selectable_fields();
        fields.push(("metadata.name", meta.name.clone().unwrap_or_default()));
        if self.descriptor.is_namespaced() {
            fields.push(("metadata.namespace", meta.namespace.clone().unwrap_or_default()));
        }
        fields
    }
    fn from_stored(&self, stored: Object) -> Object {
        K::from_stored(stored)
    }
    fn to_stored(&self, object: Object) -> Object {
        K::to_stored(object)
    }
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<K>()
    }
}
