//! The roles and bindings that a cluster starts with, and what must be written at start to have them.
//!
//! Skiff's controller manager runs all controllers as one user, so that user is a subject of every controller's
//! binding beside the controller's own ServiceAccount: the same power in sum as upstream's, without a token
//! and a client for each controller, and the roles stay readable one by one.

use api::{Object, object::ObjectExt};
use serde_json::{Map, Value, json};

use super::{
    controller_roles::CONTROLLER_ROLES,
    escalation::uncovered,
    rbac::{GROUP, Rule, rules_of},
    roles::{CLUSTER_ROLES, EVENTS, parse_rules},
};
use crate::view::View;

const AUTOUPDATE: &str = "/metadata/annotations/rbac.authorization.kubernetes.io~1autoupdate";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// A write that makes the cluster have what it must.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Create(Object),
    /// Has the resourceVersion of what it replaces.
    Update(Object),
    /// The roleRef of a binding cannot change: delete it, then create this.
    Recreate(Object),
}

/// The writes that are missing. Nothing is taken away from what exists, and a role or binding with the
/// annotation `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone. Needs the namespaces
/// kube-system and kube-public.
pub fn plan(view: &dyn View) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut cluster_roles: Vec<Object> =
        view.list(GROUP, "clusterroles", None).iter().map(|role| Object::clone(role)).collect();
    for expected in objects() {
        let resource = resource_of(&expected);
        let existing = view.get(GROUP, resource, expected.namespace(), expected.name());
        let write = match existing {
            None => Some(Write::Create(expected)),
            Some(existing) => reconcile(&existing, &expected),
        };
        if let Some(Write::Create(role) | Write::Update(role)) = write.as_ref().filter(|_| resource == "clusterroles") {
            cluster_roles.retain(|other| other.name() != role.name());
            cluster_roles.push(role.clone());
        }
        writes.extend(write);
    }
    for role in aggregate(&mut cluster_roles) {
        let pending = writes.iter_mut().find_map(|write| match write {
            Write::Create(object) | Write::Update(object)
                if object.name() == role.name() && resource_of(object) == "clusterroles" =>
            {
                Some(object)
            }
            _ => None,
        });
        match pending {
            Some(object) => *object = role,
            None => writes.push(Write::Update(role)),
        }
    }
    writes
}

/// Plural of the kind of an RBAC object.
pub fn resource_of(object: &Object) -> &'static str {
    match object.text("/kind") {
        "ClusterRole" => "clusterroles",
        "ClusterRoleBinding" => "clusterrolebindings",
        "Role" => "roles",
        _ => "rolebindings",
    }
}

/// All roles and bindings, roles before the bindings that name them.
pub fn objects() -> Vec<Object> {
    let mut objects: Vec<Object> = CLUSTER_ROLES.iter().map(|(name, lines)| cluster_role(name, lines)).collect();
    objects.extend(["admin", "edit", "view"].map(aggregated_role));
    let controllers =
        || CONTROLLER_ROLES.iter().map(|(name, lines)| (format!("system:controller:{name}"), *name, *lines));
    objects.extend(controllers().map(|(role, _, lines)| cluster_role(&role, lines)));
    objects.extend(cluster_bindings());
    objects.extend(
        controllers().map(|(role, name, _)| cluster_binding(&role, &[account(name), user(CONTROLLER_MANAGER)])),
    );
    objects.extend(namespaced());
    objects
}

fn object(kind: &str, namespace: &str, name: &str) -> Object {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    });
    if !namespace.is_empty() {
        object.set_metadata("namespace", namespace.into());
    }
    object
}

fn cluster_role(name: &str, lines: &[&str]) -> Object {
    let mut role = object("ClusterRole", "", name);
    role["rules"] = json!(parse_rules(lines));
    if let Some(target) = name.strip_prefix("system:aggregate-to-") {
        role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{target}")] = "true".into();
    }
    role
}

/// `view` is gathered into `edit`, and `edit` into `admin`.
fn aggregated_role(name: &str) -> Object {
    let label = |target: &str| format!("rbac.authorization.k8s.io/aggregate-to-{target}");
    let mut role = object("ClusterRole", "", name);
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label(name): "true"}}]});
    match name {
        "view" => role["metadata"]["labels"][label("edit")] = "true".into(),
        "edit" => role["metadata"]["labels"][label("admin")] = "true".into(),
        _ => {}
    }
    role
}

