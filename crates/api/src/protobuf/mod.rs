//! Reading `application/vnd.kubernetes.protobuf`, which typed Go clients (`kubectl create namespace`, client-go
//! controllers) send. Answers are always JSON, which they accept.
//!
//! One generic reader over a table of field numbers; the result is the JSON that the same client would send.

use std::{collections::HashMap, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages in messages.
const DEPTH_MAX: usize = 64;

/// A body that is no protobuf of a known kind.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("error decoding protobuf: {0}")]
pub struct ProtobufError(String);

fn error<T>(why: impl Into<String>) -> Result<T, ProtobufError> {
    Err(ProtobufError(why.into()))
}

#[derive(Clone, Copy, Debug)]
struct Field {
    number: u64,
    name: &'static str,
    /// `*` list, `%` map, `?` pointer, `<` inline, or a blank.
    shape: u8,
    r#type: &'static str,
}

static MESSAGES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let lines = include_str!("messages.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, fields)| (name, fields.split(' ').filter_map(field).collect()))
        .collect()
});

fn field(text: &'static str) -> Option<Field> {
    let mut parts = text.splitn(3, ':');
    let (number, name, r#type) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let shape = *r#type.as_bytes().first()?;
    let is_shape = matches!(shape, b'*' | b'%' | b'?' | b'<');
    let (shape, r#type) = if is_shape { (shape, &r#type[1..]) } else { (b' ', r#type) };
    Some(Field { number, name, shape, r#type })
}

/// The object in a body.
///
/// # Errors
/// The body is cut off, is not in this format, or is of a kind that the table does not have.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let Some(envelope) = body.strip_prefix(MAGIC) else { return error("the body does not begin with k8s\\0") };
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for part in Reader(envelope) {
        match part? {
            (1, Wire::Bytes(type_meta)) => {
                for part in Reader(type_meta) {
                    match part? {
                        (1, Wire::Bytes(text)) => api_version = string(text),
                        (2, Wire::Bytes(text)) => kind = string(text),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let mut object = message(raw, name_of(&api_version, &kind)?, 0)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

fn name_of(api_version: &str, kind: &str) -> Result<&'static str, ProtobufError> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or_default();
    let candidates = [format!("{group}.{version}.{kind}"), format!("meta.v1.{kind}")];
    let known = candidates.iter().find_map(|name| MESSAGES.get_key_value(name.as_str()));
    known.map_or_else(|| error(format!("no kind {kind:?} is known in {api_version:?}")), |(name, _)| Ok(*name))
}

fn message(bytes: &[u8], name: &str, depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    let Some(fields) = MESSAGES.get(name) else { return error(format!("no message {name} is known")) };
    if depth > DEPTH_MAX {
        return error("the object is nested too deeply");
    }
    let mut object = Map::new();
    for part in Reader(bytes) {
        let (number, wire) = part?;
        if let Some(field) = fields.iter().find(|field| field.number == number) {
            put(&mut object, field, wire, depth)?;
        }
    }
    Ok(object)
}

/// Adds what was read to the object, as Go's JSON would have it.
fn put(object: &mut Map<String, Value>, field: &Field, wire: Wire<'_>, depth: usize) -> Result<(), ProtobufError> {
    let name = field.name.to_owned();
    match field.shape {
        b'*' => {
            let list = object.entry(name).or_insert_with(|| json!([]));
            let items = packed(field.r#type, wire, depth)?;
            list.as_array_mut().into_iter().for_each(|list| list.extend(items.iter().cloned()));
        }
        b'%' => {
            let (key, value) = entry(wire, field.r#type, depth)?;
            let map = object.entry(name).or_insert_with(|| json!({}));
            map.as_object_mut().into_iter().for_each(|map| {
                map.insert(key.clone(), value.clone());
            });
        }
        b'<' => {
            if let Value::Object(fields) = value(field.r#type, wire, depth)? {
                object.extend(fields);
            }
        }
        shape => {
            let value = value(field.r#type, wire, depth)?;
            if !value.is_null() && (shape == b'?' || !is_zero(&value)) {
                object.insert(name, value);
            }
        }
    }
    Ok(())
}

/// What Go's `omitempty` leaves out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// One item, or several numbers in one.
fn packed(r#type: &str, wire: Wire<'_>, depth: usize) -> Result<Vec<Value>, ProtobufError> {
    let Wire::Bytes(mut bytes) = wire else { return Ok(vec![value(r#type, wire, depth)?]) };
    if !matches!(r#type, "i" | "t") {
        return Ok(vec![value(r#type, wire, depth)?]);
    }
    let mut items = Vec::new();
    while !bytes.is_empty() {
        items.push(value(r#type, Wire::Varint(varint(&mut bytes)?), depth)?);
    }
    Ok(items)
}

fn entry(wire: Wire<'_>, r#type: &str, depth: usize) -> Result<(String, Value), ProtobufError> {
    let Wire::Bytes(bytes) = wire else { return error("a map entry is no message") };
    let mut entry = (String::new(), if matches!(r#type, "s" | "b") { json!("") } else { json!({}) });
    for part in Reader(bytes) {
        match part? {
            (1, Wire::Bytes(key)) => entry.0 = string(key),
            (2, wire) => entry.1 = value(r#type, wire, depth)?,
            _ => {}
        }
    }
    Ok(entry)
}

fn value(r#type: &str, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match (r#type, wire) {
        ("s", Wire::Bytes(bytes)) => string(bytes).into(),
        ("b", Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        ("i", Wire::Varint(number)) => (number as i64).into(),
        ("t", Wire::Varint(number)) => (number != 0).into(),
        ("d", Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        ("d", Wire::Fixed32(bits)) => f64::from(f32::from_bits(bits)).into(),
        ("Q", Wire::Bytes(bytes)) => texts(bytes)?.pop().unwrap_or(json!("0")),
        ("X", Wire::Bytes(bytes)) => texts(bytes)?.into(),
        ("I", Wire::Bytes(bytes)) => int_or_string(bytes)?,
        ("T" | "U", Wire::Bytes(bytes)) => time(bytes, r#type == "U")?,
        ("D", Wire::Bytes(bytes)) => {
            let nanos = numbers(bytes)?.iter().find(|(field, _)| *field == 1).map_or(0, |(_, nanos)| *nanos);
            format!("{}s", nanos as f64 / 1e9).into()
        }
        ("R", Wire::Bytes(bytes)) => match Reader(bytes).next() {
            Some(Ok((1, Wire::Bytes(raw)))) => {
                serde_json::from_slice(raw).map_err(|why| ProtobufError(why.to_string()))?
            }
            _ => Value::Null,
        },
        (other, Wire::Bytes(bytes)) if other.starts_with('m') => message(bytes, &other[1..], depth + 1)?.into(),
        _ => return error("a field has another type than it should"),
    })
}

/// Field 1 of a message, as often as it is there.
fn texts(bytes: &[u8]) -> Result<Vec<Value>, ProtobufError> {
    let mut texts = Vec::new();
    for part in Reader(bytes) {
        if let (1, Wire::Bytes(text)) = part? {
            texts.push(string(text).into());
        }
    }
    Ok(texts)
}

/// The integer fields of a message, by number.
fn numbers(bytes: &[u8]) -> Result<Vec<(u64, i64)>, ProtobufError> {
    let mut numbers = Vec::new();
    for part in Reader(bytes) {
        if let (field, Wire::Varint(number)) = part? {
            numbers.push((field, number as i64));
        }
    }
    Ok(numbers)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let numbers = numbers(bytes)?;
    let number = |wanted| numbers.iter().find(|(field, _)| *field == wanted).map_or(0, |(_, number)| *number);
    if number(1) == 0 {
        return Ok(number(2).into());
    }
    for part in Reader(bytes) {
        if let (3, Wire::Bytes(text)) = part? {
            return Ok(string(text).into());
        }
    }
    Ok("".into())
}

/// Seconds and nanoseconds; nothing at all is no time.
fn time(bytes: &[u8], is_micro: bool) -> Result<Value, ProtobufError> {
    let numbers = numbers(bytes)?;
    let number = |wanted| numbers.iter().find(|(field, _)| *field == wanted).map_or(0, |(_, number)| *number);
    let (seconds, nanos) = (number(1), if is_micro { number(2) } else { 0 });
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).unwrap_or(0);
    let Ok(time) = Timestamp::new(seconds, nanos) else { return error("a time is out of range") };
    let format = if is_micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(time.strftime(format).to_string().into())
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field's value as it lies on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order.
struct Reader<'a>(&'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u64, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}

impl<'a> Reader<'a> {
    fn part(&mut self) -> Result<(u64, Wire<'a>), ProtobufError> {
        let tag = varint(&mut self.0)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).unwrap_or(usize::MAX);
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return error(format!("wire type {other} is unknown")),
        };
        Ok((tag >> 3, wire))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let Some((head, tail)) = self.0.split_at_checked(length) else { return error("the body is cut off") };
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| ProtobufError("the body is cut off".into()))
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, tail)) = bytes.split_first() else { return error("the body is cut off") };
        *bytes = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    error("a number is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_as_kubectl_sends_it() {
        let meta = [field(1, b"a"), field(3, b""), field(8, b"")].concat();
        let data = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &meta), field(2, &data)].concat();
        let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        assert_eq!(decode(&body("v1", "ConfigMap", &raw)).unwrap(), expected);
    }

    #[test]
    fn pointers_keep_their_zeros_and_inline_messages_dissolve() {
        let empty_dir = field(2, &field(2, b""));
        let volume = [field(1, b"v"), empty_dir].concat();
        let spec = [field(1, &volume), vec![4 << 3, 0], vec![11 << 3, 0]].concat();
        let decoded = decode(&body("v1", "Pod", &field(2, &spec))).unwrap();
        assert_eq!(
            decoded["spec"],
            json!({"volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0})
        );
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in [&b"{}"[..], b"k8s\0\x0a", b"k8s\0\x0a\xff\xff\xff\xff\x0f", b"k8s\0\xff\xff"] {
            assert!(decode(garbage).is_err());
        }
        assert!(decode(&body("v1", "Nonsense", b"")).is_err());
        let options = decode(&body("apps/v1", "DeleteOptions", &[1 << 3, 5])).unwrap();
        assert_eq!(options["gracePeriodSeconds"], 5);
    }
}
