//! What a request is about: the one parser of paths under `/api` and `/apis`.

use http::Method;

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
    /// Of list, watch and deletecollection, percent-decoded; empty where there is none. The Node authorizer
    /// lets a kubelet list Pods only with `spec.nodeName=<itself>`.
    pub field_selector: String,
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
            info.field_selector = parameter(query, "fieldSelector").unwrap_or_default();
            // A field selector on the name makes it a request about one object (upstream does so).
            info.name = name_selected(&info.field_selector).unwrap_or_default();
        }
        info
    }
}

fn resource_verb(method: &Method, name: &str, query: &str, old_style_watch: bool) -> &'static str {
    let watch = old_style_watch
        || query.split('&').any(|pair| matches!(pair, "watch" | "watch=true" | "watch=1" | "watch=True" | "watch=t"));
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

/// The decoded value of a query parameter.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        rest = match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                &tail[2..]
            }
            None => {
                decoded.push(if byte == b'+' { b' ' } else { byte });
                tail
            }
        };
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

fn name_selected(field_selector: &str) -> Option<String> {
    let terms = field_selector.split(',').map(str::trim);
    let name = terms.filter_map(|term| term.strip_prefix("metadata.name=")).next()?.trim_start_matches('=');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.chars().all(plain)).then(|| name.to_owned())
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
        ];
        for (method, path, query, expected) in rows {
            assert_eq!(parse(method, path, query), expected);
        }
    }
}