fn user(name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "User", "name": name})
}

fn group(name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "Group", "name": name})
}

/// A ServiceAccount of kube-system.
fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"})
}

/// A binding of a cluster role, named as the role is.
fn cluster_binding(role: &str, subjects: &[Value]) -> Object {
    let mut binding = object("ClusterRoleBinding", "", role);
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
    if !subjects.is_empty() {
        binding["subjects"] = json!(subjects);
    }
    binding
}

fn cluster_bindings() -> Vec<Object> {
    let everyone = group("system:authenticated");
    vec![
        cluster_binding("cluster-admin", &[group("system:masters")]),
        cluster_binding("system:monitoring", &[group("system:monitoring")]),
        cluster_binding("system:discovery", std::slice::from_ref(&everyone)),
        cluster_binding("system:basic-user", std::slice::from_ref(&everyone)),
        cluster_binding("system:public-info-viewer", &[everyone, group("system:unauthenticated")]),
        cluster_binding("system:node-proxier", &[user("system:kube-proxy")]),
        cluster_binding("system:kube-controller-manager", &[user(CONTROLLER_MANAGER)]),
        cluster_binding("system:kube-dns", &[account("kube-dns")]),
        cluster_binding("system:kube-scheduler", &[user(SCHEDULER)]),
        cluster_binding("system:volume-scheduler", &[user(SCHEDULER)]),
        // To nobody: nodes are the Node authorizer's.
        cluster_binding("system:node", &[]),
        cluster_binding("system:service-account-issuer-discovery", &[group("system:serviceaccounts")]),
    ]
}

fn role(namespace: &str, name: &str, lines: &[&str]) -> Object {
    let mut role = object("Role", namespace, name);
    role["rules"] = json!(parse_rules(lines));
    role
}

fn binding(namespace: &str, name: &str, role: &str, subjects: &[Value]) -> Object {
    let mut binding = object("RoleBinding", namespace, name);
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "Role", "name": role});
    binding["subjects"] = json!(subjects);
    binding
}

fn namespaced() -> Vec<Object> {
    let (system, public) = ("kube-system", "kube-public");
    let reader = "extension-apiserver-authentication-reader";
    let manager_lock = "system::leader-locking-kube-controller-manager";
    let scheduler_lock = "system::leader-locking-kube-scheduler";
    let controller = |name: &str| format!("system:controller:{name}");
    let (signer, cloud, cleaner) =
        (controller("bootstrap-signer"), controller("cloud-provider"), controller("token-cleaner"));
    let by_manager = |name: &str| [account(name), user(CONTROLLER_MANAGER)];
    vec![
        role(system, reader, &["read core configmaps extension-apiserver-authentication"]),
        role(system, &signer, &["read core secrets"]),
        role(system, &cloud, &["create,get,list,watch core configmaps"]),
        role(system, &cleaner, &["get,list,watch,delete core secrets", EVENTS]),
        role(system, manager_lock, &["watch core configmaps", "get,update core configmaps kube-controller-manager"]),
        role(system, scheduler_lock, &["watch core configmaps", "get,update core configmaps kube-scheduler"]),
        role(public, &signer, &["read core configmaps", "update core configmaps cluster-info", EVENTS]),
        binding(system, &format!("system::{reader}"), reader, &[user(CONTROLLER_MANAGER), user(SCHEDULER)]),
        binding(system, manager_lock, manager_lock, &[user(CONTROLLER_MANAGER), account("kube-controller-manager")]),
        binding(system, scheduler_lock, scheduler_lock, &[user(SCHEDULER), account("kube-scheduler")]),
        binding(system, &signer, &signer, &by_manager("bootstrap-signer")),
        binding(system, &cloud, &cloud, &by_manager("cloud-provider")),
        binding(system, &cleaner, &cleaner, &by_manager("token-cleaner")),
        binding(public, &signer, &signer, &by_manager("bootstrap-signer")),
    ]
}

