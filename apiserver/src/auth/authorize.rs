//! May this user do this? The chain of authorizers, and the sentence of a refusal.

use api::{Status, status::GroupResource};

use super::Auth;
use crate::request::{RequestInfo, User};

/// Members may do anything: the certificate of whoever made the cluster.
pub const MASTERS: &str = "system:masters";

/// What an authorizer says, and why. Reasons may be empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    Allow(String),
    /// No later authorizer is asked.
    Deny(String),
    /// A later authorizer may allow it; at the end of the chain it is a refusal.
    NoOpinion(String),
}

impl Decision {
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    pub fn reason(&self) -> &str {
        let (Self::Allow(reason) | Self::Deny(reason) | Self::NoOpinion(reason)) = self;
        reason
    }

    /// 403 with upstream's sentence unless allowed.
    pub fn into_result(self, user: &User, request: &RequestInfo) -> Result<(), Status> {
        match self {
            Self::Allow(_) => Ok(()),
            Self::Deny(reason) | Self::NoOpinion(reason) => Err(forbidden(user, request, &reason)),
        }
    }
}

impl Auth {
    /// Asks `system:masters`, the Node authorizer, then RBAC.
    pub fn authorize(&self, user: &User, request: &RequestInfo) -> Decision {
        if user.is_in(MASTERS) {
            return Decision::Allow(String::new());
        }
        let node = match self.node.decide(user, request) {
            Decision::NoOpinion(reason) => reason,
            decided => return decided,
        };
        match self.rbac.decide(user, request) {
            Decision::NoOpinion(rbac) => {
                let reasons: Vec<String> = [node, rbac].into_iter().filter(|reason| !reason.is_empty()).collect();
                Decision::NoOpinion(reasons.join("\n"))
            }
            decided => decided,
        }
    }
}

/// `pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
pub fn forbidden(user: &User, request: &RequestInfo, reason: &str) -> Status {
    let (name, RequestInfo { verb, group, namespace, subresource, path, .. }) = (&user.name, request);
    let resource = match subresource.as_str() {
        "" => request.resource.clone(),
        subresource => format!("{}/{subresource}", request.resource),
    };
    let sentence = match (request.is_resource, namespace.as_str()) {
        (false, _) => format!("User {name:?} cannot {verb} path {path:?}"),
        (true, "") => {
            format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} at the cluster scope")
        }
        (true, namespace) => format!(
            "User {name:?} cannot {verb} resource {resource:?} in API group {group:?} in the namespace {namespace:?}"
        ),
    };
    // Upstream keeps the sentence from looking like HTML; the reason is its own text.
    let sentence = sentence.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let why = if reason.is_empty() { sentence } else { format!("{sentence}: {reason}") };
    Status::forbidden(GroupResource { group, resource: &request.resource }, &request.name, why)
}

#[cfg(test)]
mod tests {
    use crate::auth::testing::{Cluster, parse_request, user};

    #[test]
    fn refusals_read_as_upstreams() {
        let auth = Cluster::default().auth();
        let rows = [
            (
                "GET /api/v1/namespaces/default/pods",
                "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \
                 \"default\"",
            ),
            (
                "GET /apis/apps/v1/deployments",
                "deployments.apps is forbidden: User \"x\" cannot list resource \"deployments\" in API group \"apps\" \
                 at the cluster scope",
            ),
            (
                "POST /api/v1/namespaces/a/pods/p/exec",
                "pods \"p\" is forbidden: User \"x\" cannot create resource \"pods/exec\" in API group \"\" in the \
                 namespace \"a\"",
            ),
            ("GET /foo", "forbidden: User \"x\" cannot get path \"/foo\""),
        ];
        for (request, expected) in rows {
            let request = parse_request(request);
            let decision = auth.authorize(&user("x", &[]), &request);
            assert_eq!(decision.into_result(&user("x", &[]), &request).unwrap_err().message, expected);
            assert!(auth.authorize(&user("root", &["system:masters"]), &request).is_allow());
        }
    }
}
