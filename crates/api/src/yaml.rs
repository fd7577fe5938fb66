//! YAML in kubectl's dialect: 1.1 booleans, leading-zero octals, merge keys, integral floats as integers.

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options, options};

/// A text that is no YAML.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct YamlError(pub String);

fn dialect(duplicate_keys: DuplicateKeyPolicy) -> Options {
    options! {
        legacy_octal_numbers: true,
        duplicate_keys: duplicate_keys,
        with_snippet: false,
    }
}

/// The one document of a text; `Null` where there is none. Of duplicate keys the last wins.
pub fn parse(text: &[u8]) -> Result<Value, YamlError> {
    let mut value =
        serde_saphyr::from_slice_with_options(text, dialect(DuplicateKeyPolicy::LastWins)).map_err(sentence)?;
    integral_floats_to_integers(&mut value);
    Ok(value)
}

/// All documents of a text; empty ones are left out.
pub fn parse_documents(text: &[u8]) -> Result<Vec<Value>, YamlError> {
    let options = dialect(DuplicateKeyPolicy::LastWins);
    let mut documents: Vec<Value> = serde_saphyr::from_slice_multiple_with_options(text, options).map_err(sentence)?;
    documents.iter_mut().for_each(integral_floats_to_integers);
    documents.retain(|document| !document.is_null());
    Ok(documents)
}

/// One document, whose strings read back as strings.
pub fn print(value: &Value) -> Result<String, YamlError> {
    serde_saphyr::to_string(value).map_err(|error| YamlError(error.to_string()))
}

/// Hands a deserializer of the document to `read`; duplicate keys are passed on.
pub(crate) fn with_deserializer<T>(
    text: &[u8],
    read: impl for<'de, 'e> FnOnce(serde_saphyr::Deserializer<'de, 'e>) -> Result<T, serde_saphyr::Error>,
) -> Result<T, YamlError> {
    let options = dialect(DuplicateKeyPolicy::PassThrough);
    serde_saphyr::with_deserializer_from_slice_with_options(text, options, read).map_err(sentence)
}

fn sentence(error: serde_saphyr::Error) -> YamlError {
    YamlError(format!("error converting YAML to JSON: yaml: {error}"))
}

/// `1e3` and `1.` are integers to kubectl.
pub(crate) fn integral(value: f64) -> Option<i64> {
    // Up to here every integer has a float of its own.
    let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
    exact.then_some(value as i64)
}

fn integral_floats_to_integers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(integer) = number.as_f64().and_then(integral) {
                *value = integer.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(integral_floats_to_integers),
        Value::Object(map) => map.values_mut().for_each(integral_floats_to_integers),
        _ => {}
    }
}

/// Decodes a typed value (a configuration file) in the same dialect.
pub fn decode<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T, YamlError> {
    serde_json::from_value(parse(text)?).map_err(|error| YamlError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_read_as_kubectl_reads_them() {
        let rows = [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("0755", json!(493)),
            ("010", json!(8)),
            ("1_000", json!(1000)),
            ("0b11", json!(3)),
            ("1e3", json!(1000)),
            ("1.", json!(1)),
            ("1.5", json!(1.5)),
            ("'0755'", json!("0755")),
            ("nginx:1.7.9", json!("nginx:1.7.9")),
            ("~", json!(null)),
            ("2024-01-01T00:00:00Z", json!("2024-01-01T00:00:00Z")),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(format!("a: {text}").as_bytes()).unwrap()["a"], expected, "{text}");
        }
    }

    #[test]
    fn documents_and_merge_keys() {
        let text = b"a: &x {k: 1}\n---\n---\nb: 2\n";
        assert_eq!(parse_documents(text).unwrap(), [json!({"a": {"k": 1}}), json!({"b": 2})]);
        assert_eq!(parse(b"a: &x {k: 1}\nb:\n  <<: *x\n  l: 2\n").unwrap()["b"], json!({"k": 1, "l": 2}));
        assert!(parse(b"a: [").is_err());
    }

    #[test]
    fn what_is_printed_reads_back() {
        let value = json!({"a": "yes", "b": ["0755", "", "1", "x: y", "line\nline\n"], "c": {}, "d": [], "e": "null"});
        assert_eq!(parse(print(&value).unwrap().as_bytes()).unwrap(), value);
    }
}
