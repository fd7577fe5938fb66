//! What the API offers, derived from the kinds.

use std::sync::LazyLock;

use api::{Descriptor, Status, kind::Subresource};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    kinds,
    negotiate::{accept, clauses},
    respond::{bytes_response, json_response},
};

/// The version that Skiff behaves like. Build metadata, not a pre-release: Helm charts compare it.
pub const GIT_VERSION: &str = "v1.36.2+skiff";

/// A group with its versions, best first, and the kinds of each.
struct Group {
    name: &'static str,
    versions: Vec<(&'static str, Vec<&'static Descriptor>)>,
}

/// In the order in which the registry first names them.
static GROUPS: LazyLock<Vec<Group>> = LazyLock::new(|| {
    let mut groups: Vec<Group> = Vec::new();
    for descriptor in kinds::all().map(|kind| kind.descriptor()) {
        let at = groups.iter().position(|group| group.name == descriptor.group).unwrap_or_else(|| {
            groups.push(Group { name: &descriptor.group, versions: Vec::new() });
            groups.len() - 1
        });
        let versions = &mut groups[at].versions;
        match versions.iter_mut().find(|(version, _)| *version == descriptor.version) {
            Some((_, kinds)) => kinds.push(descriptor),
            None => versions.push((&descriptor.version, vec![descriptor])),
        }
    }
    for group in &mut groups {
        group.versions.sort_by_key(|(version, _)| std::cmp::Reverse(priority(version)));
    }
    groups
});

/// Stable before beta before alpha, then the larger number.
pub fn priority(version: &str) -> (u8, u32, u32) {
    let numbers: Vec<u32> = version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    let stability = if version.contains("alpha") {
        0
    } else if version.contains("beta") {
        1
    } else {
        2
    };
    (stability, numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0))
}

/// `api/v1`, `apis/apps/v1`, ...: the places that hold resources.
pub fn group_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    GROUPS.iter().flat_map(|group| group.versions.iter().map(|(version, _)| (group.name, *version)))
}

pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}

/// All paths that answer something.
pub fn root() -> Response {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    paths.extend(GROUPS.iter().filter(|group| !group.name.is_empty()).map(|group| format!("/apis/{}", group.name)));
    paths.extend(group_versions().map(|(group, version)| match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    }));
    paths.sort();
    json_response(&json!({"paths": paths}))
}