/// What of `expected` the existing object lacks: rules, selectors, subjects, labels, annotations.
pub fn reconcile(existing: &Object, expected: &Object) -> Option<Write> {
    if existing.pointer(AUTOUPDATE).is_some_and(|value| value == "false") {
        return None;
    }
    let mut wanted = existing.clone();
    if expected.get("roleRef").is_some_and(|role| existing.get("roleRef") != Some(role)) {
        let mut expected = expected.clone();
        expected["subjects"] = existing.get("subjects").cloned().unwrap_or_else(|| json!([]));
        add_missing(&mut expected, "/subjects", &items(&wanted, "/subjects"));
        return Some(Write::Recreate(expected));
    }
    for map in ["labels", "annotations"] {
        for (key, value) in expected["metadata"][map].as_object().into_iter().flatten() {
            let known = wanted.metadata_mut().entry(map).or_insert_with(|| Value::Object(Map::new()));
            if let Some(known) = known.as_object_mut() {
                known.entry(key.as_str()).or_insert_with(|| value.clone());
            }
        }
    }
    let missing = uncovered(&rules_of(existing), &rules_of(expected));
    if !missing.is_empty() {
        let rules: Vec<Rule> = rules_of(existing).into_iter().chain(missing).collect();
        wanted["rules"] = json!(rules);
    }
    match (expected.get("aggregationRule"), existing.get("aggregationRule")) {
        (None, Some(_)) => wanted["aggregationRule"] = Value::Null,
        (Some(rule), None) => wanted["aggregationRule"] = rule.clone(),
        (Some(_), Some(_)) => {
            let selectors = "/aggregationRule/clusterRoleSelectors";
            add_missing(&mut wanted, selectors, &items(expected, selectors));
        }
        (None, None) => {}
    }
    if !items(expected, "/subjects").is_empty() {
        if wanted.get("subjects").is_none() {
            wanted["subjects"] = json!([]);
        }
        add_missing(&mut wanted, "/subjects", &items(expected, "/subjects"));
    }
    (wanted != *existing).then_some(Write::Update(wanted))
}

