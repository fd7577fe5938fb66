//! From bytes to an object of the request's kind.

use api::{
    Errors, Object, Path, Status, protobuf,
    schema::{self, Schema, canonicalize_quantities},
    strict::{self, Decoded, FieldValidation},
};
use serde_json::Value;

use crate::call::Call;

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The object in the body. Unknown and duplicate fields are an error, a warning or ignored, as the
/// client chose.
pub(super) fn object(call: &Call) -> Result<Object, Status> {
    let Decoded { value, problems } = decoded(call, Some(schema_of(call)))?;
    let value = of_kind(call, value)?;
    let descriptor = call.descriptor();
    let decoded = Decoded { value, problems };
    let (value, warnings) = decoded.settle(call.options.field_validation, &descriptor.kind, &descriptor.version)?;
    warnings.into_iter().for_each(|warning| call.warnings.push(warning));
    canonical(call, value)
}

/// The body as JSON, whatever it is and whatever it was written in.
pub(crate) fn value(call: &Call) -> Result<Value, Status> {
    decoded(call, None).map(|decoded| decoded.value)
}

/// The body of a patch, always JSON or (for apply) YAML. Duplicate fields are noticed here, unknown ones later.
pub(super) fn patch(call: &Call, is_yaml: bool) -> Result<Value, Status> {
    let undecodable = |error: &dyn std::fmt::Display| Status::bad_request(format!("error decoding patch: {error}"));
    let decoded = match is_yaml {
        true => strict::decode_yaml(&call.body, None).map_err(|error| undecodable(&error))?,
        false => strict::decode_json(&call.body, None).map_err(|error| undecodable(&error))?,
    };
    let descriptor = call.descriptor();
    let (value, warnings) = decoded.settle(call.options.field_validation, &descriptor.kind, &descriptor.version)?;
    warnings.into_iter().for_each(|warning| call.warnings.push(warning));
    Ok(value)
}

/// What a patch made of an object.
pub(super) fn patched(call: &Call, value: Value) -> Result<Object, Status> {
    let value = of_kind(call, value)?;
    if call.options.field_validation != FieldValidation::Ignore {
        let problems = strict::unknown_fields(&value, schema_of(call));
        if call.options.field_validation == FieldValidation::Strict && !problems.is_empty() {
            let mut errors = Errors::default();
            errors.invalid(&Path::new("patch"), value.to_string(), strict::sentence(&problems));
            return Err(Status::invalid("", "", "", errors));
        }
        problems.into_iter().for_each(|problem| call.warnings.push(problem));
    }
    canonical(call, value)
}

/// The shape of the call's kind.
pub(super) fn schema_of(call: &Call) -> Schema<'static> {
    schema::builtin().get(&call.descriptor().schema_name).unwrap_or_else(schema::any)
}

fn decoded(call: &Call, schema: Option<Schema<'_>>) -> Result<Decoded, Status> {
    decoded_as(call.content_type(), &call.body, schema, &|why| unreadable(call, why))
}

/// A body of any kind as JSON.
pub(crate) fn any(content_type: &str, body: &[u8]) -> Result<Value, Status> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    decoded_as(media_type, body, None, &|why| Status::bad_request(why.to_string())).map(|decoded| decoded.value)
}

fn decoded_as(
    media_type: &str,
    body: &[u8],
    schema: Option<Schema<'_>>,
    unreadable: &dyn Fn(&dyn std::fmt::Display) -> Status,
) -> Result<Decoded, Status> {
    match media_type {
        "" | "application/json" => strict::decode_json(body, schema).map_err(|error| unreadable(&error)),
        "application/yaml" => strict::decode_yaml(body, schema).map_err(|error| unreadable(&error)),
        "application/vnd.kubernetes.protobuf" => {
            let value = protobuf::decode(body).map_err(|error| unreadable(&error))?;
            Ok(Decoded { value, problems: Vec::new() })
        }
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

fn unreadable(call: &Call, why: &dyn std::fmt::Display) -> Status {
    let kind = &call.descriptor().kind;
    let start: String = String::from_utf8_lossy(&call.body).chars().take(30).collect();
    Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({start:?} ...)"))
}

/// Checks kind and apiVersion, and fills them in where they are missing.
fn of_kind(call: &Call, mut object: Object) -> Result<Object, Status> {
    let descriptor = call.descriptor();
    let Some(fields) = object.as_object_mut() else { return Err(unreadable(call, &"it is no JSON object")) };
    let api_version = descriptor.api_version();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (given_kind, given_version) = (text(fields.get("kind")), text(fields.get("apiVersion")));
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != descriptor.kind {
        let (version, kind) = (&descriptor.version, &descriptor.kind);
        return Err(Status::bad_request(format!("{given_kind} in version {version:?} cannot be handled as a {kind}")));
    }
    fields.insert("kind".into(), descriptor.kind.as_str().into());
    fields.insert("apiVersion".into(), api_version.into());
    Ok(object)
}

/// Quantities are stored in one spelling.
fn canonical(call: &Call, mut object: Object) -> Result<Object, Status> {
    let errors = canonicalize_quantities(&mut object, schema_of(call));
    if errors.is_empty() {
        return Ok(object);
    }
    let (kind, version) = (&call.descriptor().kind, &call.descriptor().version);
    Err(Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {}",
        errors.summary()
    )))
}
