//! What a request is about: the one parser of paths under `/api` and `/apis`.

use api::selector::FieldSelector;
use http::Method;

use crate::options::{is_true, pairs};

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl User {
    /// A component of this process or a bootstrapper, in upstream's names.
    pub fn named(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push("system:authenticated".into());
        Self { name: name.into(), groups, ..Self::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|name| name == group)
    }
}

/// The attributes of a request, as authorization, admission, audit and metrics see it
/// (upstream: `RequestInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths that
    /// are no resource, the lower-case HTTP method.
    pub verb: String,
    pub path: String,
    pub is_resource: bool,
    pub group: String,
    pub version: String,
    /// Empty for cluster-scoped resources and for requests over all namespaces.
    pub namespace: String,
    /// Plural.
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource, for proxies: `/healthz`.
    pub rest: String,
    /// Of list, watch and deletecollection; selects everything where there is none, or one that cannot be read
    /// (which is refused later). The Node authorizer lets a kubelet list Pods only with `spec.nodeName=<itself>`.
    pub field_selector: FieldSelector,
}

impl RequestInfo {
    /// `path` is percent-decoded; `query` raw. Never fails: what is no resource path is a plain path.
    pub fn parse(method: &Method, path: &str, query: &str) -> Self {
        let mut info = Self { verb: method.as_str().to_ascii_lowercase(), path: path.into(), ..Self::default() };
        let mut segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version) = match segments.as_slice() {
            ["api", version, _, ..] => ("", *version),
            ["apis", group, version, _, ..] => (*group, *version),
            _ => return info,
        };
        segments.drain(..if group.is_empty() { 2 } else { 3 });
        info.is_resource = true;
        (info.group, info.version) = (group.into(), version.into());
        let old_style_watch = segments.first() == Some(&"watch") && segments.len() > 1;
        if old_style_watch {
            segments.remove(0);
        }
        if segments.len() > 2 && segments[0] == "namespaces" && !matches!(segments[2], "status" | "finalize") {
            info.namespace = segments[1].into();
            segments.drain(..2);
        } else if segments.len() >= 2 && segments[0] == "namespaces" {
            info.namespace = segments[1].into();
        }
        info.resource = segments[0].into();
        info.name = segments.get(1).copied().unwrap_or_default().into();
        info.subresource = segments.get(2).copied().unwrap_or_default().into();
        if segments.len() > 3 {
            info.rest = format!("/{}", segments[3..].join("/"));
        }
        if !info.rest.is_empty() && path.ends_with('/') {
            info.rest.push('/');
        }
        info.verb = resource_verb(method, &info.name, query, old_style_watch).into();
        if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") && info.name.is_empty() {
            let text = parameter(query, "fieldSelector").unwrap_or_default();
            info.field_selector = FieldSelector::parse(&text).unwrap_or_default();
            // A field selector on the name makes it a request about one object (upstream does so).
            let name = info.field_selector.exact("metadata.name").filter(|name| is_path_segment(name));
            info.name = name.unwrap_or_default().into();
        }
        info
    }
}

fn resource_verb(method: &Method, name: &str, query: &str, old_style_watch: bool) -> &'static str {
    let watch = old_style_watch || parameter(query, "watch").is_some_and(|value| is_true(&value));
    match (method.as_str(), name.is_empty()) {
        ("GET" | "HEAD", _) if watch => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    }
}

/// The first value of a query parameter, as `Options` reads it: what was authorized is what is done.
fn parameter(query: &str, name: &str) -> Option<String> {
    pairs(query).find(|(known, _)| known == name).map(|(_, value)| value)
}

fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, path: &str, query: &str) -> String {
        let info = RequestInfo::parse(&method.parse().unwrap(), path, query);
        let RequestInfo { verb, group, namespace, resource, subresource, name, rest, .. } = info;
        format!("{verb} {group}/{resource} ns={namespace} name={name} sub={subresource} rest={rest}")
    }

    #[test]
    fn paths_read_as_upstream_reads_them() {
        let rows = [
            ("GET", "/api/v1/pods", "", "list /pods ns= name= sub= rest="),
            ("GET", "/api/v1/namespaces/a/pods", "watch=true", "watch /pods ns=a name= sub= rest="),
            ("GET", "/api/v1/namespaces/a", "", "get /namespaces ns=a name=a sub= rest="),
            ("PUT", "/api/v1/namespaces/a/finalize", "", "update /namespaces ns=a name=a sub=finalize rest="),
            ("POST", "/api/v1/namespaces/a/pods/p/exec", "", "create /pods ns=a name=p sub=exec rest="),
            ("GET", "/api/v1/nodes/n/proxy/healthz", "", "get /nodes ns= name=n sub=proxy rest=/healthz"),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                "deletecollection apps/deployments ns=a name= sub= rest=",
            ),
            ("GET", "/healthz", "", "get / ns= name= sub= rest="),
            ("GET", "/api/v1/pods", "fieldSelector=metadata.name%3Dx", "list /pods ns= name=x sub= rest="),
            // An escaped comma is part of a value, and of repeated parameters the first counts.
            ("GET", "/api/v1/pods", "fieldSelector=a!%3Db%5C,metadata.name%3Dx", "list /pods ns= name= sub= rest="),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=a%3Db&fieldSelector=metadata.name%3Dx",
                "list /pods ns= name= sub= rest=",
            ),
            ("GET", "/api/v1/pods", "w%61tch=yes", "watch /pods ns= name= sub= rest="),
            ("GET", "/api/v1/pods", "watch=false&watch=true", "list /pods ns= name= sub= rest="),
        ];
        for (method, path, query, expected) in rows {
            assert_eq!(parse(method, path, query), expected);
        }
    }
}
