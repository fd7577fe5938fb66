//! Who may use the node's server: asked of the API server, remembered for a while.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use clock::Clock;
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use tracing::warn;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Verdicts that are remembered; the oldest go first.
const VERDICTS_MAX: usize = 1024;
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);

/// The client's certificate (DER), verified by the TLS layer. Put into requests by it alone.
#[derive(Clone)]
pub struct PeerCertificate(pub Vec<u8>);

#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct User {
    name: String,
    groups: Vec<String>,
}

type Question = (User, &'static str, &'static str);

/// Authentication and authorization by the API server.
pub struct Auth {
    client: Client,
    node_name: String,
    clock: Clock,
    verdicts: Mutex<BTreeMap<Question, (bool, Timestamp)>>,
}

impl Auth {
    pub fn new(client: Client, node_name: &str) -> Self {
        Self { client, node_name: node_name.into(), clock: Clock::machine(), verdicts: Mutex::default() }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn authenticate(&self, certificate: Option<&PeerCertificate>, headers: &HeaderMap) -> Option<User> {
        if let Some(PeerCertificate(der)) = certificate {
            return user_of(der);
        }
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.to_owned();
        let review =
            TokenReview { spec: TokenReviewSpec { token, ..TokenReviewSpec::default() }, ..TokenReview::default() };
        let status = Api::all(self.client.clone()).create(&PostParams::default(), &review).await.ok()?.status?;
        let user = status.user.filter(|_| status.authenticated == Some(true))?;
        Some(User { name: user.username?, groups: user.groups.unwrap_or_default() })
    }

    async fn authorize(&self, user: User, verb: &'static str, subresource: &'static str) -> bool {
        let question = (user, verb, subresource);
        let now = self.now();
        if let Some((verdict, until)) = self.verdicts.lock().get(&question)
            && *until > now
        {
            return *verdict;
        }
        let review = self.review(&question);
        let verdict = match Api::all(self.client.clone()).create(&PostParams::default(), &review).await {
            Ok(answer) => answer.status.is_some_and(|status| status.allowed),
            Err(error) => {
                warn!(%error, "cannot ask the API server who may use this node's server");
                return false;
            }
        };
        let mut verdicts = self.verdicts.lock();
        verdicts.retain(|_, (_, until)| *until > now);
        if verdicts.len() < VERDICTS_MAX {
            verdicts.insert(question, (verdict, now + if verdict { ALLOWED_FOR } else { DENIED_FOR }));
        }
        verdict
    }

    fn review(&self, (user, verb, subresource): &Question) -> SubjectAccessReview {
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some((*verb).into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some((*subresource).into()),
                    name: Some(self.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }
}

/// Common name and organisations of a certificate.
fn user_of(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
    let groups = groups.chain(["system:authenticated".to_owned()]).collect();
    Some(User { name, groups })
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

/// The subresource of `nodes` that guards a path, as upstream maps them.
fn subresource_of(path: &str) -> &'static str {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        _ => "proxy",
    }
}

/// Lets a request pass that the API server allows.
pub async fn require(State(auth): State<Arc<Auth>>, request: Request, next: Next) -> Response {
    let Some(user) = auth.authenticate(request.extensions().get(), request.headers()).await else {
        return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    };
    let (verb, subresource) = (verb_of(request.method()), subresource_of(request.uri().path()));
    let name = user.name.clone();
    if !auth.authorize(user, verb, subresource).await {
        let node = &auth.node_name;
        let message = format!(
            "Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresource}], node={node})"
        );
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}
