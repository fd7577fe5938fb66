//! Who is this? Certificates, ServiceAccount tokens, bootstrap tokens, and nobody.

use std::{collections::HashMap, sync::Arc};

use api::{Object, Status, object::ObjectExt};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header, request::Parts};
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Auth, PeerCertificate, token::Claims};
use crate::request::User;

/// How many verified credentials are remembered; when full, all are forgotten.
const VERIFIED_MAX: usize = 4096;
/// Longer tokens are refused unread. The longest of ours are near 2 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a credential says once its signature was checked. Whether it holds now is asked on every use.
#[derive(Clone)]
enum Verified {
    Token(Arc<Claims>),
    Certificate(Arc<CertificateIdentity>),
}

struct CertificateIdentity {
    user: User,
    not_before: i64,
    not_after: i64,
}

/// Credentials whose signature is known to be good, by SHA-256. Checking a signature costs a thousand times
/// more than looking it up.
#[derive(Default)]
pub(super) struct VerifiedCache(Mutex<HashMap<[u8; 32], Verified>>);

impl VerifiedCache {
    fn get(&self, key: &[u8; 32]) -> Option<Verified> {
        self.0.lock().get(key).cloned()
    }

    fn put(&self, key: [u8; 32], verified: Verified) {
        let mut map = self.0.lock();
        if map.len() >= VERIFIED_MAX {
            map.clear();
        }
        map.insert(key, verified);
    }
}

/// `system:anonymous`.
pub fn anonymous() -> User {
    User { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..User::default() }
}

fn authenticated(mut user: User) -> User {
    if !user.is_in("system:authenticated") {
        user.groups.push("system:authenticated".into());
    }
    user
}

impl Auth {
    /// A [`User`] extension (requests made in this process), else the client certificate, else the bearer
    /// token, else anonymous. 401 for a credential that does not hold.
    pub async fn authenticate(&self, parts: &Parts) -> Result<User, Status> {
        if let Some(user) = parts.extensions.get::<User>() {
            return Ok(user.clone());
        }
        let certificate = parts.extensions.get::<PeerCertificate>().map(|peer| self.certificate_user(&peer.0));
        let mut refusal = match certificate {
            Some(Ok(Some(user))) => return Ok(authenticated(user)),
            Some(Err(why)) => Some(why),
            Some(Ok(None)) | None => None,
        };
        if let Some(token) = bearer_token(&parts.headers) {
            match self.token_user(token, &self.tokens.audiences) {
                Ok((user, _)) => return Ok(authenticated(user)),
                Err(why) => refusal = Some(why),
            }
        }
        match refusal {
            None => Ok(anonymous()),
            Some(why) => {
                tracing::info!(why, path = parts.uri.path(), "unable to authenticate the request");
                Err(Status::unauthorized())
            }
        }
    }

    /// The subject: CN is the user, every O a group. `None` without a CN.
    fn certificate_user(&self, der: &[u8]) -> Result<Option<User>, String> {
        let key: [u8; 32] = Sha256::digest(der).into();
        let identity = match self.verified.get(&key) {
            Some(Verified::Certificate(identity)) => identity,
            _ => {
                let Some(identity) = read_certificate(der, &key)? else { return Ok(None) };
                let identity = Arc::new(identity);
                self.verified.put(key, Verified::Certificate(Arc::clone(&identity)));
                identity
            }
        };
        // The handshake checked this, but a connection can outlive its certificate.
        let now = self.clock.now().as_second();
        if !(identity.not_before..=identity.not_after).contains(&now) {
            return Err("x509: certificate has expired or is not yet valid".into());
        }
        Ok(Some(identity.user.clone()))
    }

