//! Field paths and validation errors, in upstream's words (`util/validation/field`).
//!
//! Validation collects; it never stops at the first error.

use std::fmt::{self, Display};

use serde::Serialize;
use serde_json::Value;

use crate::status::Cause;

/// Where in an object: `spec.containers[0].env[3].name`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Path(String);

impl Path {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    Required,
    Invalid(Value),
    TypeInvalid(Value),
    NotSupported { value: Value, supported: Vec<String> },
    Duplicate(Value),
    Forbidden,
    NotFound(Value),
    TooLong { bytes_max: usize },
    TooMany { count: usize, count_max: usize },
    Internal,
}

/// One error of validation.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub path: Path,
    pub problem: Problem,
    /// Free text behind the problem; may be empty.
    pub detail: String,
}

/// A value as upstream's messages print it: strings quoted, structures as JSON.
fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl FieldError {
    /// The sentence without the path.
    pub fn body(&self) -> String {
        let head = match &self.problem {
            Problem::Required => "Required value".to_owned(),
            Problem::Invalid(value) | Problem::TypeInvalid(value) => format!("Invalid value: {}", printed(value)),
            Problem::NotSupported { value, supported } => {
                let supported: Vec<_> = supported.iter().map(|name| format!("{name:?}")).collect();
                return match supported.is_empty() {
                    true => format!("Unsupported value: {}", printed(value)),
                    false => {
                        format!("Unsupported value: {}: supported values: {}", printed(value), supported.join(", "))
                    }
                };
            }
            Problem::Duplicate(value) => format!("Duplicate value: {}", printed(value)),
            Problem::Forbidden => "Forbidden".to_owned(),
            Problem::NotFound(value) => format!("Not found: {}", printed(value)),
            Problem::TooLong { bytes_max } => return format!("Too long: may not be more than {bytes_max} bytes"),
            Problem::TooMany { count, count_max } => {
                return format!(
                    "Too many: {count}: must have at most {count_max} item{}",
                    if *count_max == 1 { "" } else { "s" }
                );
            }
            Problem::Internal => "Internal error".to_owned(),
        };
        if self.detail.is_empty() { head } else { format!("{head}: {}", self.detail) }
    }

    /// As an entry of `status.details.causes`.
    pub fn cause(&self) -> Cause {
        let reason = match self.problem {
            Problem::Required => "FieldValueRequired",
            Problem::Invalid(_) => "FieldValueInvalid",
            Problem::TypeInvalid(_) => "FieldValueTypeInvalid",
            Problem::NotSupported { .. } => "FieldValueNotSupported",
            Problem::Duplicate(_) => "FieldValueDuplicate",
            Problem::Forbidden => "FieldValueForbidden",
            Problem::NotFound(_) => "FieldValueNotFound",
            Problem::TooLong { .. } => "FieldValueTooLong",
            Problem::TooMany { .. } => "FieldValueTooMany",
            Problem::Internal => "InternalError",
        };
        Cause { reason: reason.into(), message: self.body(), field: self.path.to_string() }
    }
}

impl Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// The errors found so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        self.0.iter()
    }

    pub fn extend(&mut self, other: Errors) {
        self.0.extend(other.0);
    }

    pub fn push(&mut self, path: &Path, problem: Problem, detail: impl Into<String>) {
        self.0.push(FieldError { path: path.clone(), problem, detail: detail.into() });
    }

    pub fn required(&mut self, path: &Path, detail: &str) {
        self.push(path, Problem::Required, detail);
    }

    pub fn invalid(&mut self, path: &Path, value: impl Serialize, detail: impl Into<String>) {
        self.push(path, Problem::Invalid(to_value(value)), detail);
    }

    pub fn not_supported(&mut self, path: &Path, value: impl Serialize, supported: &[&str]) {
        let supported = supported.iter().map(|name| (*name).to_owned()).collect();
        self.push(path, Problem::NotSupported { value: to_value(value), supported }, "");
    }

    pub fn duplicate(&mut self, path: &Path, value: impl Serialize) {
        self.push(path, Problem::Duplicate(to_value(value)), "");
    }

    pub fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.push(path, Problem::Forbidden, detail);
    }

    pub fn not_found(&mut self, path: &Path, value: impl Serialize) {
        self.push(path, Problem::NotFound(to_value(value)), "");
    }

    pub fn too_long(&mut self, path: &Path, bytes_max: usize) {
        self.push(path, Problem::TooLong { bytes_max }, "");
    }

    pub fn too_many(&mut self, path: &Path, count: usize, count_max: usize) {
        self.push(path, Problem::TooMany { count, count_max }, "");
    }

    /// A field that may not change has changed.
    pub fn immutable<T: Serialize + PartialEq>(&mut self, path: &Path, new: &T, old: &T) {
        if new != old {
            self.invalid(path, new, "field is immutable");
        }
    }

    /// All errors in one sentence, as upstream aggregates them: repeats once, brackets around many.
    pub fn summary(&self) -> String {
        let mut sentences: Vec<String> = Vec::new();
        for sentence in self.0.iter().map(ToString::to_string) {
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
        match sentences.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        }
    }
}

fn to_value(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_upstreams() {
        let mut errors = Errors::default();
        let path = Path::new("spec").child("containers").index(0);
        errors.required(&path.child("name"), "");
        errors.not_supported(&path.child("imagePullPolicy"), "Sometimes", &["Always", "Never"]);
        assert_eq!(
            errors.summary(),
            "[spec.containers[0].name: Required value, spec.containers[0].imagePullPolicy: \
             Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\"]"
        );
    }
}
