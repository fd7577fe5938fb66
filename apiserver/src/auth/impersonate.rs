//! `kubectl --as`: acting as another user, where RBAC lets one.
//!
//! Two ways lead there. The constrained modes need two rights: to be such a user (`impersonate:<mode>`), and to
//! do this very request as one (`impersonate-on:<mode>:<verb>`). The classic verb `impersonate` needs only the
//! first. Modes are tried from the narrow to the wide; a refusal names what the first one lacked.

use std::collections::BTreeMap;

use api::Status;
use http::HeaderMap;

use super::{
    Auth,
    authorize::{self, MASTERS},
    rbac::service_account_user,
};
use crate::{
    options::percent_decode,
    request::{RequestInfo, User},
};

const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";

/// A way of impersonating.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// The Node that the requesting Pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Anyone else.
    UserInfo,
    /// The verb `impersonate`, for everyone.
    Classic,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Classic];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Classic => "",
        }
    }

    fn verb(self) -> String {
        match self {
            Self::Classic => "impersonate".into(),
            constrained => format!("impersonate:{}", constrained.name()),
        }
    }

    /// Users and groups are of the core group for the classic verb.
    fn group(self) -> &'static str {
        if self == Self::Classic { "" } else { AUTHENTICATION }
    }

    fn applies_to(self, wanted: &User, requestor: &User) -> bool {
        let name_only = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node_name(&wanted.name), account_name(&wanted.name));
        match self {
            Self::AssociatedNode => {
                let own = requestor.extra.get("authentication.kubernetes.io/node-name");
                let is_own = |node: &str| own.is_some_and(|names| names.len() == 1 && names[0] == node);
                name_only && account_name(&requestor.name).is_some() && node.is_some_and(is_own)
            }
            Self::ArbitraryNode => name_only && node.is_some(),
            Self::ServiceAccount => name_only && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Classic => true,
        }
    }
}

const AUTHENTICATION: &str = "authentication.k8s.io";

fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| !name.is_empty())
}

/// Namespace and name of a ServiceAccount's user name.
pub(super) fn account_name(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let is_name = |text: &str| !text.is_empty() && text.chars().all(plain);
    (is_name(namespace) && is_name(name)).then_some((namespace, name))
}

impl Auth {
    /// The user that the request is made as. 403 without the right to impersonate, 400 for headers that make
    /// no sense. The caller must drop the headers before anything else sees them.
    pub fn impersonate(&self, requestor: User, request: &RequestInfo, headers: &HeaderMap) -> Result<User, Status> {
        let Some(wanted) = wanted_user(headers)? else { return Ok(requestor) };
        let mut refusal = None;
        for mode in MODES.into_iter().filter(|mode| mode.applies_to(&wanted, &requestor)) {
            match self.impersonate_by(mode, &requestor, &wanted, request) {
                Ok(()) => {
                    tracing::debug!(requestor = requestor.name, user = wanted.name, "impersonation");
                    return Ok(with_fixed_groups(wanted, mode));
                }
                Err(status) => refusal = refusal.or(Some(status)),
            }
        }
        Err(refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }

    fn impersonate_by(&self, mode: Mode, by: &User, wanted: &User, request: &RequestInfo) -> Result<(), Status> {
        if mode != Mode::Classic {
            let verb = format!("impersonate-on:{}:{}", mode.name(), request.verb);
            self.require(by, &RequestInfo { verb, ..request.clone() })?;
        }
        let ask = |group: &str, resource: &str, name: &str| RequestInfo {
            verb: mode.verb(),
            is_resource: true,
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            name: name.into(),
            ..RequestInfo::default()
        };
        self.require(by, &ask_for_name(mode, &wanted.name, &ask))?;
        if !wanted.uid.is_empty() {
            self.require(by, &ask(AUTHENTICATION, "uids", &wanted.uid))?;
        }
        for group in &wanted.groups {
            let asked = ask(mode.group(), "groups", group);
            if mode != Mode::Classic && group == MASTERS {
                let why = "impersonating the system:masters group is not allowed";
                return Err(authorize::forbidden(by, &asked, why));
            }
            self.require(by, &asked)?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                let subresource = key.clone();
                self.require(by, &RequestInfo { subresource, ..ask(AUTHENTICATION, "userextras", value) })?;
            }
        }
        Ok(())
    }

    fn require(&self, user: &User, request: &RequestInfo) -> Result<(), Status> {
        self.authorize(user, request).into_result(user, request)
    }
}

fn ask_for_name(mode: Mode, user: &str, ask: &dyn Fn(&str, &str, &str) -> RequestInfo) -> RequestInfo {
    if let Some((namespace, name)) = account_name(user) {
        return RequestInfo { namespace: namespace.into(), ..ask(mode.group(), "serviceaccounts", name) };
    }
    match (mode, node_name(user)) {
        // A right to be one's own node is a right to be any node that one may come to run on.
        (Mode::AssociatedNode, _) => ask(mode.group(), "nodes", "*"),
        (Mode::ArbitraryNode, Some(node)) => ask(mode.group(), "nodes", node),
        _ => ask(mode.group(), "users", user),
    }
}

