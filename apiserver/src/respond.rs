//! From what the registry answers to HTTP: the form that the client accepts, in chunks where it is large.

use std::{convert::Infallible, sync::Arc};

use api::{AnyKind, Object, Status};
use axum::{body::Body, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    cache::Entry,
    call::Call,
    kinds,
    negotiate::{Accepted, Encoding, Form, negotiate},
    table,
};

/// Lists are sent in chunks of about this many bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// Bodies from this size on are compressed where the client accepts it (upstream: 128 KiB).
const COMPRESS_BYTES_MIN: usize = 128 << 10;

/// Response extension: worth compressing, and no stream.
#[derive(Clone, Copy, Debug)]
pub struct Compressible;

/// What a verb answers.
pub enum Answer {
    /// One object in stored form, with its resourceVersion.
    Object {
        code: u16,
        bytes: Bytes,
    },
    List(List),
    /// Success without an object.
    Status(Status),
    /// Something of another kind than the resource (Scale).
    Other {
        code: u16,
        object: Value,
    },
    /// Already HTTP: watches.
    Response(Response),
}

/// A page of objects.
pub struct List {
    pub entries: Vec<Arc<Entry>>,
    pub revision: store::Revision,
    pub r#continue: String,
    pub remaining: Option<usize>,
}

impl List {
    /// The list's metadata.
    pub fn metadata(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.r#continue.is_empty() {
            meta["continue"] = self.r#continue.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        meta
    }
}

/// The bytes of an object in the form of `kind`, from the form it is stored in.
pub fn served(kind: &dyn AnyKind, stored: &Bytes) -> Bytes {
    if kinds::is_storage_form(kind) {
        return stored.clone();
    }
    let object = kind.from_stored(parse(stored));
    to_bytes(&object)
}

pub fn parse(bytes: &[u8]) -> Object {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn to_bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Writes an answer as the client wants it.
pub fn respond(call: &Call, answer: Answer, now: Timestamp) -> Result<Response, Status> {
    let accepted = negotiate(&call.parts.headers)?;
    let writer = Writer { call, accepted: &accepted, now };
    Ok(match answer {
        Answer::Response(response) => response,
        Answer::Status(status) => status_response(&status),
        Answer::Object { code, bytes } => writer.object(code, &bytes),
        Answer::Other { code, object } => writer.encoded(code, to_bytes(&object)),
        Answer::List(list) => writer.list(&list),
    })
}

struct Writer<'a> {
    call: &'a Call,
    accepted: &'a Accepted,
    now: Timestamp,
}

impl Writer<'_> {
    fn object(&self, code: u16, stored: &Bytes) -> Response {
        let bytes = served(self.call.kind, stored);
        match &self.accepted.form {
            Form::Object => self.encoded(code, bytes),
            Form::Metadata { version } => self.encoded(code, to_bytes(&table::metadata_only(&parse(&bytes), version))),
            Form::Table { version } => {
                let object = parse(&bytes);
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let include = &self.call.options.include_object;
                let table = table::table(self.call.kind, [object], meta, version, include, self.now);
                self.encoded(code, to_bytes(&table))
            }
        }
    }

    fn list(&self, list: &List) -> Response {
        let kind = self.call.kind;
        let objects = || list.entries.iter().map(|entry| parse(&served(kind, &entry.bytes)));
        match &self.accepted.form {
            Form::Object => self.plain_list(list),
            Form::Metadata { version } => {
                let items: Vec<_> = objects().map(|object| table::metadata_only(&object, version)).collect();
                let api_version = format!("meta.k8s.io/{version}");
                let kind = "PartialObjectMetadataList";
                self.encoded(
                    200,
                    to_bytes(
                        &json!({"kind": kind, "apiVersion": api_version, "metadata": list.metadata(), "items": items}),
                    ),
                )
            }
            Form::Table { version } => {
                let include = &self.call.options.include_object;
                let table = table::table(kind, objects(), list.metadata(), version, include, self.now);
                self.encoded(200, to_bytes(&table))
            }
        }
    }

    /// The objects' bytes one after the other, never decoded.
    fn plain_list(&self, list: &List) -> Response {
        let kind = self.call.kind;
        let descriptor = kind.descriptor();
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
            descriptor.kind,
            descriptor.api_version(),
            list.metadata()
        );
        let size: usize = list.entries.iter().map(|entry| entry.bytes.len() + 1).sum();
        let is_small = size < COMPRESS_BYTES_MIN;
        if is_small || self.accepted.encoding == Encoding::Yaml || self.is_pretty() {
            let mut body = BytesMut::with_capacity(size + head.len() + 16);
            body.put_slice(head.as_bytes());
            for (index, entry) in list.entries.iter().enumerate() {
                body.put_slice(if index == 0 { b"" } else { b"," });
                body.put_slice(&served(kind, &entry.bytes));
            }
            body.put_slice(b"]}\n");
            return self.encoded(200, body.freeze());
        }
        let mut response = Response::new(Body::from_stream(chunks(kind, head, list.entries.clone())));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.extensions_mut().insert(Compressible);
        response
    }

    fn is_pretty(&self) -> bool {
        let agent = self.call.header(header::USER_AGENT);
        let by_hand = ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name));
        self.call.options.pretty.unwrap_or(by_hand)
    }

    fn encoded(&self, code: u16, json: Bytes) -> Response {
        let (body, media_type) = match self.accepted.encoding {
            Encoding::Yaml => (api::yaml::print(&parse(&json)).unwrap_or_default().into(), "application/yaml"),
            Encoding::Json if self.is_pretty() => {
                let mut text = serde_json::to_vec_pretty(&parse(&json)).unwrap_or_default();
                text.push(b'\n');
                (text.into(), "application/json")
            }
            Encoding::Json => (json, "application/json"),
        };
        bytes_response(code, body, media_type)
    }
}

fn chunks(
    kind: &'static dyn AnyKind,
    head: String,
    entries: Vec<Arc<Entry>>,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let mut entries = entries.into_iter().enumerate();
    let mut chunk = BytesMut::from(head.as_bytes());
    let mut finished = false;
    futures::stream::iter(std::iter::from_fn(move || {
        while !finished && chunk.len() < CHUNK_BYTES {
            match entries.next() {
                Some((index, entry)) => {
                    chunk.put_slice(if index == 0 { b"" } else { b"," });
                    chunk.put_slice(&served(kind, &entry.bytes));
                }
                None => {
                    chunk.put_slice(b"]}\n");
                    finished = true;
                }
            }
        }
        let full = std::mem::take(&mut chunk).freeze();
        (!full.is_empty()).then_some(Ok(full))
    }))
}

/// A body with its media type; compressed later where it is large.
pub fn bytes_response(code: u16, body: Bytes, media_type: &'static str) -> Response {
    let compressible = body.len() >= COMPRESS_BYTES_MIN;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if compressible {
        response.extensions_mut().insert(Compressible);
    }
    response
}

/// A JSON value with status 200.
pub fn json_response(value: &Value) -> Response {
    bytes_response(200, to_bytes(value), "application/json")
}

/// A `Status`, with the headers that belong to it.
pub fn status_response(status: &Status) -> Response {
    let body = serde_json::to_vec(status).unwrap_or_default();
    let mut response = bytes_response(status.code, body.into(), "application/json");
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