    /// The user of a token and which of `audiences` it is for. The error is for logs and TokenReview.
    pub(super) fn token_user(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), String> {
        let invalid = || "invalid bearer token".to_owned();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid());
        }
        if let Some(user) = self.bootstrap_token_user(token) {
            return Ok((user, audiences.to_vec()));
        }
        let explain = |why: String| format!("[invalid bearer token, {why}]");
        let claims = self.verified_claims(token).map_err(explain)?.ok_or_else(invalid)?;
        let shared: Vec<String> = claims.aud.iter().filter(|audience| audiences.contains(audience)).cloned().collect();
        if shared.is_empty() {
            let quoted = |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" ");
            return Err(explain(format!(
                "token audiences [{}] is invalid for the target audiences [{}]",
                quoted(&claims.aud),
                quoted(audiences)
            )));
        }
        Ok((self.bound_user(&claims).map_err(explain)?, shared))
    }

    fn verified_claims(&self, token: &str) -> Result<Option<Arc<Claims>>, String> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(Verified::Token(claims)) = self.verified.get(&key) {
            return Ok(Some(claims));
        }
        let Some(claims) = self.keys.verify(token, &self.tokens.issuer)?.map(Arc::new) else { return Ok(None) };
        self.verified.put(key, Verified::Token(Arc::clone(&claims)));
        Ok(Some(claims))
    }

    /// `<id>.<secret>` of a Secret `bootstrap-token-<id>` in kube-system: how a new node gets its certificate.
    fn bootstrap_token_user(&self, token: &str) -> Option<User> {
        let (id, secret) = token.split_once('.')?;
        let plain = |text: &str, length| {
            text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if !plain(id, 6) || !plain(secret, 16) {
            return None;
        }
        let object = self.view.get("", "secrets", "kube-system", &format!("bootstrap-token-{id}"))?;
        let data = |key: &str| secret_data(&object, key);
        let is_expired = || match data("expiration") {
            None => false,
            Some(at) => at.parse::<Timestamp>().map_or(true, |at| at <= self.clock.now()),
        };
        let holds = !object.is_deleting()
            && object.text("/type") == "bootstrap.kubernetes.io/token"
            && data("token-secret").is_some_and(|known| is_same(known.as_bytes(), secret.as_bytes()))
            && data("token-id").as_deref() == Some(id)
            && data("usage-bootstrap-authentication").as_deref() == Some("true")
            && !is_expired();
        let mut groups = vec!["system:bootstrappers".to_owned()];
        let extra = data("auth-extra-groups").unwrap_or_default();
        groups.extend(extra.split(',').filter(|group| !group.is_empty()).map(str::to_owned));
        let holds = holds && groups[1..].iter().all(|group| is_bootstrap_group(group));
        holds.then(|| User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
    }
}

fn secret_data(secret: &Object, key: &str) -> Option<String> {
    let encoded = secret.get("data")?.get(key)?.as_str()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// Takes as long whatever the difference.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |all, (l, r)| all | (l ^ r)) == 0
}

/// `system:bootstrappers:<lower-case letters, digits, - and :>`, 256 at most, not ending in a sign.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=256).contains(&rest.len())
        && rest.bytes().all(|byte| plain(byte) || matches!(byte, b'-' | b':'))
        && rest.bytes().last().is_some_and(plain)
}

/// The token of `Authorization: Bearer <token>`; any other scheme reads as none.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut words = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split(' ');
    let scheme = words.next()?;
    words.next().filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Attribute of a subject that carries the user's uid (upstream: `x509UID`).
const UID_ATTRIBUTE: &str = "1.3.6.1.4.1.57683.2";