/// The groups that come with the name; a ServiceAccount's and a node's are fixed unless groups were asked for.
fn with_fixed_groups(mut user: User, mode: Mode) -> User {
    if user.groups.is_empty() {
        if let Some((namespace, _)) = account_name(&user.name) {
            user.groups = service_account_groups(namespace);
        } else if matches!(mode, Mode::AssociatedNode | Mode::ArbitraryNode) {
            user.groups = vec!["system:nodes".into()];
        }
    }
    let missing = match user.name.as_str() {
        ANONYMOUS => UNAUTHENTICATED,
        _ if user.is_in(UNAUTHENTICATED) => return user,
        _ => AUTHENTICATED,
    };
    if !user.is_in(missing) {
        user.groups.push(missing.into());
    }
    user
}

/// The groups that every ServiceAccount of the namespace is in.
pub(super) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

const EXTRA_PREFIX: &str = "impersonate-extra-";

fn wanted_user(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let first = |name: &str| texts(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            extra.entry(percent_decode(key)).or_default().extend(texts(name.as_str()));
        }
    }
    let user = User {
        name: first("impersonate-user"),
        uid: first("impersonate-uid"),
        groups: texts("impersonate-group"),
        extra,
    };
    match (user.name.is_empty(), user == User::default()) {
        (true, true) => Ok(None),
        (true, false) => Err(Status::bad_request(format!("requested {user:?} without impersonating a user name"))),
        (false, _) => Ok(Some(user)),
    }
}

/// Whether the name is one of the headers that [`Auth::impersonate`] reads.
pub fn is_impersonation_header(name: &http::HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "impersonate-user" | "impersonate-group" | "impersonate-uid") || name.starts_with(EXTRA_PREFIX)
}

/// `system:serviceaccount:…` of a namespace and name, as a user with its groups.
pub(super) fn service_account(namespace: &str, name: &str, uid: &str) -> User {
    User {
        name: service_account_user(namespace, name),
        uid: uid.into(),
        groups: service_account_groups(namespace),
        ..User::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{Cluster, parse_request, user};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn act(auth: &Auth, by: &User, pairs: &[(&'static str, &str)]) -> Result<User, String> {
        let request = parse_request("GET /api/v1/namespaces/a/pods");
        auth.impersonate(by.clone(), &request, &headers(pairs)).map_err(|status| status.message)
    }

    #[test]
    fn masters_may_be_anyone() {
        let auth = Cluster::default().auth();
        let root = user("root", &["system:masters"]);
        assert_eq!(act(&auth, &root, &[]).unwrap(), root);
        let bob = act(
            &auth,
            &root,
            &[
                ("impersonate-user", "bob"),
                ("impersonate-group", "team"),
                ("impersonate-extra-example.com%2fscope", "x"),
            ],
        )
        .unwrap();
        assert_eq!(bob.groups, ["team", "system:authenticated"]);
        assert_eq!(bob.extra["example.com/scope"], ["x"]);
        let robot = act(&auth, &root, &[("impersonate-user", "system:serviceaccount:a:robot")]).unwrap();
        assert_eq!(robot.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        let nobody = act(&auth, &root, &[("impersonate-user", "system:anonymous")]).unwrap();
        assert_eq!(nobody.groups, ["system:unauthenticated"]);
        assert!(act(&auth, &root, &[("impersonate-group", "team")]).unwrap_err().contains("without impersonating"));
    }

    #[test]
    fn others_need_the_right() {
        let cluster = Cluster::default();
        let auth = cluster.auth();
        let alice = user("alice", &[]);
        assert_eq!(
            act(&auth, &alice, &[("impersonate-user", "bob")]).unwrap_err(),
            "pods is forbidden: User \"alice\" cannot impersonate-on:user-info:list resource \"pods\" in API group \
             \"\" in the namespace \"a\""
        );
        cluster.bind(
            "alice",
            json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"],
            "resourceNames": ["bob"]}]),
        );
        assert_eq!(act(&auth, &alice, &[("impersonate-user", "bob")]).unwrap().name, "bob");
        assert!(act(&auth, &alice, &[("impersonate-user", "bob"), ("impersonate-group", "g")]).is_err());
        assert!(act(&auth, &alice, &[("impersonate-user", "carol")]).is_err());
    }

    #[test]
    fn constrained_rights_hold_for_one_verb() {
        let cluster = Cluster::default();
        cluster.bind(
            "alice",
            json!([
            {"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["users"]},
            {"verbs": ["impersonate-on:user-info:list"], "apiGroups": [""], "resources": ["pods"]}]),
        );
        let auth = cluster.auth();
        let alice = user("alice", &[]);
        assert_eq!(act(&auth, &alice, &[("impersonate-user", "bob")]).unwrap().name, "bob");
        let get = parse_request("GET /api/v1/namespaces/a/pods/p");
        assert!(auth.impersonate(alice, &get, &headers(&[("impersonate-user", "bob")])).is_err());
    }
}