fn items(object: &Object, pointer: &str) -> Vec<Value> {
    object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn add_missing(object: &mut Object, pointer: &str, wanted: &[Value]) {
    if let Some(list) = object.pointer_mut(pointer).and_then(Value::as_array_mut) {
        for item in wanted {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    }
}

/// Gives every role with an aggregation rule the rules of the roles it selects; returns those that changed.
/// Roles may be gathered from gathered roles, so it repeats until nothing changes.
fn aggregate(roles: &mut [Object]) -> Vec<Object> {
    let mut changed: Vec<String> = Vec::new();
    for _round in 0..roles.len() {
        let gathered: Vec<(usize, Value)> = roles
            .iter()
            .enumerate()
            .filter_map(|(position, role)| Some((position, json!(gathered_rules(role, roles)?))))
            .filter(|(position, rules)| roles[*position].get("rules").unwrap_or(&json!([])) != rules)
            .collect();
        if gathered.is_empty() {
            break;
        }
        for (position, rules) in gathered {
            roles[position]["rules"] = rules;
            changed.push(roles[position].name().to_owned());
        }
    }
    roles.iter().filter(|role| changed.iter().any(|name| name == role.name())).cloned().collect()
}

/// The rules of all roles that this one's aggregation rule selects, in the order of their names.
pub fn gathered_rules(role: &Object, roles: &[Object]) -> Option<Vec<Rule>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let mut sources: Vec<&Object> = roles
        .iter()
        .filter(|other| other.name() != role.name() && selectors.iter().any(|selector| selects(selector, other)))
        .collect();
    sources.sort_by_key(|source| source.name());
    let mut rules = Vec::new();
    for rule in sources.into_iter().flat_map(rules_of) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Some(rules)
}

fn selects(selector: &Value, role: &Object) -> bool {
    let label = |key: &str| role["metadata"]["labels"].get(key).and_then(Value::as_str);
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let is_met = |requirement: &Value| {
        let value = label(requirement.text("/key"));
        let is_listed = || items(requirement, "/values").iter().any(|wanted| wanted.as_str() == value);
        match requirement.text("/operator") {
            "In" => value.is_some() && is_listed(),
            "NotIn" => value.is_none() || !is_listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    equal.into_iter().all(|(key, wanted)| label(key) == wanted.as_str())
        && items(selector, "/matchExpressions").iter().all(is_met)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::{Cluster, parse_request, user as a_user};

    fn apply(cluster: &Cluster) -> usize {
        let writes = plan(&*cluster.view());
        for write in &writes {
            let (Write::Create(object) | Write::Update(object) | Write::Recreate(object)) = write;
            cluster.put(GROUP, resource_of(object), object.clone());
        }
        writes.len()
    }

    #[test]
    fn it_is_done_in_one_pass() {
        let cluster = Cluster::default();
        assert!(apply(&cluster) > 130);
        assert_eq!(plan(&*cluster.view()), []);
        let admin = cluster.view().get(GROUP, "clusterroles", "", "admin").unwrap();
        assert!(rules_of(&admin).iter().any(|rule| rule.resources.contains(&"rolebindings".to_owned())));
        assert!(rules_of(&admin).iter().any(|rule| rule.resources.contains(&"pods/log".to_owned())));
    }

    #[test]
    fn what_was_taken_away_comes_back_unless_protected() {
        let cluster = Cluster::default();
        apply(&cluster);
        let mut basic = objects().into_iter().find(|object| object.name() == "system:basic-user").unwrap();
        basic["rules"] = json!([]);
        cluster.put(GROUP, "clusterroles", basic.clone());
        let [Write::Update(fixed)] = &plan(&*cluster.view())[..] else { panic!("one update") };
        assert_eq!(rules_of(fixed).len(), 3);
        basic["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
        cluster.put(GROUP, "clusterroles", basic);
        assert_eq!(plan(&*cluster.view()), []);
    }

    #[test]
    fn each_identity_can_do_its_work_and_no_more() {
        let cluster = Cluster::default();
        apply(&cluster);
        let auth = cluster.auth();
        let anonymous = crate::auth::authenticate::anonymous();
        let (manager, scheduler, proxy, anyone) = (
            a_user(CONTROLLER_MANAGER, &["system:authenticated"]),
            a_user(SCHEDULER, &["system:authenticated"]),
            a_user("system:kube-proxy", &["system:authenticated"]),
            a_user("bob", &["system:authenticated"]),
        );
        let rows = [
            (&anonymous, "GET /healthz", true),
            (&anonymous, "GET /version", true),
            (&anonymous, "GET /api", false),
            (&anonymous, "GET /healthz/etcd", false),
            (&anonymous, "GET /api/v1/pods", false),
            (&anyone, "GET /apis/apps/v1", true),
            (&anyone, "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", true),
            (&anyone, "GET /api/v1/namespaces/default/pods", false),
            (&anyone, "GET /metrics", false),
            (&manager, "POST /apis/apps/v1/namespaces/a/replicasets", true),
            (&manager, "PUT /apis/apps/v1/namespaces/a/deployments/d/status", true),
            (&manager, "POST /api/v1/namespaces/a/pods", true),
            (&manager, "DELETE /apis/apps/v1/namespaces/a/replicasets/r", true),
            (&manager, "PUT /api/v1/namespaces/a/finalize", true),
            (&manager, "POST /api/v1/namespaces/a/serviceaccounts", true),
            (&manager, "POST /api/v1/namespaces/a/configmaps", true),
            (&manager, "PATCH /api/v1/nodes/n", true),
            (&manager, "POST /apis/discovery.k8s.io/v1/namespaces/a/endpointslices", true),
            (&manager, "PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager", true),
            (&manager, "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", false),
            (&manager, "POST /api/v1/namespaces/a/pods/p/exec", false),
            (&scheduler, "POST /api/v1/namespaces/a/pods/p/binding", true),
            (&scheduler, "PATCH /api/v1/namespaces/a/pods/p/status", true),
            (&scheduler, "GET /api/v1/namespaces/a/secrets", false),
            (&scheduler, "POST /api/v1/namespaces/a/pods", false),
            (&proxy, "GET /apis/discovery.k8s.io/v1/endpointslices?watch=true", true),
            (&proxy, "GET /api/v1/services", true),
            (&proxy, "GET /api/v1/pods", false),
        ];
        for (user, request, expected) in rows {
            let decision = auth.authorize(user, &parse_request(request));
            assert_eq!(decision.is_allow(), expected, "{} {request}", user.name);
        }
    }
}
