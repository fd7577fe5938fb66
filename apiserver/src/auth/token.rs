//! ServiceAccount tokens: minting, verifying, and the documents by which others verify them.
//!
//! A token is a JWT, bound to a ServiceAccount and perhaps to a Pod, Secret or Node. The signature says that
//! this cluster made it; whether what it is bound to still exists is asked on every use.

use std::collections::BTreeMap;

use api::{Errors, Object, Path, Status, object::ObjectExt, status::GroupResource};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use k8s_openapi::{
    api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Auth, impersonate::service_account, rbac::service_account_user};
use crate::request::User;

/// Clocks may differ by this much; also, what was deleted this long ago gives no access any more.
const LEEWAY_SECONDS: i64 = 60;
const LIFETIME_SECONDS_MIN: i64 = 600;
const LIFETIME_SECONDS_MAX: i64 = 1 << 32;
const LIFETIME_SECONDS_DEFAULT: i64 = 3600;
/// What the ServiceAccount admission asks for in Pods. Such a token lives a year, for programs that read it
/// only once, and says when it should have been renewed.
const WARN_AFTER_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Whose tokens these are and for whom.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// An `https` URL; `iss` of every token.
    pub issuer: String,
    /// What tokens are for unless they say otherwise; the API server itself.
    pub audiences: Vec<String>,
    /// Where `/openid/v1/jwks` is found from outside: an `https` URL.
    pub jwks_uri: String,
}

impl TokenConfig {
    /// Upstream's usual issuer. `host` is the advertised address and port of the API server.
    pub fn in_cluster(host: &str) -> Self {
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        Self { audiences: vec![issuer.clone()], issuer, jwks_uri: format!("https://{host}/openid/v1/jwks") }
    }
}

/// One public key, as the key set publishes it.
#[derive(Clone)]
struct PublicKey {
    verifying: DecodingKey,
    jwk: Value,
}

/// The keys that sign and verify ServiceAccount tokens (P-256, ES256).
#[derive(Clone)]
pub struct ServiceAccountKeys {
    signing: EncodingKey,
    signing_id: String,
    /// By key id: the signing key and older ones.
    verifying: BTreeMap<String, PublicKey>,
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the ServiceAccount signing key: {0}")]
pub struct KeyError(String);

impl ServiceAccountKeys {
    /// From P-256 private keys in PEM. The first signs, all verify: put a new key in front to rotate.
    pub fn from_pems(pems: &[String]) -> Result<Self, KeyError> {
        let (mut verifying, mut signing) = (BTreeMap::new(), None);
        for pem in pems {
            let pair = KeyPair::from_pem(pem).map_err(|error| KeyError(error.to_string()))?;
            let point = pair.public_key_raw();
            if pair.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 || point.len() != 65 {
                return Err(KeyError("it is not an EC key on the curve P-256".into()));
            }
            let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
            let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
            let jwk = json!({"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256",
                "x": coordinate(1..33), "y": coordinate(33..65)});
            verifying.insert(id.clone(), PublicKey { verifying: DecodingKey::from_ec_der(point), jwk });
            signing.get_or_insert_with(|| (EncodingKey::from_ec_der(pair.serialized_der()), id));
        }
        let (signing, signing_id) = signing.ok_or_else(|| KeyError("there is none".into()))?;
        Ok(Self { signing, signing_id, verifying })
    }

    fn sign(&self, claims: &Claims) -> Result<String, Status> {
        let header = Header { typ: None, kid: Some(self.signing_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.signing)
            .map_err(|error| Status::internal(format!("failed to generate token: {error}")))
    }

    /// `Ok(None)`: not one of this issuer's tokens. Looks at the signature and the issuer only.
    pub(super) fn verify(&self, token: &str, issuer: &str) -> Result<Option<Claims>, String> {
        if unverified_issuer(token).as_deref() != Some(issuer) {
            return Ok(None);
        }
        let Ok(header) = jsonwebtoken::decode_header(token) else { return Ok(None) };
        let mut rules = Validation::new(Algorithm::ES256);
        // Times and audiences are judged by `Auth`, with the injected clock.
        (rules.validate_exp, rules.validate_aud) = (false, false);
        rules.required_spec_claims.clear();
        let keys = self.verifying.iter().filter(|(id, _)| header.kid.as_ref().is_none_or(|wanted| wanted == *id));
        let mut error = "invalid signature, no keys found".to_owned();
        for (_, key) in keys {
            match jsonwebtoken::decode::<Claims>(token, &key.verifying, &rules) {
                Ok(token) => return Ok(Some(token.claims)),
                Err(why) => error = why.to_string(),
            }
        }
        Err(error)
    }
}

fn unverified_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    payload["iss"].as_str().filter(|_| parts.next().is_none()).map(str::to_owned)
}

/// The payload of a token; times in seconds since 1970.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    pub nbf: i64,
    pub sub: String,
}

