//! Role-based access control: which rules the bindings give to a user, and whether one allows the request.
//!
//! Requests are answered from an index of subjects to rules. It is rebuilt when an object of the four RBAC
//! kinds changes, never per request.

use std::{collections::HashMap, sync::Arc};

use api::{Object, object::ObjectExt};
use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use super::authorize::Decision;
use crate::{
    request::{RequestInfo, User},
    view::View,
};

/// The API group of the four kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// One line of a role: what may be done to what.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    pub verbs: Vec<String>,
}

impl Rule {
    pub fn allows(&self, request: &RequestInfo) -> bool {
        if !is_any_or_has(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|rule| url_matches(rule, &request.path));
        }
        is_any_or_has(&self.api_groups, &request.group)
            && self.resources.iter().any(|rule| resource_matches(rule, &request.resource, &request.subresource))
            && (self.resource_names.is_empty() || self.resource_names.contains(&request.name))
    }
}

fn is_any_or_has(set: &[String], wanted: &str) -> bool {
    set.iter().any(|entry| entry == "*" || entry == wanted)
}

/// `*`, the path itself, or a prefix that ends in `*`.
fn url_matches(rule: &str, path: &str) -> bool {
    rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

/// `*`, `pods`, `pods/log` or `*/scale`.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        _ if rule == "*" => true,
        None => subresource.is_empty() && rule == resource,
        Some((of, name)) => !subresource.is_empty() && name == subresource && (of == "*" || of == resource),
    }
}

/// The rules of a Role or ClusterRole; none where they do not decode.
pub fn rules_of(role: &Object) -> Vec<Rule> {
    role.get("rules").and_then(|rules| Vec::deserialize(rules).ok()).unwrap_or_default()
}

/// What one binding gives to one of its subjects.
struct Grant {
    /// Position of the binding among its kind.
    binding: usize,
    /// `ClusterRoleBinding "b" of ClusterRole "r" to Group "g"`.
    source: String,
    /// Or why the role could not be found.
    rules: Result<Arc<[Rule]>, String>,
}

/// The grants that hold in one namespace, or everywhere.
#[derive(Default)]
struct Scope {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

impl Scope {
    fn grants<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let of_groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&user.name).into_iter().chain(of_groups).flatten()
    }

    fn add(&mut self, position: usize, binding: &Object, rules: &Result<Arc<[Rule]>, String>) {
        let namespace = binding.namespace();
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let (kind, name) = (subject.text("/kind"), subject.text("/name"));
            let (map, key, described) = match kind {
                "User" => (&mut self.users, name.to_owned(), name.to_owned()),
                "Group" => (&mut self.groups, name.to_owned(), name.to_owned()),
                "ServiceAccount" => {
                    let of = Some(subject.text("/namespace")).filter(|of| !of.is_empty()).unwrap_or(namespace);
                    (&mut self.users, service_account_user(of, name), format!("{name}/{of}"))
                }
                _ => continue,
            };
            let source = source_of(binding, kind, &described);
            map.entry(key).or_default().push(Grant { binding: position, source, rules: rules.clone() });
        }
    }
}

/// `system:serviceaccount:<namespace>:<name>`.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

fn source_of(binding: &Object, subject_kind: &str, subject: &str) -> String {
    let (role_kind, role) = (binding.text("/roleRef/kind"), binding.text("/roleRef/name"));
    let (kind, name) = match binding.namespace() {
        "" => ("ClusterRoleBinding", binding.name().to_owned()),
        namespace => ("RoleBinding", format!("{}/{namespace}", binding.name())),
    };
    format!("{kind} {name:?} of {role_kind} {role:?} to {subject_kind} {subject:?}")
}

struct Index {
    /// Of the four kinds, as they were before the lists were read.
    versions: [u64; 4],
    everywhere: Scope,
    namespaces: HashMap<String, Scope>,
}

impl Index {
    fn build(view: &dyn View, versions: [u64; 4]) -> Self {
        let mut index = Self { versions, everywhere: Scope::default(), namespaces: HashMap::new() };
        let mut roles: HashMap<(String, String), Arc<[Rule]>> = HashMap::new();
        for role in view.list(GROUP, "clusterroles", None).iter().chain(&view.list(GROUP, "roles", None)) {
            roles.insert((role.namespace().into(), role.name().into()), rules_of(role).into());
        }
        let find = |binding: &Object| -> Result<Arc<[Rule]>, String> {
            let (kind, name) = (binding.text("/roleRef/kind"), binding.text("/roleRef/name"));
            let namespace = if kind == "Role" { binding.namespace() } else { "" };
            let found = roles.get(&(namespace.to_owned(), name.to_owned())).cloned();
            found.ok_or_else(|| format!("{}.{GROUP} {name:?} not found", kind.to_ascii_lowercase()))
        };
        for (position, binding) in view.list(GROUP, "clusterrolebindings", None).iter().enumerate() {
            index.everywhere.add(position, binding, &find(binding));
        }
        for (position, binding) in view.list(GROUP, "rolebindings", None).iter().enumerate() {
            let scope = index.namespaces.entry(binding.namespace().to_owned()).or_default();
            scope.add(position, binding, &find(binding));
        }
        index
    }

    fn grants<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let there = self.namespaces.get(namespace).filter(|_| !namespace.is_empty());
        self.everywhere.grants(user).chain(there.into_iter().flat_map(move |scope| scope.grants(user)))
    }
}

