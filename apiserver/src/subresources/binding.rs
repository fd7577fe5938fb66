//! `pods/binding`, and `bindings` as the older path to it: a Pod gets its node.

use std::sync::Arc;

use api::{Errors, Object, Status, kinds::core::pod::binding, object::ObjectExt, status::GroupResource};
use axum::body::Body;
use k8s_openapi::{
    api::core::v1::{Binding, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde::Deserialize;

use super::{Answered, admit, builtin, call_about, created, posted};
use crate::{
    Server,
    call::Call,
    registry::{Change, Part},
};

pub(super) fn create(server: Arc<Server>, mut call: Call, body: Body) -> Answered {
    Box::pin(async move {
        let object = posted(&mut call, body, "Binding").await?;
        if call.info.subresource.is_empty() {
            call = call_about(&call, builtin("", "v1", "pods")?, object.name(), "binding");
        }
        bind(&server, &call, object).await?;
        Ok(created())
    })
}

async fn bind(server: &Server, call: &Call, mut object: Object) -> Result<(), Status> {
    if object.name() != call.name() {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    admit(server, call, &mut object).await?;
    let wanted = Binding::deserialize(&object).map_err(|error| Status::bad_request(error.to_string()))?;
    let mut errors = Errors::default();
    binding::validate(&wanted, &mut errors);
    if !errors.is_empty() {
        return Err(Status::unknown(errors.summary()));
    }
    let make = |pod: Option<&Object>| {
        let pod = pod.ok_or_else(|| call.not_found())?;
        check_preconditions(call, &object, pod)?;
        assigned(call, pod, &wanted, Time(server.clock.now()))
    };
    server.change(call, &Change { part: Part::Whole, make: &make, creates: false }).await?;
    Ok(())
}

/// The uid and resourceVersion of a Binding are those that its Pod must have.
fn check_preconditions(call: &Call, binding: &Object, pod: &Object) -> Result<(), Status> {
    let checks =
        [("UID", binding.uid(), pod.uid()), ("ResourceVersion", binding.resource_version(), pod.resource_version())];
    match checks.into_iter().find(|(_, wanted, present)| !wanted.is_empty() && wanted != present) {
        None => Ok(()),
        Some((what, wanted, present)) => {
            let why =
                format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {present}");
            Err(Status::conflict(call.resource(), call.name(), &why))
        }
    }
}

fn assigned(call: &Call, pod: &Object, binding: &Binding, now: Time) -> Result<Object, Status> {
    let mut typed = Pod::deserialize(pod).map_err(Status::internal)?;
    let refused =
        |why: String| Status::conflict(GroupResource { group: "", resource: "pods/binding" }, call.name(), &why);
    binding::assign(&mut typed, binding, now).map_err(refused)?;
    serde_json::to_value(typed).map_err(Status::internal)
}
