//! Nobody grants what they do not hold: the check on writes of roles and bindings.

use std::collections::BTreeMap;

use api::{Object, Status, object::ObjectExt, status::GroupResource};

use super::{
    Auth,
    authorize::MASTERS,
    rbac::{GROUP, Rule, rules_of},
};
use crate::request::{RequestInfo, User};

impl Auth {
    /// For create and update of Role, ClusterRole, RoleBinding and ClusterRoleBinding, on the object as it
    /// would be stored; anything else passes. 403 where the user would grant more than they hold and has
    /// neither `escalate` on the role nor `bind` on the role referred to.
    pub fn check_grant(
        &self,
        user: &User,
        request: &RequestInfo,
        new: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let is_role = match (request.group.as_str(), request.resource.as_str()) {
            (GROUP, "roles" | "clusterroles") => true,
            (GROUP, "rolebindings" | "clusterrolebindings") => false,
            _ => return Ok(()),
        };
        if user.is_in(MASTERS) || old.is_some_and(|old| only_lifecycle_changes(new, old)) {
            return Ok(());
        }
        if is_role { self.check_role(user, request, new, old) } else { self.check_binding(user, request, new) }
    }

    fn check_role(&self, user: &User, request: &RequestInfo, new: &Object, old: Option<&Object>) -> Result<(), Status> {
        let escalate = RequestInfo { verb: "escalate".into(), ..request.clone() };
        if self.authorize(user, &escalate).is_allow() {
            return Ok(());
        }
        self.must_cover(user, request, new, &rules_of(new))?;
        let aggregates = |role: &Object| {
            role.pointer("/aggregationRule/clusterRoleSelectors")
                .and_then(Object::as_array)
                .is_some_and(|s| !s.is_empty())
        };
        if aggregates(new) || old.is_some_and(aggregates) {
            // What it will gather is not known now.
            let why = "must have cluster-admin privileges to use the aggregationRule";
            self.must_cover(user, request, new, &everything()).map_err(|_| refusal(request, new, why))?;
        }
        Ok(())
    }

    fn check_binding(&self, user: &User, request: &RequestInfo, new: &Object) -> Result<(), Status> {
        let (kind, role) = (new.text("/roleRef/kind"), new.text("/roleRef/name"));
        let resource = if kind == "Role" { "roles" } else { "clusterroles" };
        let bind = RequestInfo {
            verb: "bind".into(),
            resource: resource.into(),
            subresource: String::new(),
            name: role.into(),
            ..request.clone()
        };
        if self.authorize(user, &bind).is_allow() {
            return Ok(());
        }
        let namespace = if kind == "Role" { request.namespace.as_str() } else { "" };
        let Some(role_object) = self.view.get(GROUP, resource, namespace, role) else {
            let singular = if kind == "Role" { "role" } else { "clusterrole" };
            return Err(Status::not_found(GroupResource { group: GROUP, resource: singular }, role));
        };
        self.must_cover(user, request, new, &rules_of(&role_object))
    }

    fn must_cover(&self, user: &User, request: &RequestInfo, new: &Object, rules: &[Rule]) -> Result<(), Status> {
        let (held, errors) = self.rbac.rules_for(user, &request.namespace);
        let missing = uncovered(&held, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
        let mut why = format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            described(&missing).join("\n"),
        );
        if !errors.is_empty() {
            why.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
        }
        Err(refusal(request, new, &why))
    }
}

fn refusal(request: &RequestInfo, object: &Object, why: &str) -> Status {
    let resource = GroupResource { group: &request.group, resource: &request.resource };
    Status::forbidden(resource, object.name(), why)
}

fn everything() -> Vec<Rule> {
    let any = || vec!["*".to_owned()];
    vec![
        Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() },
        Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() },
    ]
}

/// Whether nothing changes but what garbage collection needs: it must be able to remove any role.
fn only_lifecycle_changes(new: &Object, old: &Object) -> bool {
    let rest = |object: &Object| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "selfLink"] {
            object.set_metadata(field, Object::Null);
        }
        object
    };
    rest(new) == rest(old)
}

/// The parts of `wanted`, one verb, resource and name each, that no rule of `held` covers.
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(breakdown);
    parts.filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

fn breakdown(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for (group, resource) in rule.api_groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r))) {
        for verb in &rule.verbs {
            let part = Rule {
                api_groups: vec![group.clone()],
                resources: vec![resource.clone()],
                verbs: vec![verb.clone()],
                ..Rule::default()
            };
            match rule.resource_names.as_slice() {
                [] => parts.push(part),
                names => {
                    parts.extend(names.iter().map(|name| Rule { resource_names: vec![name.clone()], ..part.clone() }))
                }
            }
        }
    }
    for (url, verb) in rule.non_resource_urls.iter().flat_map(|url| rule.verbs.iter().map(move |verb| (url, verb))) {
        parts.push(Rule { non_resource_urls: vec![url.clone()], verbs: vec![verb.clone()], ..Rule::default() });
    }
    parts
}

