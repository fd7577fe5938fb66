//! UPDATE, and the loop that every change of an existing object goes through.

use api::{Errors, Object, Path, Status, object::ObjectExt};
use serde_json::Value;
use store::{Precondition, Revision};

use super::{
    commit::{Put, Refused, Written},
    decode, managed, meta,
};
use crate::{
    Server,
    admission::Operation,
    allocation,
    cache::{key, unavailable},
    call::Call,
    respond::{Answer, parse},
    subresources::parts::{OwnPart, validate_finalizers},
};

/// How often a change is decided again because the object moved under it.
const ATTEMPTS_MAX: usize = 64;

/// What of an object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Object,
    /// The status alone.
    Status,
    /// `spec.finalizers` of a Namespace.
    Finalizers,
    /// What a subresource's own rules allow.
    Own(OwnPart),
    /// Whatever the change says; its author has seen to it.
    Whole,
}

impl Part {
    pub(super) fn of_subresource(name: &str) -> Option<Self> {
        match name {
            "status" => Some(Self::Status),
            "finalize" => Some(Self::Finalizers),
            other => OwnPart::of_subresource(other).map(Self::Own),
        }
    }
}

/// How to get from an object to its successor.
pub struct Change<'a> {
    pub part: Part,
    /// From the present object (`None`: there is none) to the wished-for one. Called again whenever the
    /// object has moved in the meantime.
    pub make: &'a (dyn Fn(Option<&Object>) -> Result<Object, Status> + Send + Sync),
    /// Whether the object may be created by this (server-side apply).
    pub creates: bool,
}

/// An object as it is stored now, in the form of the call's kind.
struct Current {
    object: Object,
    revision: Revision,
}

impl Server {
    pub(super) async fn update(&self, call: &Call, part: Part) -> Result<Answer, Status> {
        let mut object = decode::object(call)?;
        meta::ensure_namespace(call, &mut object)?;
        meta::check_name(call, &object)?;
        meta::deduplicate_owners(call, &mut object);
        let creates = call.descriptor().create_on_update && part == Part::Object;
        let make = |_: Option<&Object>| Ok(object.clone());
        let written = self.change(call, &Change { part, make: &make, creates }).await?;
        Ok(Answer::Object { code: if written.created { 201 } else { 200 }, bytes: written.bytes })
    }

    /// Changes the object that the request names, as often as it takes.
    ///
    /// The first attempt is based on the cache. A refusal counts only if it is based on what the store holds.
    pub async fn change(&self, call: &Call, change: &Change<'_>) -> Result<Written, Status> {
        let key = key(call.kind, call.namespace(), call.name());
        let mut current = self.entry(call).map(|entry| self.current(call, &entry.bytes, entry.revision));
        let mut is_fresh = false;
        for _ in 0..ATTEMPTS_MAX {
            let refused = match &current {
                Some(current) => self.change_once(call, change, current).await,
                None => self.create_by_change(call, change).await,
            };
            let moved_to = match refused {
                Ok(written) => return Ok(written),
                Err(Refused::Failed(status)) if is_fresh => return Err(*status),
                Err(Refused::Failed(status)) => {
                    let (entry, _) = self.store.get(&key).await.map_err(unavailable)?;
                    let revision = entry.as_ref().map(|entry| entry.revision);
                    if revision == current.as_ref().map(|current| current.revision) {
                        return Err(*status);
                    }
                    entry
                }
                Err(Refused::Moved(entry)) => entry,
                Err(Refused::ClaimLost) => continue,
            };
            is_fresh = true;
            current = moved_to
                .map(|entry| self.current(call, &api::encoding::stamp(&entry.value, entry.revision), entry.revision));
        }
        Err(Status::modified(call.resource(), call.name()))
    }

    fn current(&self, call: &Call, bytes: &[u8], revision: Revision) -> Current {
        Current { object: call.kind.from_stored(parse(bytes)), revision }
    }

