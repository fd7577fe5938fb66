//! Subresources that change a part of their object by rules of its kind.

use api::{
    Errors, Object, Status,
    kinds::{
        certificates::certificate_signing_request::{prepare_for_approval, validate_approval},
        core::{
            namespace::validate_finalizer,
            pod::subresources::{prepare_ephemeral_containers, prepare_resize},
        },
    },
    validation::pod::subresources::{validate_ephemeral_containers_update, validate_resize},
};
use jiff::Timestamp;
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Pod};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Such a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPart {
    /// Of a Pod.
    EphemeralContainers,
    /// Of a Pod: the resources of its containers.
    Resize,
    /// Of a CertificateSigningRequest.
    Approval,
}

impl OwnPart {
    pub fn of_subresource(name: &str) -> Option<Self> {
        match name {
            "ephemeralcontainers" => Some(Self::EphemeralContainers),
            "resize" => Some(Self::Resize),
            "approval" => Some(Self::Approval),
            _ => None,
        }
    }

    /// Of what a client sent, the part that it may change; everything else is `old`'s.
    pub fn prepare(self, object: &Object, old: &Object, now: Timestamp) -> Result<Object, Status> {
        match self {
            Self::EphemeralContainers => changed(object, old, prepare_ephemeral_containers),
            Self::Resize => changed(object, old, prepare_resize),
            Self::Approval => {
                changed(object, old, |new: &mut CertificateSigningRequest, old| prepare_for_approval(new, old, now))
            }
        }
    }

    pub fn validate(self, object: &Object, old: &Object) -> Result<Errors, Status> {
        Ok(match self {
            Self::EphemeralContainers => validate_ephemeral_containers_update(&typed::<Pod>(object)?, &typed(old)?),
            Self::Resize => validate_resize(&typed(object)?, &typed(old)?),
            Self::Approval => {
                let mut errors = Errors::default();
                validate_approval(&typed(object)?, &typed(old)?, &mut errors);
                errors
            }
        })
    }
}

/// What `namespaces/finalize` may store.
pub fn validate_finalizers(namespace: &Object) -> Errors {
    let mut errors = Errors::default();
    let path = api::Path::new("spec").child("finalizers");
    let finalizers = namespace.pointer("/spec/finalizers").and_then(Value::as_array);
    for finalizer in finalizers.into_iter().flatten().filter_map(Value::as_str) {
        validate_finalizer(finalizer, &path, &mut errors);
    }
    errors
}

fn typed<K: DeserializeOwned>(object: &Object) -> Result<K, Status> {
    K::deserialize(object).map_err(|error| Status::bad_request(error.to_string()))
}

fn changed<K: DeserializeOwned + Serialize>(
    object: &Object,
    old: &Object,
    change: impl FnOnce(&mut K, &K),
) -> Result<Object, Status> {
    let (mut new, old) = (typed(object)?, typed(old)?);
    change(&mut new, &old);
    serde_json::to_value(new).map_err(Status::internal)
}