/// What a token is bound to.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Bound {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Reference {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl Reference {
    fn to(object: &Object) -> Self {
        Self { name: object.name().into(), uid: object.uid().into() }
    }
}

fn bound_to_nothing(account: &Object) -> Bound {
    Bound { namespace: account.namespace().into(), serviceaccount: Reference::to(account), ..Bound::default() }
}

impl Auth {
    /// The token subresource: a TokenRequest in, the same with its status out.
    pub fn create_token(&self, service_account: &Object, request: Object) -> Result<Object, Status> {
        let mut request: TokenRequest = serde_json::from_value(request)
            .map_err(|error| Status::bad_request(format!("the object provided is not a TokenRequest: {error}")))?;
        let now = self.clock.now();
        let (audiences, requested) = self.complete(&mut request, service_account, now)?;
        let bound = match request.spec.as_ref().and_then(|spec| spec.bound_object_ref.as_ref()) {
            Some(reference) => self.bind(service_account, reference)?,
            None => bound_to_nothing(service_account),
        };
        let for_us = audiences.iter().all(|audience| self.tokens.audiences.contains(audience));
        let is_extended = bound.pod.is_some() && requested == WARN_AFTER_SECONDS && for_us;
        let issued = now.as_second();
        let claims = Claims {
            aud: audiences,
            exp: issued + if is_extended { EXTENDED_SECONDS } else { requested },
            iat: issued,
            iss: self.tokens.issuer.clone(),
            jti: self.chance.uuid().to_string(),
            nbf: issued,
            sub: service_account_user(service_account.namespace(), service_account.name()),
            bound: Bound { warnafter: is_extended.then_some(issued + requested), ..bound },
        };
        let expiration = Timestamp::from_second(issued + requested).map_err(Status::internal)?;
        request.status = Some(TokenRequestStatus {
            token: Some(self.keys.sign(&claims)?),
            expiration_timestamp: Some(Time(expiration)),
        });
        serde_json::to_value(request).map_err(Status::internal)
    }

