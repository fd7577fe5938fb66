//! The cluster roles that every cluster has (upstream: `bootstrappolicy`), as a table.
//!
//! A rule is a line: `<verbs> <groups> <resources> [<names>]`, or `<verbs> <urls>`; lists are separated by
//! commas, `core` is the group of Pods, and `read`, `write` and `readwrite` stand for the usual verbs.

use super::rbac::Rule;

const READ: &str = "get,list,watch";
const WRITE: &str = "create,delete,deletecollection,patch,update";
const READ_WRITE: &str = "create,delete,deletecollection,get,list,patch,update,watch";

/// Everyone who acts tells what they did.
pub const EVENTS: &str = "create,update,patch core,events.k8s.io events";

/// Name and rules of a role.
pub type Role = (&'static str, &'static [&'static str]);

/// Reads one line of the tables. Lists come out sorted, as upstream writes them.
pub fn parse_rule(line: &str) -> Rule {
    let mut words = line.split_ascii_whitespace();
    let mut list = || -> Vec<String> {
        let word = match words.next().unwrap_or_default() {
            "read" => READ,
            "write" => WRITE,
            "readwrite" => READ_WRITE,
            word => word,
        };
        let entries = word.split(',').filter(|entry| !entry.is_empty());
        let mut entries: Vec<String> =
            entries.map(|entry| if entry == "core" { String::new() } else { entry.to_owned() }).collect();
        entries.sort();
        entries
    };
    let (verbs, second, resources, resource_names) = (list(), list(), list(), list());
    if resources.is_empty() {
        return Rule { verbs, non_resource_urls: second, ..Rule::default() };
    }
    Rule { verbs, api_groups: second, resources, resource_names, non_resource_urls: Vec::new() }
}

pub fn parse_rules(lines: &[&str]) -> Vec<Rule> {
    lines.iter().copied().map(parse_rule).collect()
}

/// What every node may do; the Node authorizer narrows it to what concerns the node.
pub const NODE_RULES: &[&str] = &[
    "create authentication.k8s.io tokenreviews",
    "create authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews",
    "read core services",
    "create,get,list,watch core nodes",
    "update,patch core nodes/status",
    "update,patch core nodes",
    EVENTS,
    "read core pods",
    "create,delete core pods",
    "update,patch core pods/status",
    "create core pods/eviction",
    "read core secrets,configmaps",
    "get core persistentvolumeclaims,persistentvolumes",
    "get core endpoints",
    "create,get,list,watch certificates.k8s.io certificatesigningrequests",
    "get,create,update,patch,delete coordination.k8s.io leases",
    "get storage.k8s.io volumeattachments",
    "create core serviceaccounts/token",
    "get,update,patch core persistentvolumeclaims/status",
    "read storage.k8s.io csidrivers",
    "get,create,update,patch,delete storage.k8s.io csinodes",
    "read node.k8s.io runtimeclasses",
    "get resource.k8s.io resourceclaims",
    "deletecollection resource.k8s.io resourceslices",
    "get core serviceaccounts",
];

/// Gathered into `view`, `edit` and `admin`.
const VIEW: &[&str] = &[
    "read core pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status,\
     endpoints,persistentvolumeclaims,persistentvolumeclaims/status,configmaps",
    "read core limitranges,resourcequotas,bindings,pods/status,resourcequotas/status,namespaces/status,\
     replicationcontrollers/status,pods/log",
    "read core namespaces",
    "read core,events.k8s.io events",
    "read discovery.k8s.io endpointslices",
    "read apps controllerrevisions,statefulsets,statefulsets/status,statefulsets/scale,daemonsets,daemonsets/status,\
     deployments,deployments/status,deployments/scale,replicasets,replicasets/status,replicasets/scale",
    "read autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status",
    "read batch jobs,cronjobs,cronjobs/status,jobs/status",
    "read extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,\
     ingresses/status,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale,networkpolicies",
    "read policy poddisruptionbudgets,poddisruptionbudgets/status",
    "read networking.k8s.io networkpolicies,ingresses,ingresses/status",
    "read resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates",
];

const EDIT: &[&str] = &[
    "read core pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy",
    "impersonate core serviceaccounts",
    "write core pods,pods/attach,pods/proxy,pods/exec,pods/portforward",
    "create core pods/eviction",
    "write core replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/proxy,\
     persistentvolumeclaims,configmaps,secrets",
    "create core serviceaccounts/token",
    "write core,events.k8s.io events",
    "write apps statefulsets,statefulsets/scale,daemonsets,deployments,deployments/scale,deployments/rollback,\
     replicasets,replicasets/scale",
    "write autoscaling horizontalpodautoscalers",
    "write batch jobs,cronjobs",
    "write extensions daemonsets,deployments,deployments/scale,deployments/rollback,ingresses,replicasets,\
     replicasets/scale,replicationcontrollers/scale,networkpolicies",
    "write policy poddisruptionbudgets",
    "write networking.k8s.io networkpolicies,ingresses",
    "readwrite coordination.k8s.io leases",
    "write resource.k8s.io resourceclaims,resourceclaimtemplates",
];

const ADMIN: &[&str] = &[
    "create authorization.k8s.io localsubjectaccessreviews",
    "readwrite rbac.authorization.k8s.io roles,rolebindings",
];

const MONITORING: &[&str] = &[
    "get /metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*,/flagz,/statusz",
    "get core nodes/metrics",
];

const KUBE_CONTROLLER_MANAGER: &[&str] = &[
    EVENTS,
    "create coordination.k8s.io leases",
    "get,update coordination.k8s.io leases kube-controller-manager",
    "create core secrets,serviceaccounts",
    "delete core secrets",
    "get core namespaces,secrets,serviceaccounts,configmaps",
    "update core secrets,serviceaccounts",
    "create authentication.k8s.io tokenreviews",
    "create authorization.k8s.io subjectaccessreviews",
    "list,watch * *",
    "create core serviceaccounts/token",
];

const KUBE_SCHEDULER: &[&str] = &[
    EVENTS,
    "create coordination.k8s.io leases",
    "get,update,list,watch coordination.k8s.io leases kube-scheduler",
    "readwrite coordination.k8s.io leasecandidates",
    "read core nodes",
    "get,list,watch,delete core pods",
    "create core pods/binding,bindings",
    "patch,update core pods/status",
    "read core services,replicationcontrollers",
    "read apps,extensions replicasets",
    "read apps statefulsets",
    "read policy poddisruptionbudgets",
    "read core persistentvolumeclaims,persistentvolumes",
    "create authentication.k8s.io tokenreviews",
    "create authorization.k8s.io subjectaccessreviews",
    "read storage.k8s.io csinodes",
    "read storage.k8s.io volumeattachments",
    "read core namespaces",
    "read storage.k8s.io csidrivers",
    "read storage.k8s.io csistoragecapacities",
    "read resource.k8s.io deviceclasses",
    "get,list,watch,patch,update resource.k8s.io resourceclaims",
    "get,list,watch,patch,update resource.k8s.io resourceclaims/status",
    "update core pods/finalizers",
    "read resource.k8s.io resourceslices",
    "create,delete resource.k8s.io resourceclaims",
    "update,patch resource.k8s.io resourceclaims/binding",
];

/// Roles for users and components. `admin`, `edit` and `view` are gathered from the `aggregate-to` roles.
pub const CLUSTER_ROLES: &[Role] = &[
    ("cluster-admin", &["* * *", "* *"]),
    (
        "system:discovery",
        &["get /livez,/readyz,/healthz,/version,/version/,/openapi,/openapi/*,/api,/api/*,/apis,/apis/*"],
    ),
    ("system:monitoring", MONITORING),
    (
        "system:basic-user",
        &[
            "create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews",
            "create authentication.k8s.io selfsubjectreviews",
        ],
    ),
    ("system:public-info-viewer", &["get /livez,/readyz,/healthz,/version,/version/"]),
    ("system:aggregate-to-admin", ADMIN),
    ("system:aggregate-to-edit", EDIT),
    ("system:aggregate-to-view", VIEW),
    ("system:heapster", &["read core events,pods,nodes,namespaces", "read extensions deployments"]),
    ("system:node", NODE_RULES),
    ("system:node-problem-detector", &["get core nodes", "patch core nodes/status", EVENTS]),
    ("system:node-bootstrapper", &["create,get,list,watch certificates.k8s.io certificatesigningrequests"]),
    (
        "system:auth-delegator",
        &["create authentication.k8s.io tokenreviews", "create authorization.k8s.io subjectaccessreviews"],
    ),
    ("system:kube-aggregator", &["read core services,endpoints"]),
    ("system:kube-controller-manager", KUBE_CONTROLLER_MANAGER),
    ("system:kube-dns", &["list,watch core endpoints,services"]),
    (
        "system:persistent-volume-provisioner",
        &[
            "get,list,watch,create,delete core persistentvolumes",
            "get,list,watch,update core persistentvolumeclaims",
            "read storage.k8s.io storageclasses",
            "watch core events",
            EVENTS,
        ],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &["create certificates.k8s.io certificatesigningrequests/nodeclient"],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &["create certificates.k8s.io certificatesigningrequests/selfnodeclient"],
    ),
    (
        "system:volume-scheduler",
        &[
            "get,list,watch,update,patch core persistentvolumes",
            "read storage.k8s.io storageclasses",
            "get,list,watch,update,patch core persistentvolumeclaims",
        ],
    ),
    (
        "system:certificates.k8s.io:legacy-unknown-approver",
        &["approve certificates.k8s.io signers kubernetes.io/legacy-unknown"],
    ),
    (
        "system:certificates.k8s.io:kubelet-serving-approver",
        &["approve certificates.k8s.io signers kubernetes.io/kubelet-serving"],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &["approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client"],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &["approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client-kubelet"],
    ),
    (
        "system:service-account-issuer-discovery",
        &["get /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/"],
    ),
    (
        "system:kubelet-api-admin",
        &[
            "read core nodes",
            "proxy core nodes",
            "* core nodes/proxy,nodes/metrics,nodes/stats,nodes/log",
            "* core nodes/pods,nodes/healthz,nodes/configz",
        ],
    ),
    (
        "system:node-proxier",
        &[
            "list,watch core services,endpoints",
            "read core nodes",
            EVENTS,
            "list,watch networking.k8s.io servicecidrs",
            "list,watch discovery.k8s.io endpointslices",
        ],
    ),
    ("system:kube-scheduler", KUBE_SCHEDULER),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::controller_roles::CONTROLLER_ROLES;

    #[test]
    fn lines_read_as_rules() {
        let rule = parse_rule("read core,apps pods,deployments x");
        assert_eq!(rule.verbs, ["get", "list", "watch"]);
        assert_eq!(rule.api_groups, ["", "apps"]);
        assert_eq!(rule.resources, ["deployments", "pods"]);
        assert_eq!(rule.resource_names, ["x"]);
        assert_eq!(parse_rule("get /api,/api/*").non_resource_urls, ["/api", "/api/*"]);
    }

    #[test]
    fn every_line_of_the_tables_is_a_rule() {
        for (name, lines) in CLUSTER_ROLES.iter().chain(CONTROLLER_ROLES) {
            for line in *lines {
                let (words, rule) = (line.split_ascii_whitespace().count(), parse_rule(line));
                assert!((2..=4).contains(&words) && !line.contains(", "), "{name}: {line}");
                assert!(words > 2 || rule.non_resource_urls.iter().all(|url| url.starts_with(['/', '*'])), "{line}");
                assert!(!rule.verbs.iter().any(|verb| matches!(verb.as_str(), "read" | "write")), "{name}: {line}");
            }
        }
    }
}
