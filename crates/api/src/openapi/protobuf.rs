//! The version 2 document in the protobuf form that client-go asks for (gnostic's `openapi_v2.Document`).
//!
//! Only what our own documents hold is written. Field numbers are those of gnostic's `OpenAPIv2.proto`.

use serde_json::Value;

/// A protobuf message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(self, field: u64, message: Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// A text field; absent ones are not written.
    fn text(self, field: u64, value: &Value) -> Self {
        match value.as_str() {
            Some(text) => self.bytes(field, text.as_bytes()),
            None => self,
        }
    }

    fn texts(self, field: u64, values: &Value) -> Self {
        values.as_array().into_iter().flatten().fold(self, |message, value| message.text(field, value))
    }

    fn flag(mut self, field: u64, value: &Value) -> Self {
        if value.as_bool() == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
        self
    }

    /// An optional part.
    fn part(self, field: u64, value: &Value, write: fn(&Value) -> Self) -> Self {
        if value.is_null() { self } else { self.message(field, write(value)) }
    }

    /// A map, as a list of pairs of name and value.
    fn pairs(self, field: u64, map: &Value, write: impl Fn(&Value) -> Self) -> Self {
        map.as_object().into_iter().flatten().fold(self, |message, (name, value)| {
            let pair = Self::default().bytes(1, name.as_bytes()).message(2, write(value));
            message.message(field, pair)
        })
    }

    /// The `x-…` members of an object.
    fn extensions(self, field: u64, object: &Value) -> Self {
        let extensions = object.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
        extensions.fold(self, |message, (name, value)| {
            message.message(field, Self::default().bytes(1, name.as_bytes()).message(2, any(value)))
        })
    }
}

/// Any value: its text, for JSON is YAML.
fn any(value: &Value) -> Message {
    Message::default().bytes(2, value.to_string().as_bytes())
}

/// Encodes a document of [`super::v2`].
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    let info = |info: &Value| Message::default().text(1, &info["title"]).text(2, &info["version"]);
    let paths = |paths: &Value| Message::default().pairs(2, paths, path_item);
    let definitions = |definitions: &Value| Message::default().pairs(1, definitions, schema);
    let message = Message::default()
        .text(1, &document["swagger"])
        .part(2, &document["info"], info)
        .part(8, &document["paths"], paths)
        .part(9, &document["definitions"], definitions);
    message.0
}

fn path_item(item: &Value) -> Message {
    let methods = [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")];
    let message = methods
        .iter()
        .fold(Message::default(), |message, (field, method)| message.part(*field, &item[*method], operation));
    parameters(message, 9, &item["parameters"])
}

fn operation(operation: &Value) -> Message {
    let message = Message::default()
        .texts(1, &operation["tags"])
        .text(3, &operation["description"])
        .text(5, &operation["operationId"])
        .texts(6, &operation["produces"])
        .texts(7, &operation["consumes"]);
    let responses = |responses: &Value| Message::default().pairs(1, responses, response);
    parameters(message, 8, &operation["parameters"])
        .part(9, &operation["responses"], responses)
        .texts(10, &operation["schemes"])
        .extensions(13, operation)
}

fn response(response: &Value) -> Message {
    let item = |value: &Value| Message::default().message(1, schema(value));
    let message = Message::default().text(1, &response["description"]).part(2, &response["schema"], item);
    Message::default().message(1, message)
}

fn parameters(message: Message, field: u64, parameters: &Value) -> Message {
    parameters.as_array().into_iter().flatten().fold(message, |message, value| {
        let item = Message::default().message(1, parameter(value));
        message.message(field, item)
    })
}

/// A parameter of the body, the query or the path: three messages with three numberings.
fn parameter(parameter: &Value) -> Message {
    let place = parameter["in"].as_str().unwrap_or_default();
    if place == "body" {
        let body = Message::default()
            .text(2, &parameter["name"])
            .text(3, &parameter["in"])
            .flag(4, &parameter["required"])
            .part(5, &parameter["schema"], schema);
        return Message::default().message(1, body);
    }
    let plain = Message::default()
        .flag(1, &parameter["required"])
        .text(2, &parameter["in"])
        .text(3, &parameter["description"])
        .text(4, &parameter["name"]);
    let plain = match place {
        "query" => Message::default().message(3, plain.text(6, &parameter["type"])),
        _ => Message::default().message(4, plain.text(5, &parameter["type"])),
    };
    Message::default().message(2, plain)
}

fn schema(value: &Value) -> Message {
    let additional = |value: &Value| match value {
        Value::Bool(_) => Message::default().flag(2, value),
        value => Message::default().message(1, schema(value)),
    };
    let types = |value: &Value| Message::default().text(1, value);
    let items = |value: &Value| Message::default().message(1, schema(value));
    let properties = |value: &Value| Message::default().pairs(1, value, schema);
    Message::default()
        .text(1, &value["$ref"])
        .text(2, &value["format"])
        .text(4, &value["description"])
        .texts(19, &value["required"])
        .part(21, &value["additionalProperties"], additional)
        .part(22, &value["type"], types)
        .part(23, &value["items"], items)
        .part(25, &value["properties"], properties)
        .extensions(31, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_nest_and_lengths_are_varints() {
        let document = json!({"swagger": "2.0", "definitions": {"A": {"type": "object", "x-a": [1]}}});
        let expected: &[u8] = b"\x0a\x032.0\x4a\x1b\x0a\x19\x0a\x01A\x12\x14\xb2\x01\x08\x0a\x06object\xfa\x01\x06";
        let encoded = v2_protobuf(&json!({"swagger": "2.0"}));
        assert_eq!(encoded, b"\x0a\x032.0");
        let encoded = v2_protobuf(&document);
        assert_eq!(encoded.len(), 5 + 2 + usize::from(encoded[6]));
        assert_eq!(encoded[..5], expected[..5]);
        assert!(encoded.ends_with(b"\x0a\x03x-a\x12\x05\x12\x03[1]"));
        let long = Message::default().bytes(1, &[0; 300]);
        assert_eq!(long.0[..3], [0x0a, 0xac, 0x02]);
    }
}