    async fn create_by_change(&self, call: &Call, change: &Change<'_>) -> Result<Written, Refused> {
        if !change.creates {
            return Err(call.not_found().into());
        }
        let info = crate::request::RequestInfo { verb: "create".into(), ..call.info.clone() };
        let allowed = self.auth.authorize(&call.user, &info).into_result(&call.user, &info);
        allowed?;
        let mut object = (change.make)(None)?;
        if !object.uid().is_empty() {
            let uid = object.uid();
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(call.resource(), call.name(), &why).into());
        }
        meta::ensure_namespace(call, &mut object)?;
        object.set_metadata("resourceVersion", Value::Null);
        match self.create_object(call, object).await {
            Err(status) if status.reason == "AlreadyExists" => {
                let key = key(call.kind, call.namespace(), call.name());
                let (entry, _) = self.store.get(&key).await.map_err(unavailable)?;
                Err(Refused::Moved(entry))
            }
            result => result.map_err(Refused::from),
        }
    }

    async fn change_once(&self, call: &Call, change: &Change<'_>, current: &Current) -> Result<Written, Refused> {
        let old = &current.object;
        let wished = (change.make)(Some(old))?;
        let (object, claims) = self.prepare_change(call, change.part, wished, current).await?;
        if managed::is_same(&object, old) {
            let bytes = api::encoding::encode(&call.kind.to_stored(old.clone()));
            return Ok(Written { bytes: api::encoding::stamp(&bytes, current.revision), created: false });
        }
        let key = key(call.kind, call.namespace(), call.name());
        if is_finished(&object, old) {
            return self.finish_deletion(call, key, object, current).await;
        }
        let precondition = Precondition::Revision(current.revision);
        let bytes = self.put(Put { call, key, object, precondition, claims }, call.options.dry_run).await?;
        Ok(Written { bytes, created: false })
    }

    /// The last finalizer is gone from an object that is being deleted.
    async fn finish_deletion(
        &self,
        call: &Call,
        key: store::Key,
        object: Object,
        current: &Current,
    ) -> Result<Written, Refused> {
        let bytes = api::encoding::encode(&call.kind.to_stored(object));
        if call.options.dry_run {
            return Ok(Written { bytes: api::encoding::stamp(&bytes, current.revision), created: false });
        }
        let attributes = self.attributes(call, Operation::Delete, call.name(), Some(&current.object));
        let claims = allocation::claims(&attributes, None)?;
        let revision = self.remove(key, current.revision, claims).await?;
        Ok(Written { bytes: api::encoding::stamp(&bytes, revision), created: false })
    }

    /// From what was wished for to what is committed.
    async fn prepare_change(
        &self,
        call: &Call,
        part: Part,
        wished: Object,
        current: &Current,
    ) -> Result<(Object, Vec<store::Write>), Status> {
        let old = &current.object;
        let mut object = wished;
        meta::ensure_namespace(call, &mut object)?;
        meta::check_name(call, &object)?;
        check_identity(call, &object, current)?;
        let mut object = call.kind.set_defaults(object)?;
        object.set_metadata("resourceVersion", current.revision.to_string().into());
        meta::keep_system_fields(&mut object, old);
        keep_other_parts(call, part, &mut object, old);
        let object = managed::tracked(self, call, object, Some(old));
        let object = match part {
            Part::Object => call.kind.prepare_for_update(object, old)?,
            Part::Status => call.kind.prepare_for_status_update(object, old)?,
            Part::Own(part) => part.prepare(&object, old, self.clock.now())?,
            Part::Finalizers | Part::Whole => object,
        };
        let attributes = self.attributes(call, Operation::Update, call.name(), Some(old));
        let mut object = self.admit(call, &attributes, object).await?;
        let claims = allocation::claims(&attributes, Some(&mut object))?;
        if part != Part::Whole {
            count_generation(call, &mut object, old);
        }
        let findings = match part {
            Part::Object => call.kind.validate_update(&object, old)?,
            Part::Status => call.kind.validate_status_update(&object, old)?,
            Part::Own(part) => part.validate(&object, old)?,
            Part::Finalizers => validate_finalizers(&object),
            Part::Whole => Errors::default(),
        };
        meta::validate_change(call, &object, old, findings)?;
        for warning in call.kind.warnings(&object, Some(old)) {
            call.warnings.push(warning);
        }
        for step in &self.admission {
            step.validate(&attributes, &object).await?;
        }
        self.auth.check_grant(&call.user, &call.info, &object, Some(old))?;
        Ok((object, claims))
    }
}

/// The uid and resourceVersion that the client gave must be those of the object.
fn check_identity(call: &Call, object: &Object, current: &Current) -> Result<(), Status> {
    let (given, uid) = (object.uid(), current.object.uid());
    if !given.is_empty() && given != uid {
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
        return Err(Status::conflict(call.resource(), call.name(), &why));
    }
    match object.resource_version() {
        "" | "0" if call.descriptor().unconditional_update => Ok(()),
        "" | "0" => {
            let mut errors = Errors::default();
            let why = "must be specified for an update";
            errors.invalid(&Path::new("metadata").child("resourceVersion"), 0, why);
            Err(Status::invalid(&call.descriptor().group, &call.descriptor().plural, call.name(), errors))
        }
        version if version == current.revision.to_string() => Ok(()),
        _ => Err(Status::modified(call.resource(), call.name())),
    }
}

/// What the request may not change is as it was.
fn keep_other_parts(call: &Call, part: Part, object: &mut Object, old: &Object) {
    match part {
        Part::Object if call.descriptor().has_subresource("status") => copy(object, old, "status"),
        Part::Object | Part::Own(_) | Part::Whole => {}
        Part::Status => {
            let status = object.get("status").cloned();
            let managed_fields = object["metadata"].get("managedFields").cloned().unwrap_or_default();
            object.clone_from(old);
            object.set_metadata("managedFields", managed_fields);
            set(object, "status", status);
        }
        Part::Finalizers => {
            let finalizers = object.pointer("/spec/finalizers").cloned();
            let managed_fields = object["metadata"].get("managedFields").cloned().unwrap_or_default();
            object.clone_from(old);
            object.set_metadata("managedFields", managed_fields);
            let mut spec = old.get("spec").cloned().unwrap_or_default();
            set(&mut spec, "finalizers", finalizers);
            set(object, "spec", Some(spec));
        }
    }
}

fn copy(object: &mut Object, old: &Object, field: &str) {
    set(object, field, old.get(field).cloned());
}

fn set(object: &mut Object, field: &str, value: Option<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
}

/// The generation counts changes outside metadata and status.
fn count_generation(call: &Call, object: &mut Object, old: &Object) {
    if !call.descriptor().has_generation {
        return;
    }
    let desired = |object: &Object| {
        let fields = object.as_object().into_iter().flatten();
        fields
            .filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status"))
            .map(|(_, value)| value.clone())
            .collect::<Vec<_>>()
    };
    if desired(object) != desired(old) {
        object.set_metadata("generation", (old.generation() + 1).into());
    }
}

/// Whether nothing holds an object any more that is being deleted.
fn is_finished(object: &Object, old: &Object) -> bool {
    let is_empty = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).is_none_or(Vec::is_empty);
    let grace = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let holds_namespace = object["kind"] == "Namespace" && !is_empty("/spec/finalizers");
    old.is_deleting() && grace == 0 && is_empty("/metadata/finalizers") && !holds_namespace
}