fn read_certificate(der: &[u8], fingerprint: &[u8; 32]) -> Result<Option<CertificateIdentity>, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("x509: {error}"))?;
    let subject = certificate.subject();
    let Some(name) = subject.iter_common_name().find_map(|name| name.as_str().ok()).filter(|name| !name.is_empty())
    else {
        return Ok(None);
    };
    let uids: Vec<&str> = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == UID_ATTRIBUTE)
        .filter_map(|attribute| attribute.as_str().ok())
        .collect();
    let uid = match uids.as_slice() {
        [] => "",
        [uid] if !uid.is_empty() => uid,
        [_] => return Err("UID cannot be an empty string".into()),
        many => return Err(format!("expected 1 UID, but found multiple: {many:?}")),
    };
    let digest: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
    let credential = vec![format!("X509SHA256={digest}")];
    let user = User {
        name: name.into(),
        uid: uid.into(),
        groups: subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect(),
        extra: [("authentication.kubernetes.io/credential-id".to_owned(), credential)].into(),
    };
    let validity = certificate.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(Some(CertificateIdentity { user, not_before, not_after }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clock::{Chance, Clock};
    use http::Request;
    use serde_json::json;

    use super::*;
    use crate::{auth::testing::Cluster, pki::Authority};

    async fn with_token(auth: &Auth, token: &str) -> Result<User, u16> {
        let request = Request::get("/api").header("authorization", format!("Bearer {token}")).body(()).unwrap();
        auth.authenticate(&request.into_parts().0).await.map_err(|status| status.code)
    }

    fn with_account() -> (Cluster, Object) {
        let cluster = Cluster::default();
        let account = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u1"}});
        cluster.put("", "serviceaccounts", account.clone());
        cluster.put(
            "",
            "pods",
            json!({"metadata": {"name": "p", "namespace": "a", "uid": "u2"},
            "spec": {"serviceAccountName": "robot"}}),
        );
        (cluster, account)
    }

    fn token_of(auth: &Auth, account: &Object, spec: Object) -> String {
        auth.create_token(account, json!({ "spec": spec })).unwrap()["status"]["token"].as_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_holds_as_long_as_its_pod_and_its_time() {
        let (cluster, account) = with_account();
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let auth = cluster.auth_at(clock.clone());
        let bound = token_of(&auth, &account, json!({"boundObjectRef": {"kind": "Pod", "name": "p"}}));
        let user = with_token(&auth, &bound).await.unwrap();
        assert_eq!(user.name, "system:serviceaccount:a:robot");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);

        cluster.put(
            "",
            "pods",
            json!({"metadata": {"name": "p", "namespace": "a", "uid": "u2",
            "deletionTimestamp": clock.now().to_string()}, "spec": {"serviceAccountName": "robot"}}),
        );
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(with_token(&auth, &bound).await.is_ok());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(with_token(&auth, &bound).await, Err(401));

        let free = token_of(&auth, &account, json!({"expirationSeconds": 600}));
        tokio::time::advance(Duration::from_secs(655)).await;
        assert!(with_token(&auth, &free).await.is_ok());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(with_token(&auth, &free).await, Err(401));
    }

    #[tokio::test]
    async fn tokens_of_others_and_for_others_are_refused() {
        let (cluster, account) = with_account();
        let auth = cluster.auth();
        let foreign = token_of(&cluster.auth(), &account, json!({}));
        assert_eq!(with_token(&auth, &foreign).await, Err(401));
        let vault = token_of(&auth, &account, json!({"audiences": ["vault"]}));
        assert_eq!(with_token(&auth, &vault).await, Err(401));
        assert_eq!(auth.token_user(&vault, &["vault".into()]).unwrap().1, ["vault"]);
        let mut forged = token_of(&auth, &account, json!({}));
        forged.pop();
        assert_eq!(with_token(&auth, &forged).await, Err(401));
        assert_eq!(with_token(&auth, "nonsense").await, Err(401));
        cluster.put("", "serviceaccounts", json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u9"}}));
        let why = auth.token_user(&token_of(&auth, &account, json!({})), &auth.tokens.audiences).unwrap_err();
        assert_eq!(why, "[invalid bearer token, service account UID (u9) does not match claim (u1)]");
    }

    #[tokio::test]
    async fn bootstrap_tokens() {
        let cluster = Cluster::default();
        let encoded = |text: &str| STANDARD.encode(text);
        let secret = |expiration: &str| {
            json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token", "data": {"token-id": encoded("abcdef"),
            "token-secret": encoded("0123456789abcdef"), "usage-bootstrap-authentication": encoded("true"),
            "expiration": encoded(expiration), "auth-extra-groups": encoded("system:bootstrappers:lab")}})
        };
        cluster.put("", "secrets", secret("2099-01-01T00:00:00Z"));
        let auth = cluster.auth();
        let user = with_token(&auth, "abcdef.0123456789abcdef").await.unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:lab", "system:authenticated"]);
        assert_eq!(with_token(&auth, "abcdef.0123456789abcdee").await, Err(401));
        cluster.put("", "secrets", secret("2020-01-01T00:00:00Z"));
        assert_eq!(with_token(&auth, "abcdef.0123456789abcdef").await, Err(401));
    }

    #[tokio::test]
    async fn certificates_name_user_and_groups_until_they_expire() {
        let clock = Clock::machine();
        let authority = Authority::generate("test-ca", clock.clone(), Chance::seeded(1)).unwrap();
        let issued = authority.issue_client("bob", &["team"]).unwrap();
        let mut request = Request::get("/api").body(()).unwrap();
        request.extensions_mut().insert(PeerCertificate(issued.certificate_der()));
        let parts = request.into_parts().0;
        let cluster = Cluster::default();
        let user = cluster.auth().authenticate(&parts).await.unwrap();
        assert_eq!(user.name, "bob");
        assert_eq!(user.groups, ["team", "system:authenticated"]);
        let later = Clock::starting_at(clock.now() + jiff::SignedDuration::from_hours(24 * 400));
        assert_eq!(cluster.auth_at(later).authenticate(&parts).await.unwrap_err().code, 401);
    }

    #[tokio::test]
    async fn no_credential_is_anonymous() {
        let parts = Request::get("/healthz").body(()).unwrap().into_parts().0;
        assert_eq!(Cluster::default().auth().authenticate(&parts).await.unwrap(), anonymous());
    }
}