/// `/api`
pub fn legacy_groups(headers: &HeaderMap, address: &str) -> Result<Response, Status> {
    if let Some(version) = aggregated(headers) {
        return Ok(aggregate(headers, version, |group| group.name.is_empty()));
    }
    let versions: Vec<_> = group_versions().filter(|(group, _)| group.is_empty()).map(|(_, version)| version).collect();
    let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]);
    Ok(json_response(&json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": addresses})))
}

/// `/apis`
pub fn groups(headers: &HeaderMap) -> Result<Response, Status> {
    if let Some(version) = aggregated(headers) {
        return Ok(aggregate(headers, version, |group| !group.name.is_empty()));
    }
    let groups: Vec<_> = GROUPS.iter().filter(|group| !group.name.is_empty()).map(group_entry).collect();
    Ok(json_response(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
}

/// `/apis/<group>`
pub fn group(name: &str) -> Result<Response, Status> {
    let group = GROUPS.iter().find(|group| group.name == name && !name.is_empty()).ok_or_else(Status::no_such_path)?;
    let mut entry = group_entry(group);
    (entry["kind"], entry["apiVersion"]) = ("APIGroup".into(), "v1".into());
    Ok(json_response(&entry))
}

fn group_entry(group: &Group) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<_> = group.versions.iter().map(|(name, _)| version(name)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/api/v1`, `/apis/<group>/<version>`
pub fn resources(group: &str, version: &str) -> Result<Response, Status> {
    let found = GROUPS.iter().find(|known| known.name == group);
    let found = found.and_then(|group| group.versions.iter().find(|(known, _)| *known == version));
    let (_, descriptors) = found.ok_or_else(Status::no_such_path)?;
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut resources: Vec<Value> = descriptors.iter().flat_map(|descriptor| resource_entries(descriptor)).collect();
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Ok(json_response(&json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    })))
}

fn resource_entries(descriptor: &Descriptor) -> Vec<Value> {
    let mut resource = json!({
        "name": descriptor.plural, "singularName": descriptor.singular, "namespaced": descriptor.is_namespaced(),
        "kind": descriptor.kind, "verbs": descriptor.verbs,
    });
    set_unless_empty(&mut resource, "shortNames", &descriptor.short_names);
    set_unless_empty(&mut resource, "categories", &descriptor.categories);
    let subresource = |subresource: &Subresource| {
        let mut entry = json!({
            "name": format!("{}/{}", descriptor.plural, subresource.name), "singularName": "",
            "namespaced": descriptor.is_namespaced(), "kind": subresource.kind, "verbs": subresource.verbs,
        });
        if !subresource.version.is_empty() {
            (entry["group"], entry["version"]) = (subresource.group.into(), subresource.version.into());
        }
        entry
    };
    std::iter::once(resource).chain(descriptor.subresources.iter().map(subresource)).collect()
}

fn set_unless_empty(entry: &mut Value, field: &str, values: &[String]) {
    if !values.is_empty() {
        entry[field] = json!(values);
    }
}

/// The version of aggregated discovery that the client prefers to the plain form.
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = accept(headers);
    for clause in clauses(&accept) {
        if !matches!(clause.media_type, "application/json" | "application/*" | "*/*") {
            continue;
        }
        match (clause.parameter("g"), clause.parameter("as"), clause.parameter("v")) {
            (Some("apidiscovery.k8s.io"), Some("APIGroupDiscoveryList"), Some("v2")) => return Some("v2"),
            (Some("apidiscovery.k8s.io"), Some("APIGroupDiscoveryList"), Some("v2beta1")) => return Some("v2beta1"),
            (None, None, _) => return None,
            _ => {}
        }
    }
    None
}

fn aggregate(headers: &HeaderMap, version: &'static str, wanted: impl Fn(&Group) -> bool) -> Response {
    let items: Vec<_> = GROUPS.iter().filter(|group| wanted(group)).map(aggregated_group).collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let media_type = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    with_etag(headers, serde_json::to_vec(&document).unwrap_or_default().into(), media_type)
}

fn aggregated_group(group: &Group) -> Value {
    let version = |(version, descriptors): &(&str, Vec<&Descriptor>)| {
        let resources: Vec<_> = descriptors.iter().map(|descriptor| aggregated_resource(descriptor)).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<_> = group.versions.iter().map(version).collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(descriptor: &Descriptor) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let (group, version) = (descriptor.group.as_str(), descriptor.version.as_str());
    let mut resource = json!({
        "resource": descriptor.plural, "responseKind": kind(group, version, &descriptor.kind),
        "scope": if descriptor.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": descriptor.singular, "verbs": descriptor.verbs,
    });
    set_unless_empty(&mut resource, "shortNames", &descriptor.short_names);
    set_unless_empty(&mut resource, "categories", &descriptor.categories);
    let subresource = |subresource: &Subresource| {
        let (group, version) = match subresource.version {
            "" => (group, version),
            version => (subresource.group, version),
        };
        json!({
            "subresource": subresource.name, "responseKind": kind(group, version, subresource.kind),
            "verbs": subresource.verbs,
        })
    };
    let subresources: Vec<_> = descriptor.subresources.iter().map(subresource).collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

/// The hash that names the content of a document.
pub fn hash(document: &[u8]) -> String {
    Sha256::digest(document).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A document that clients keep: 304 when they have it already.
pub fn with_etag(headers: &HeaderMap, document: Bytes, media_type: &'static str) -> Response {
    let etag = format!("\"{}\"", hash(&document));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| value.as_bytes() == etag.as_bytes());
    let mut response = match known {
        true => bytes_response(StatusCode::NOT_MODIFIED.as_u16(), Bytes::new(), media_type),
        false => bytes_response(200, document, media_type),
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["v1beta1", "v2", "v1alpha1", "v1", "v1beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }

    #[test]
    fn kubectl_prefers_the_aggregated_form() {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        assert_eq!(aggregated(&headers), Some("v2"));
        assert_eq!(aggregated(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("*/*"))])), None);
    }
}
