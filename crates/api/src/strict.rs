//! Reading a body while noticing what a careful author would not have written: fields that do not exist,
//! and fields that are there twice (`fieldValidation=Strict|Warn|Ignore`).
//!
//! Names are compared with their case, as upstream does since 1.25: `Replicas` is an unknown field.

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{
    schema::{Schema, Type},
    status::Status,
    yaml::{self, YamlError},
};

/// How many problems are named; the rest is not looked for.
const PROBLEMS_MAX: usize = 100;

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them with a `Warning:` header each.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// From the query parameter; empty is `Warn`, anything unknown `None`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// A body that could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Of duplicate fields, the last. Unknown fields are still there.
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`, in the order of the body.
    pub problems: Vec<String>,
}

impl Decoded {
    /// The warnings that are due, or the failure: `<kind> in version "<v>" cannot be handled as a <kind>: strict
    /// decoding error: …`.
    pub fn settle(
        self,
        validation: FieldValidation,
        kind: &str,
        version: &str,
    ) -> Result<(Value, Vec<String>), Status> {
        match validation {
            FieldValidation::Strict if !self.problems.is_empty() => {
                let what = sentence(&self.problems);
                let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {what}");
                Err(Status::bad_request(message))
            }
            FieldValidation::Warn => Ok((self.value, self.problems)),
            _ => Ok((self.value, Vec::new())),
        }
    }
}

/// All problems in one sentence, as upstream puts it into errors.
pub fn sentence(problems: &[String]) -> String {
    format!("strict decoding error: {}", problems.join(", "))
}

/// Reads JSON. Without a schema, only duplicates are looked for.
pub fn decode_json(body: &[u8], schema: Option<Schema<'_>>) -> Result<Decoded, serde_json::Error> {
    let mut notes = Notes::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Reader { notes: &mut notes, schema, path: String::new(), yaml: false, quiet: false };
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Decoded { value, problems: notes.problems })
}

/// Reads the one document of a YAML body (JSON is YAML, too).
pub fn decode_yaml(body: &[u8], schema: Option<Schema<'_>>) -> Result<Decoded, YamlError> {
    let mut notes = Notes::default();
    let value = yaml::with_deserializer(body, |deserializer| {
        Reader { notes: &mut notes, schema, path: String::new(), yaml: true, quiet: false }.deserialize(deserializer)
    })?;
    let mut problems = notes.problems;
    if !notes.repeated_lines.is_empty() {
        problems.insert(0, format!("yaml: unmarshal errors:\n{}", notes.repeated_lines.join("\n")));
    }
    Ok(Decoded { value, problems })
}

/// The unknown fields of an object that is already read (the result of a patch), sorted by name.
pub fn unknown_fields(value: &Value, schema: Schema<'_>) -> Vec<String> {
    let mut notes = Notes::default();
    look_for_unknown(value, schema, "", &mut notes);
    notes.problems
}