/// The RBAC authorizer over the watch cache.
pub struct Rbac {
    view: Arc<dyn View>,
    index: ArcSwapOption<Index>,
}

impl Rbac {
    pub fn new(view: Arc<dyn View>) -> Self {
        Self { view, index: ArcSwapOption::empty() }
    }

    fn index(&self) -> Arc<Index> {
        let kinds = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];
        let versions = kinds.map(|resource| self.view.version(GROUP, resource));
        if let Some(index) = self.index.load_full().filter(|index| index.versions == versions) {
            return index;
        }
        let index = Arc::new(Index::build(&*self.view, versions));
        self.index.store(Some(Arc::clone(&index)));
        index
    }

    pub fn decide(&self, user: &User, request: &RequestInfo) -> Decision {
        let index = self.index();
        let mut missing: Vec<&str> = Vec::new();
        for grant in index.grants(user, &request.namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(request)) => {
                    return Decision::Allow(format!("RBAC: allowed by {}", grant.source));
                }
                Ok(_) => {}
                Err(error) if missing.contains(&error.as_str()) => {}
                Err(error) => missing.push(error),
            }
        }
        Decision::NoOpinion(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// All rules that hold for the user in the namespace, each binding once, and the roles that were missing.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let index = self.index();
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        let there = index.namespaces.get(namespace).filter(|_| !namespace.is_empty());
        for scope in [Some(&index.everywhere), there].into_iter().flatten() {
            let mut grants: Vec<&Grant> = scope.grants(user).collect();
            grants.sort_by_key(|grant| grant.binding);
            grants.dedup_by_key(|grant| grant.binding);
            for grant in grants {
                match &grant.rules {
                    Ok(granted) => rules.extend(granted.iter().cloned()),
                    Err(error) => missing.push(error.clone()),
                }
            }
        }
        (rules, missing)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{Cluster, parse_request, user};

    #[test]
    fn rules_match_as_upstreams_do() {
        let rule = |resources: &[&str], names: &[&str]| Rule {
            verbs: vec!["get".into(), "create".into()],
            api_groups: vec![String::new()],
            resources: resources.iter().map(|r| (*r).into()).collect(),
            resource_names: names.iter().map(|r| (*r).into()).collect(),
            ..Rule::default()
        };
        let rows: &[(&[&str], &[&str], &str, bool)] = &[
            (&["pods"], &[], "GET /api/v1/namespaces/a/pods/p", true),
            (&["pods"], &[], "GET /api/v1/namespaces/a/pods/p/log", false),
            (&["pods/log"], &[], "GET /api/v1/namespaces/a/pods/p/log", true),
            (&["*/log"], &[], "GET /api/v1/namespaces/a/pods/p/log", true),
            (&["*/log"], &[], "GET /api/v1/namespaces/a/pods/p/status", false),
            (&["*"], &[], "GET /api/v1/namespaces/a/pods/p/status", true),
            (&["pods"], &["p"], "GET /api/v1/namespaces/a/pods/p", true),
            (&["pods"], &["q"], "GET /api/v1/namespaces/a/pods/p", false),
            (&["pods"], &["p"], "POST /api/v1/namespaces/a/pods", false),
            (&["pods"], &[], "GET /api/v1/namespaces/a/pods", false),
            (&["deployments"], &[], "GET /apis/apps/v1/namespaces/a/deployments/d", false),
        ];
        for (resources, names, request, expected) in rows {
            assert_eq!(rule(resources, names).allows(&parse_request(request)), *expected, "{resources:?} {request}");
        }
        assert!(url_matches("*", "/x") && url_matches("/api/*", "/api/v1") && url_matches("/api", "/api"));
        assert!(!url_matches("/api/*", "/api") && !url_matches("/api", "/api/v1"));
    }

    #[test]
    fn the_index_follows_the_bindings() {
        let cluster = Cluster::default();
        cluster.put(
            GROUP,
            "roles",
            json!({"metadata": {"name": "reader", "namespace": "a"},
            "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]}),
        );
        let rbac = Rbac::new(cluster.view());
        let (list, elsewhere) =
            (parse_request("GET /api/v1/namespaces/a/pods"), parse_request("GET /api/v1/namespaces/b/pods"));
        let account = user("system:serviceaccount:a:robot", &[]);
        assert_eq!(rbac.decide(&account, &list), Decision::NoOpinion(String::new()));

        cluster.put(
            GROUP,
            "rolebindings",
            json!({"metadata": {"name": "readers", "namespace": "a"},
            "roleRef": {"kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot"}, {"kind": "Group", "name": "team"}]}),
        );
        let reason = "RBAC: allowed by RoleBinding \"readers/a\" of Role \"reader\" to ServiceAccount \"robot/a\"";
        assert_eq!(rbac.decide(&account, &list), Decision::Allow(reason.into()));
        assert_eq!(rbac.decide(&account, &elsewhere), Decision::NoOpinion(String::new()));
        assert!(rbac.decide(&user("x", &["team"]), &list).is_allow());
        assert_eq!(rbac.rules_for(&user("x", &["team"]), "a").0.len(), 1);

        cluster.put(
            GROUP,
            "clusterrolebindings",
            json!({"metadata": {"name": "dangling"},
            "roleRef": {"kind": "ClusterRole", "name": "gone"}, "subjects": [{"kind": "User", "name": "y"}]}),
        );
        let reason = "RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found";
        assert_eq!(rbac.decide(&user("y", &[]), &list), Decision::NoOpinion(reason.into()));
    }
}
