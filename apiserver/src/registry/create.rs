//! CREATE.

use api::{Object, Status, object::ObjectExt};
use store::Precondition;

use super::{
    commit::{Put, Refused, Written},
    decode, managed, meta,
};
use crate::{
    Server,
    admission::{Attributes, Operation},
    allocation,
    cache::key,
    call::Call,
    respond::Answer,
};

/// How often a name is generated, and a lost claim decided again, before giving up.
const ATTEMPTS_MAX: usize = 8;

/// Kinds whose creator may set their status: the kubelet registers its Node so.
const STATUS_OF_CREATOR: &[&str] = &["nodes"];

impl Server {
    pub(super) async fn create(&self, call: &Call) -> Result<Answer, Status> {
        let mut object = decode::object(call)?;
        if call.descriptor().is_namespaced() && call.namespace().is_empty() {
            return Err(Status::method_not_allowed());
        }
        if !object.resource_version().is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        meta::ensure_namespace(call, &mut object)?;
        let written = self.create_object(call, object).await?;
        Ok(Answer::Object { code: 201, bytes: written.bytes })
    }

    /// Creates a decoded object; its namespace has been checked.
    pub async fn create_object(&self, call: &Call, object: Object) -> Result<Written, Status> {
        let generates = meta::wants_generated_name(&object);
        let mut attempt = 1;
        loop {
            let mut named = object.clone();
            if generates {
                self.generate_name(&mut named);
            }
            let name = named.name().to_owned();
            match self.create_once(call, named).await {
                Ok(written) => return Ok(written),
                Err(Refused::Failed(status)) => return Err(*status),
                Err(Refused::Moved(_)) if !generates || attempt == ATTEMPTS_MAX => {
                    return Err(Status::already_exists(call.resource(), &name));
                }
                Err(Refused::ClaimLost) if attempt == ATTEMPTS_MAX => {
                    return Err(Status::conflict(
                        call.resource(),
                        &name,
                        "what it needs was taken by others; try again",
                    ));
                }
                Err(_) => attempt += 1,
            }
        }
    }

    async fn create_once(&self, call: &Call, mut object: Object) -> Result<Written, Refused> {
        let name = object.name().to_owned();
        let key = key(call.kind, call.namespace(), &name);
        self.set_system_fields(call, &mut object);
        let (object, claims) = self.prepare_new(call, object, &name).await?;
        if call.options.dry_run && self.cache.resource(&call.descriptor().stored_as).get(&key).is_some() {
            return Err(Refused::Moved(None));
        }
        let put = Put { call, key, object, precondition: Precondition::Absent, claims };
        let bytes = self.put(put, call.options.dry_run).await?;
        Ok(Written { bytes, created: true })
    }

    /// From what was decoded to what is committed.
    async fn prepare_new(
        &self,
        call: &Call,
        object: Object,
        name: &str,
    ) -> Result<(Object, Vec<store::Write>), Status> {
        let attributes = self.attributes(call, Operation::Create, name, None);
        let mut object = call.kind.set_defaults(object)?;
        let descriptor = call.descriptor();
        if descriptor.has_subresource("status") && !STATUS_OF_CREATOR.contains(&descriptor.stored_as.as_str()) {
            object.as_object_mut().and_then(|fields| fields.remove("status"));
        }
        meta::deduplicate_owners(call, &mut object);
        let object = managed::tracked(self, call, object, None);
        let object = call.kind.prepare_for_create(object)?;
        let mut object = self.admit(call, &attributes, object).await?;
        let claims = allocation::claims(&attributes, Some(&mut object))?;
        meta::validate_new(call, &object)?;
        for warning in call.kind.warnings(&object, None) {
            call.warnings.push(warning);
        }
        for step in &self.admission {
            step.validate(&attributes, &object).await?;
        }
        self.auth.check_grant(&call.user, &call.info, &object, None)?;
        Ok((object, claims))
    }

    /// What admission steps know about a request.
    pub(crate) fn attributes<'a>(
        &'a self,
        call: &'a Call,
        operation: Operation,
        name: &'a str,
        old: Option<&'a Object>,
    ) -> Attributes<'a> {
        Attributes {
            kind: call.descriptor(),
            operation,
            user: &call.user,
            namespace: call.namespace(),
            name,
            subresource: &call.info.subresource,
            dry_run: call.options.dry_run,
            old,
            view: &*self.cache,
            auth: &self.auth,
            config: &self.config,
            clock: &self.clock,
            chance: &self.chance,
            warnings: &call.warnings,
        }
    }

    /// The mutating steps; what they changed gets its defaults again.
    pub(super) async fn admit(
        &self,
        call: &Call,
        attributes: &Attributes<'_>,
        mut object: Object,
    ) -> Result<Object, Status> {
        if self.admission.is_empty() {
            return Ok(object);
        }
        let before = object.clone();
        for step in &self.admission {
            step.admit(attributes, &mut object).await?;
        }
        match object == before {
            true => Ok(object),
            false => call.kind.set_defaults(object),
        }
    }
}