fn look_for_unknown(value: &Value, schema: Schema<'_>, path: &str, notes: &mut Notes) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = join(path, name);
                match schema.field(name) {
                    Some(schema) => look_for_unknown(value, schema, &path, notes),
                    None if schema.r#type() == Type::Object => notes.add("unknown", &path),
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                look_for_unknown(item, schema.items(), &format!("{path}[{index}]"), notes);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[derive(Default)]
struct Notes {
    problems: Vec<String>,
    /// YAML tells of duplicates by line.
    repeated_lines: Vec<String>,
}

impl Notes {
    fn add(&mut self, what: &str, path: &str) {
        let problem = format!("{what} field {path:?}");
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// Reads one value, knowing where it is.
struct Reader<'n, 's> {
    notes: &'n mut Notes,
    schema: Option<Schema<'s>>,
    path: String,
    yaml: bool,
    /// Inside of what is unknown nothing more is to be said.
    quiet: bool,
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Number::from_i128(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Number::from_u128(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        match yaml::integral(value) {
            Some(integer) if self.yaml => Ok(integer.into()),
            _ => Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range")),
        }
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            let schema = self.schema.map(Schema::items);
            let item = Reader { notes: &mut *self.notes, schema, path, yaml: self.yaml, quiet: self.quiet };
            match seq.next_element_seed(item)? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        let mut seen = HashSet::new();
        while let Some((name, line)) = next_name(&mut map, self.yaml)? {
            let path = join(&self.path, &name);
            let schema = self.schema.and_then(|schema| schema.field(&name));
            let unknown = schema.is_none() && self.schema.is_some_and(|schema| schema.r#type() == Type::Object);
            let quiet = self.quiet || unknown;
            if unknown {
                self.notes.add("unknown", &path);
            }
            if !seen.insert(name.clone()) {
                match line {
                    Some(line) => {
                        let sentence = format!("  line {line}: key {name:?} already set in map");
                        self.notes.repeated_lines.push(sentence);
                    }
                    None if !quiet => self.notes.add("duplicate", &path),
                    None => {}
                }
            }
            let value = Reader { notes: &mut *self.notes, schema, path, yaml: self.yaml, quiet };
            fields.insert(name, map.next_value_seed(value)?);
        }
        Ok(Value::Object(fields))
    }
}

/// The next field's name, with its line where the format has lines.
fn next_name<'de, A: MapAccess<'de>>(map: &mut A, yaml: bool) -> Result<Option<(String, Option<u64>)>, A::Error> {
    if yaml {
        let name = map.next_key::<serde_saphyr::Spanned<String>>()?;
        return Ok(name.map(|name| (name.value, Some(name.defined.line()))));
    }
    Ok(map.next_key::<String>()?.map(|name| (name, None)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    fn problems(body: &str) -> Vec<String> {
        let schema = schema::builtin().get("io.k8s.api.core.v1.ConfigMap");
        decode_json(body.as_bytes(), schema).unwrap().problems
    }

    #[test]
    fn unknown_and_duplicate_fields_are_named_with_their_paths() {
        assert_eq!(
            problems(
                r#"{"metadata":{"name":"a","labels":{"x":"1","x":"2"},"Name":"b"},"data":{},"data":{"k":"v"},
                    "foo":{"bar":1,"bar":2}}"#
            ),
            [
                r#"duplicate field "metadata.labels.x""#,
                r#"unknown field "metadata.Name""#,
                r#"duplicate field "data""#,
                r#"unknown field "foo""#,
            ]
        );
        assert_eq!(
            problems(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"ownerReferences":[{"x":1}]}}"#),
            [r#"unknown field "metadata.ownerReferences[0].x""#]
        );
    }

    #[test]
    fn the_last_of_duplicates_wins() {
        let decoded = decode_json(br#"{"a":1,"a":2}"#, None).unwrap();
        assert_eq!(decoded.value, serde_json::json!({"a": 2}));
        assert_eq!(decoded.problems, [r#"duplicate field "a""#]);
    }

    #[test]
    fn yaml_tells_duplicates_by_line() {
        let schema = schema::builtin().get("io.k8s.api.core.v1.ConfigMap");
        let decoded = decode_yaml(b"data:\n  a: x\n  a: z\nfoo: 1\n", schema).unwrap();
        assert_eq!(decoded.value["data"]["a"], "z");
        assert_eq!(
            decoded.problems,
            ["yaml: unmarshal errors:\n  line 3: key \"a\" already set in map", r#"unknown field "foo""#]
        );
        let failure = decoded.settle(FieldValidation::Strict, "ConfigMap", "v1").unwrap_err();
        assert!(
            failure
                .message
                .starts_with("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding")
        );
    }

    #[test]
    fn a_patched_object_is_checked_without_its_text() {
        let schema = schema::builtin().get("io.k8s.api.core.v1.ConfigMap").unwrap();
        let object = serde_json::json!({"data": {"any": "1"}, "spec": {}, "metadata": {"x": 1}});
        assert_eq!(unknown_fields(&object, schema), [r#"unknown field "metadata.x""#, r#"unknown field "spec""#]);
    }
}
