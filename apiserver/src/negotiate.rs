//! Which form of an answer the client accepts.

use api::Status;
use http::{HeaderMap, header};

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

/// What an answer is turned into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Object,
    /// `meta.k8s.io/<version>, Kind=Table`
    Table { version: String },
    /// `meta.k8s.io/<version>, Kind=PartialObjectMetadata(List)`
    Metadata { version: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub encoding: Encoding,
    pub form: Form,
}

/// One clause of an Accept header.
#[derive(Debug, PartialEq)]
pub struct Clause<'a> {
    pub media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The clauses, best first; clauses of equal quality keep their order.
pub fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<_> = accept.split(',').filter(|clause| !clause.trim().is_empty()).map(clause).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

fn clause(text: &str) -> Clause<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let parameters: Vec<_> =
        parts.filter_map(|part| part.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect();
    let quality = parameters.iter().find(|(name, _)| *name == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
    Clause { media_type, parameters, quality }
}

/// All Accept headers in one.
pub fn accept(headers: &HeaderMap) -> String {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// The first clause that can be served; 406 when there is none.
pub fn negotiate(headers: &HeaderMap) -> Result<Accepted, Status> {
    let accept = accept(headers);
    if accept.trim().is_empty() {
        return Ok(Accepted { encoding: Encoding::Json, form: Form::Object });
    }
    clauses(&accept)
        .iter()
        .find_map(served)
        .ok_or_else(|| Status::not_acceptable("application/json, application/json;stream=watch, application/yaml"))
}

fn served(clause: &Clause<'_>) -> Option<Accepted> {
    let encoding = match clause.media_type {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let Some(kind) = clause.parameter("as") else { return Some(Accepted { encoding, form: Form::Object }) };
    let version = clause.parameter("v").filter(|version| matches!(*version, "v1" | "v1beta1"))?.to_owned();
    let form = match (clause.parameter("g"), kind) {
        (Some("meta.k8s.io"), "Table") => Form::Table { version },
        (Some("meta.k8s.io"), "PartialObjectMetadata" | "PartialObjectMetadataList") => Form::Metadata { version },
        _ => return None,
    };
    Some(Accepted { encoding, form })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &'static str) -> Option<Accepted> {
        negotiate(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())])).ok()
    }

    #[test]
    fn kubectl_get_asks_for_tables() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let table = Form::Table { version: "v1".into() };
        assert_eq!(accepted(accept), Some(Accepted { encoding: Encoding::Json, form: table }));
    }

    #[test]
    fn what_cannot_be_served_is_passed_over() {
        let json = Accepted { encoding: Encoding::Json, form: Form::Object };
        assert_eq!(accepted("application/vnd.kubernetes.protobuf,application/json"), Some(json.clone()));
        assert_eq!(accepted("application/json;as=Other;v=v1;g=x, */*;q=0.1"), Some(json));
        assert_eq!(accepted("application/vnd.kubernetes.protobuf"), None);
    }
}