/// `part` has at most one entry in each list.
fn covers(rule: &Rule, part: &Rule) -> bool {
    let all = |set: &[String], part: &[String]| part.iter().all(|entry| set.contains(entry));
    let any_or_all = |set: &[String], part: &[String]| set.iter().any(|entry| entry == "*") || all(set, part);
    let resource = |path: &String| {
        let everywhere = |of: &str| rule.resources.iter().any(|entry| entry.strip_prefix("*/") == Some(of));
        any_or_all(&rule.resources, std::slice::from_ref(path))
            || path.split_once('/').is_some_and(|(_, subresource)| everywhere(subresource))
    };
    let url = |path: &String| {
        rule.non_resource_urls.iter().any(|held| {
            held == path || held.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
        })
    };
    any_or_all(&rule.verbs, &part.verbs)
        && any_or_all(&rule.api_groups, &part.api_groups)
        && part.resources.iter().all(resource)
        && part.non_resource_urls.iter().all(url)
        && (rule.resource_names.is_empty()
            || !part.resource_names.is_empty() && all(&rule.resource_names, &part.resource_names))
}

/// One line for each resource: verbs of the same resource and name are put together.
fn described(parts: &[Rule]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut by_resource: BTreeMap<[&[String]; 3], Vec<String>> = BTreeMap::new();
    for part in parts {
        match part.non_resource_urls.is_empty() {
            true => by_resource
                .entry([&part.api_groups, &part.resources, &part.resource_names])
                .or_default()
                .extend(part.verbs.iter().cloned()),
            false => lines.push(compact(part)),
        }
    }
    for ([api_groups, resources, resource_names], verbs) in by_resource {
        lines.push(compact(&Rule {
            api_groups: api_groups.to_vec(),
            resources: resources.to_vec(),
            resource_names: resource_names.to_vec(),
            verbs,
            ..Rule::default()
        }));
    }
    lines.sort();
    lines.dedup();
    lines
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
fn compact(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let fields = fields.iter().filter(|(_, values)| !values.is_empty()).map(|(name, values)| {
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        format!("{name}:[{}]", quoted.join(" "))
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{Cluster, parse_request, user};

    const ROLES: &str = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/a/roles";
    const BINDINGS: &str = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings";

    fn role(verbs: &[&str]) -> Object {
        json!({"metadata": {"name": "r", "namespace": "a"},
            "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs}]})
    }

    #[test]
    fn a_role_cannot_hold_more_than_its_author() {
        let cluster = Cluster::default();
        cluster.bind("alice", json!([{"apiGroups": ["apps"], "resources": ["*"], "verbs": ["get"]}]));
        let (auth, alice) = (cluster.auth(), user("alice", &["team"]));
        let check = |role: &Object| auth.check_grant(&alice, &parse_request(ROLES), role, None);
        assert_eq!(check(&role(&["get"])), Ok(()));
        assert_eq!(
            check(&role(&["get", "list", "watch"])).unwrap_err().message,
            "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"alice\" (groups=[\"team\"]) is attempting to \
             grant RBAC permissions not currently held:\n{APIGroups:[\"apps\"], Resources:[\"deployments\"], \
             Verbs:[\"list\" \"watch\"]}"
        );
        let root = user("root", &["system:masters"]);
        assert_eq!(auth.check_grant(&root, &parse_request(ROLES), &role(&["*"]), None), Ok(()));
        cluster.bind("alice", json!([{"apiGroups": [GROUP], "resources": ["roles"], "verbs": ["escalate"]}]));
        assert_eq!(check(&role(&["*"])), Ok(()));
    }

    #[test]
    fn a_binding_needs_the_role_or_the_right_to_bind() {
        let cluster = Cluster::default();
        cluster.put(GROUP, "roles", role(&["get"]));
        let (auth, bob) = (cluster.auth(), user("bob", &[]));
        let binding = json!({"metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "r"}});
        let check = || auth.check_grant(&bob, &parse_request(BINDINGS), &binding, None);
        assert!(check().unwrap_err().message.starts_with("rolebindings.rbac.authorization.k8s.io \"b\" is forbidden"));
        cluster.bind(
            "bob",
            json!([{"apiGroups": [GROUP], "resources": ["roles"], "verbs": ["bind"],
            "resourceNames": ["r"]}]),
        );
        assert_eq!(check(), Ok(()));
        let mut finalized = binding.clone();
        finalized.set_metadata("finalizers", json!(["x"]));
        let carol = user("carol", &[]);
        assert_eq!(auth.check_grant(&carol, &parse_request(BINDINGS), &finalized, Some(&binding)), Ok(()));
    }

    #[test]
    fn covering_knows_stars_names_and_subresources() {
        let rule = |text: &str| super::super::roles::parse_rule(text);
        let rows = [
            ("* * *", "get apps deployments", true),
            ("get core */status", "get core pods/status", true),
            ("get core pods", "get core pods/status", false),
            ("get core pods x", "get core pods", false),
            ("get core pods", "get core pods x", true),
            ("get /api/*", "get /api/v1", true),
            ("get /api", "get /api/v1", false),
        ];
        for (held, wanted, expected) in rows {
            assert_eq!(uncovered(&[rule(held)], &[rule(wanted)]).is_empty(), expected, "{held} covers {wanted}");
        }
    }
}
