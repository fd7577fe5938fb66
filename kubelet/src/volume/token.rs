//! ServiceAccount tokens for projected volumes: asked from the API, renewed when 80% of their life is over.

use std::{collections::BTreeMap, time::Duration};

use clock::Clock;
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection},
};
use kube::{Api, Client, api::PostParams};

use crate::pod::{name, namespace, spec, uid};

const LIFE_SECONDS_DEFAULT: i64 = 3600;
/// Renewed at the latest after a day, however long it would live.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug)]
struct Token {
    text: String,
    renew_at: Timestamp,
}

/// The tokens of one Pod, by audience and lifetime.
#[derive(Default)]
pub struct Tokens(BTreeMap<(String, i64), Token>);

impl Tokens {
    /// The token for a projection, and when it must be renewed.
    ///
    /// # Errors
    /// The API server does not give one.
    pub async fn get(
        &mut self,
        client: &Client,
        clock: &Clock,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), String> {
        let audience = projection.audience.clone().unwrap_or_default();
        let seconds = projection.expiration_seconds.unwrap_or(LIFE_SECONDS_DEFAULT);
        let key = (audience.clone(), seconds);
        let now = clock.now();
        if let Some(token) = self.0.get(&key).filter(|token| token.renew_at > now) {
            return Ok((token.text.clone(), token.renew_at));
        }
        let token = request(client, pod, audience, seconds, now).await?;
        self.0.insert(key, token.clone());
        Ok((token.text, token.renew_at))
    }
}

async fn request(client: &Client, pod: &Pod, audience: String, seconds: i64, now: Timestamp) -> Result<Token, String> {
    let account = spec(pod).service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(name(pod).into()),
        uid: Some(uid(pod).into()),
    };
    let wanted = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: (!audience.is_empty()).then(|| vec![audience]),
            bound_object_ref: Some(bound),
            expiration_seconds: Some(seconds),
        }),
        ..Default::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace(pod));
    let answer = api.create_token_request(account, &PostParams::default(), &wanted).await;
    let status = answer.map_err(|error| format!("failed to fetch token: {error}"))?.status;
    let status = status.ok_or("failed to fetch token: the answer has no status")?;
    let text = status.token.ok_or("failed to fetch token: the answer has no token")?;
    let expires = status.expiration_timestamp.map_or(now + Duration::from_secs(600), |expires| expires.0);
    let life = Duration::try_from(expires.duration_since(now)).unwrap_or(Duration::ZERO);
    Ok(Token { text, renew_at: now + life.mul_f64(0.8).min(AGE_MAX) })
}
