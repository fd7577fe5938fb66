//! The scale subresource: `spec.replicas` of any kind that has it, as autoscaling/v1 Scale.

use api::{Errors, Object, Path, Status, object::ObjectExt, selector::Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::{
    decode, patch,
    update::{Change, Part},
};
use crate::{
    Server,
    call::Call,
    respond::{Answer, parse},
};

/// From the object to the Scale that is wished for.
type MakeScale = Box<dyn Fn(&Object) -> Result<Object, Status> + Send + Sync>;

impl Server {
    pub(super) async fn scale(&self, call: &Call, verb: &str) -> Result<Answer, Status> {
        let make: MakeScale = match verb {
            "get" => {
                self.wait_for_version(&call.options.resource_version).await?;
                let entry = self.entry(call).ok_or_else(|| call.not_found())?;
                return Ok(Answer::Other { code: 200, object: scale_of(&parse(&entry.bytes)) });
            }
            "update" => {
                let scale = decode::value(call)?;
                Box::new(move |_| Ok(scale.clone()))
            }
            "patch" => {
                let patch = patch::Patch::read(call)?;
                Box::new(move |old| patch.apply_to(&scale_of(old), api::schema::any()))
            }
            _ => return Err(Status::method_not_allowed()),
        };
        let change = |old: Option<&Object>| {
            let old = old.ok_or_else(|| call.not_found())?;
            scaled(call, old, &make(old)?)
        };
        let written = self.change(call, &Change { part: Part::Object, make: &change, creates: false }).await?;
        Ok(Answer::Other { code: 200, object: scale_of(&parse(&written.bytes)) })
    }
}

/// The object as a Scale.
fn scale_of(object: &Object) -> Value {
    let meta = &object["metadata"];
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<_, _> =
        kept.iter().filter_map(|field| Some(((*field).to_owned(), meta.get(field)?.clone()))).collect();
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": number("/spec/replicas")},
        "status": {"replicas": number("/status/replicas"), "selector": selector_of(object)},
    })
}

fn selector_of(object: &Object) -> String {
    let selector = object.pointer("/spec/selector").cloned().unwrap_or_default();
    let is_plain = object["kind"] == "ReplicationController";
    let parsed = match is_plain {
        true => serde_json::from_value(selector).ok().map(|labels| Selector::from_labels(&labels)),
        false => serde_json::from_value::<LabelSelector>(selector)
            .ok()
            .and_then(|selector| Selector::from_api(Some(&selector)).ok()),
    };
    parsed.map(|selector| selector.to_string()).unwrap_or_default()
}

/// `old` with the replicas that `scale` asks for, and with its uid and resourceVersion as preconditions.
fn scaled(call: &Call, old: &Object, scale: &Value) -> Result<Object, Status> {
    if scale.name() != call.name() {
        let (given, wanted) = (scale.name(), call.name());
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({wanted})"
        )));
    }
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let mut errors = Errors::default();
        errors.invalid(&Path::new("spec").child("replicas"), replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", call.name(), errors));
    }
    let mut object = old.clone();
    object["spec"]["replicas"] = replicas.into();
    object.set_metadata("resourceVersion", scale.resource_version().into());
    if !scale.uid().is_empty() {
        object.set_metadata("uid", scale.uid().into());
    }
    Ok(object)
}
