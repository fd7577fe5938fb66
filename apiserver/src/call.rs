//! One request for a resource, as the registry and the subresources see it.

use api::{AnyKind, Descriptor, Status, status::GroupResource};
use axum::body::Body;
use bytes::Bytes;
use http::{header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{
    options::Options,
    request::{RequestInfo, User},
    warnings::Warnings,
};

/// The largest body of a request, in bytes (upstream: 3 MiB).
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// A request for an object or a collection of one kind.
pub struct Call {
    /// The kind of the resource (of the parent, for subresources).
    pub kind: &'static dyn AnyKind,
    pub info: RequestInfo,
    pub user: User,
    pub options: Options,
    /// Method, URI, headers and extensions, among them the upgrade of a connection.
    pub parts: Parts,
    pub body: Bytes,
    pub warnings: Warnings,
}

impl Call {
    pub fn descriptor(&self) -> &'static Descriptor {
        self.kind.descriptor()
    }

    /// Group and resource for error sentences.
    pub fn resource(&self) -> GroupResource<'static> {
        self.descriptor().group_resource()
    }

    /// The namespace the object lives in; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        if self.descriptor().is_namespaced() { &self.info.namespace } else { "" }
    }

    pub fn name(&self) -> &str {
        &self.info.name
    }

    pub fn header(&self, name: header::HeaderName) -> &str {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The media type of the body, without parameters.
    pub fn content_type(&self) -> &str {
        self.header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
    }

    /// Who owns the fields that this request sets: the parameter, or the program's name.
    pub fn manager(&self) -> String {
        if !self.options.field_manager.is_empty() {
            return self.options.field_manager.clone();
        }
        let program = self.header(header::USER_AGENT).split('/').next().unwrap_or_default();
        let printable: String = program.chars().filter(|character| !character.is_control()).take(128).collect();
        if printable.is_empty() { "unknown".into() } else { printable }
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(self.resource(), self.name())
    }
}

/// Reads a body whole.
pub async fn read_body(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_BYTES_MAX)),
        Err(error) => Err(Status::bad_request(format!("the body could not be read: {error}"))),
    }
}