    /// Checks the request against the ServiceAccount and fills in what it leaves out. Returns the audiences and
    /// the lifetime in seconds.
    fn complete(
        &self,
        request: &mut TokenRequest,
        account: &Object,
        now: Timestamp,
    ) -> Result<(Vec<String>, i64), Status> {
        let (meta, mut errors) = (&mut request.metadata, Errors::default());
        let path = Path::new("metadata");
        if let Some(name) = meta.name.as_deref().filter(|name| !name.is_empty() && *name != account.name()) {
            errors.invalid(&path.child("name"), name, "must match the service account name if specified");
        } else if let Some(of) = meta.namespace.as_deref().filter(|of| !of.is_empty() && *of != account.namespace()) {
            errors.invalid(&path.child("namespace"), of, "must match the service account namespace if specified");
        }
        if !errors.is_empty() {
            return Err(Status::invalid(GROUP, "TokenRequest", account.name(), errors));
        }
        if let Some(uid) = meta.uid.as_deref().filter(|uid| !uid.is_empty() && *uid != account.uid()) {
            let why = format!(
                "the UID in the token request ({uid}) does not match the UID of the service account ({})",
                account.uid()
            );
            return Err(Status::conflict(
                GroupResource { group: GROUP, resource: "TokenRequest" },
                account.name(),
                &why,
            ));
        }
        meta.name = Some(account.name().into());
        meta.namespace = Some(account.namespace().into());
        meta.uid = Some(account.uid().into());
        meta.creation_timestamp = Some(Time(now));
        let spec = request.spec.get_or_insert_default();
        let audiences = spec.audiences.take().filter(|audiences| !audiences.is_empty());
        let audiences = spec.audiences.insert(audiences.unwrap_or_else(|| self.tokens.audiences.clone())).clone();
        let seconds = *spec.expiration_seconds.get_or_insert(LIFETIME_SECONDS_DEFAULT);
        let path = Path::new("spec").child("expirationSeconds");
        if seconds < LIFETIME_SECONDS_MIN {
            errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
        } else if seconds > LIFETIME_SECONDS_MAX {
            errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        if errors.is_empty() {
            Ok((audiences, seconds))
        } else {
            Err(Status::invalid(GROUP, "TokenRequest", "", errors))
        }
    }

    fn bind(&self, account: &Object, reference: &BoundObjectReference) -> Result<Bound, Status> {
        let name = reference.name.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or_default();
        let namespace = account.namespace();
        let find = |resource: &str, namespace: &str| {
            let found = self.view.get("", resource, namespace, name);
            found.ok_or_else(|| Status::not_found(GroupResource { group: "", resource }, name))
        };
        let mut bound = bound_to_nothing(account);
        let is_core = matches!(reference.api_version.as_deref(), None | Some("" | "v1"));
        let object = match kind {
            "Pod" if is_core => {
                let pod = find("pods", namespace)?;
                if pod.text("/spec/serviceAccountName") != account.name() {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        account.name()
                    )));
                }
                bound.pod = Some(Reference::to(&pod));
                bound.node = self.node_of_pod(&pod);
                pod
            }
            "Secret" if is_core => {
                let secret = find("secrets", namespace)?;
                bound.secret = Some(Reference::to(&secret));
                secret
            }
            "Node" if is_core => {
                let node = find("nodes", "")?;
                bound.node = Some(Reference::to(&node));
                node
            }
            _ => {
                let version = reference.api_version.as_deref().unwrap_or_default();
                return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
            }
        };
        match reference.uid.as_deref() {
            Some(uid) if !uid.is_empty() && uid != object.uid() => {
                let why = format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record. The object might \
                     have been deleted and then recreated"
                );
                Err(Status::conflict(GroupResource { group: "", resource: kind }, name, &why))
            }
            _ => Ok(bound),
        }
    }

    /// Where the Pod runs, if it does; the name alone where the Node is unknown.
    fn node_of_pod(&self, pod: &Object) -> Option<Reference> {
        let name = Some(pod.text("/spec/nodeName")).filter(|name| !name.is_empty())?;
        let node = self.view.get("", "nodes", "", name);
        Some(node.map_or_else(|| Reference { name: name.into(), uid: String::new() }, |node| Reference::to(&node)))
    }

    /// The user that a token with a good signature stands for, if what it is bound to still exists.
    pub(super) fn bound_user(&self, claims: &Claims) -> Result<User, String> {
        let now = self.clock.now().as_second();
        if now > claims.exp + LEEWAY_SECONDS {
            return Err("service account token has expired".into());
        }
        if now + LEEWAY_SECONDS < claims.nbf {
            return Err("service account token is not valid yet".into());
        }
        if now + LEEWAY_SECONDS < claims.iat {
            return Err("service account token is issued in the future".into());
        }
        let Bound { namespace, node, pod, secret, serviceaccount: account, .. } = &claims.bound;
        self.still_exists("serviceaccounts", "service account", namespace, account)?;
        if let Some(secret) = secret {
            self.still_exists("secrets", "secret", namespace, secret)?;
        }
        if let Some(pod) = pod {
            self.still_exists("pods", "pod", namespace, pod)?;
        } else if let Some(node) = node {
            self.still_exists("nodes", "node", "", node)?;
        }
        let mut user = service_account(namespace, &account.name, &account.uid);
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if !claims.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", claims.jti));
        }
        if let Some(pod) = pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        Ok(user)
    }

    /// With the same uid, and not deleted longer than the leeway ago.
    fn still_exists(&self, resource: &str, what: &str, namespace: &str, wanted: &Reference) -> Result<(), String> {
        let Some(object) = self.view.get("", resource, namespace, &wanted.name) else {
            return Err(match resource {
                "serviceaccounts" => format!("serviceaccounts {:?} not found", wanted.name),
                _ => "service account token has been invalidated".into(),
            });
        };
        if object.uid() != wanted.uid {
            let (found, claim) = (object.uid(), &wanted.uid);
            return Err(match resource {
                "serviceaccounts" => format!("service account UID ({found}) does not match claim ({claim})"),
                _ => format!("{what} UID ({found}) does not match service account {what} ref claim ({claim})"),
            });
        }
        let deleted: Option<Timestamp> = object.text("/metadata/deletionTimestamp").parse().ok();
        if deleted.is_some_and(|at| at.as_second() < self.clock.now().as_second() - LEEWAY_SECONDS) {
            return Err(match resource {
                "serviceaccounts" => format!("service account {namespace}/{} has been deleted", wanted.name),
                _ => "service account token has been invalidated".into(),
            });
        }
        Ok(())
    }

    /// For `/.well-known/openid-configuration` (`application/json`).
    pub fn openid_configuration(&self) -> Value {
        json!({
            "issuer": self.tokens.issuer,
            "jwks_uri": self.tokens.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// For `/openid/v1/jwks` (`application/jwk-set+json`).
    pub fn jwks(&self) -> Value {
        json!({"keys": self.keys.verifying.values().map(|key| &key.jwk).collect::<Vec<_>>()})
    }
}

const GROUP: &str = "authentication.k8s.io";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::testing::Cluster;

    fn account() -> Object {
        json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u1"}})
    }

    fn cluster() -> Cluster {
        let cluster = Cluster::default();
        cluster.put("", "serviceaccounts", account());
        cluster.put("", "nodes", json!({"metadata": {"name": "n1", "uid": "u3"}}));
        cluster.put(
            "",
            "pods",
            json!({"metadata": {"name": "p", "namespace": "a", "uid": "u2"},
            "spec": {"serviceAccountName": "robot", "nodeName": "n1"}}),
        );
        cluster
    }

    fn payload(token: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_pods_token_names_pod_and_node_and_lives_a_year() {
        let auth = cluster().auth();
        let request = json!({"spec": {"expirationSeconds": 3607,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u2"}}});
        let answer = auth.create_token(&account(), request).unwrap();
        let claims = payload(answer["status"]["token"].as_str().unwrap());
        assert_eq!(claims["sub"], "system:serviceaccount:a:robot");
        assert_eq!(claims["aud"], json!(["https://kubernetes.default.svc.cluster.local"]));
        assert_eq!(claims["kubernetes.io"]["pod"], json!({"name": "p", "uid": "u2"}));
        assert_eq!(claims["kubernetes.io"]["node"], json!({"name": "n1", "uid": "u3"}));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), EXTENDED_SECONDS);
        assert_eq!(claims["kubernetes.io"]["warnafter"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3607);
        assert_eq!(answer["metadata"]["name"], "robot");
    }

    #[test]
    fn bad_requests_are_refused_in_upstreams_words() {
        let auth = cluster().auth();
        let rows = [
            (json!({"expirationSeconds": 5}), "may not specify a duration less than 10 minutes"),
            (json!({"boundObjectRef": {"kind": "Pod", "name": "gone"}}), "pods \"gone\" not found"),
            (json!({"boundObjectRef": {"kind": "Pod", "name": "p", "uid": "old"}}), "does not match the UID in record"),
            (json!({"boundObjectRef": {"kind": "Job", "apiVersion": "batch/v1", "name": "j"}}), "cannot bind token to"),
        ];
        for (spec, expected) in rows {
            let message = auth.create_token(&account(), json!({"spec": spec})).unwrap_err().message;
            assert!(message.contains(expected), "{message}");
        }
        let other = json!({"metadata": {"name": "other", "namespace": "a"}});
        let request = json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "p"}}});
        assert!(auth.create_token(&other, request).unwrap_err().message.contains("different serviceaccount name"));
    }

    #[test]
    fn the_key_set_names_the_signing_key() {
        let auth = cluster().auth();
        let answer = auth.create_token(&account(), json!({"spec": {}})).unwrap();
        let header = jsonwebtoken::decode_header(answer["status"]["token"].as_str().unwrap()).unwrap();
        assert_eq!(auth.jwks()["keys"][0]["kid"].as_str(), header.kid.as_deref());
    }
}
