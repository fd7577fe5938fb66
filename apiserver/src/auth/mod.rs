//! Who are you, may you. (Being written: the seam below is final; the parts arrive together.)

use std::sync::Arc;

use clock::{Chance, Clock};
use http::{HeaderMap, request::Parts};
use serde_json::Value;

use crate::{
    request::{RequestInfo, User},
    view::View,
};
use api::Status;

/// Request extension: the client's certificate in DER, its chain already verified by the TLS layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate(pub Vec<u8>);

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    NoOpinion(String),
}

impl Decision {
    /// The 403 with upstream's sentence unless allowed.
    pub fn into_result(self, user: &User, info: &RequestInfo) -> Result<(), Status> {
        let _ = (user, info);
        match self {
            Self::Allow(_) => Ok(()),
            Self::Deny(_) | Self::NoOpinion(_) => Err(Status::unauthorized()),
        }
    }
}

/// ES256 key pair that signs ServiceAccount tokens; made by `pki`.
#[derive(Clone)]
pub struct ServiceAccountKeys {}

/// Issuer and audiences of ServiceAccount tokens.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    pub issuer: String,
    pub audiences: Vec<String>,
}

/// Authentication and authorization over the watch cache.
pub struct Auth {
    _view: Arc<dyn View>,
}

impl Auth {
    pub fn new(view: Arc<dyn View>, _clock: Clock, _chance: Chance, _keys: ServiceAccountKeys, _tokens: TokenConfig) -> Self {
        Self { _view: view }
    }
    /// 401 for a bad credential; no credential at all is `system:anonymous`.
    pub async fn authenticate(&self, parts: &Parts) -> Result<User, Status> {
        Ok(parts.extensions.get::<User>().cloned().unwrap_or_default())
    }
    /// 403 without the right to.
    pub fn impersonate(&self, user: User, _headers: &HeaderMap) -> Result<User, Status> {
        Ok(user)
    }
    pub fn authorize(&self, _user: &User, _info: &RequestInfo) -> Decision {
        Decision::Allow(String::new())
    }
    /// Create and update of Role, ClusterRole, RoleBinding, ClusterRoleBinding, on the object as it would be stored.
    pub fn check_grant(&self, _user: &User, _info: &RequestInfo, _new: &Value, _old: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
    /// Whether creates of this resource are answered by `review` instead of being stored.
    pub fn is_review(_group: &str, _resource: &str) -> bool {
        false
    }
    pub async fn review(&self, _user: &User, _info: &RequestInfo, object: Value) -> Result<Value, Status> {
        Ok(object)
    }
    /// The token subresource of ServiceAccount: a TokenRequest in and out.
    pub fn create_token(&self, _service_account: &Value, request: Value) -> Result<Value, Status> {
        Ok(request)
    }
    /// For `/.well-known/openid-configuration`.
    pub fn openid_configuration(&self) -> Value {
        Value::Null
    }
    /// For `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        Value::Null
    }
}
