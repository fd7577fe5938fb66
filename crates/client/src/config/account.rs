//! A client that acts as a ServiceAccount of kube-system, with tokens that it asks for as it needs them.

use std::sync::Arc;

use clock::Clock;
use http::{HeaderValue, Request, header::AUTHORIZATION};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams, client::Body};
use tokio::sync::Mutex;
use tower::{BoxError, service_fn};

const NAMESPACE: &str = "kube-system";
const TOKEN_SECONDS: i64 = 3600;
/// A token is renewed this long before it expires.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(10);

/// Sends everything through `anonymous`, with tokens that `issuer` may create. The account is made where it is missing.
pub fn as_service_account(issuer: Client, anonymous: Client, clock: Clock, account: &str) -> Client {
    let tokens = Arc::new(Tokens { issuer, clock, account: account.to_owned(), current: Mutex::new(None) });
    let service = service_fn(move |mut request: Request<Body>| {
        let (tokens, anonymous) = (Arc::clone(&tokens), anonymous.clone());
        async move {
            request.headers_mut().insert(AUTHORIZATION, tokens.header().await?);
            anonymous.send(request).await.map_err(BoxError::from)
        }
    });
    Client::new(service, "default")
}

struct Tokens {
    issuer: Client,
    clock: Clock,
    account: String,
    current: Mutex<Option<(HeaderValue, Timestamp)>>,
}

impl Tokens {
    async fn header(&self) -> Result<HeaderValue, BoxError> {
        let mut current = self.current.lock().await;
        if let Some((header, expiry)) = current.as_ref().filter(|(_, expiry)| self.clock.now() < *expiry - RENEW_BEFORE)
        {
            tracing::trace!(account = self.account, %expiry, "token");
            return Ok(header.clone());
        }
        let status = self.issue().await?.status.unwrap_or_default();
        let (token, expiry) = status
            .token
            .zip(status.expiration_timestamp)
            .ok_or("a token request was answered without a token or without its end")?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))?;
        header.set_sensitive(true);
        *current = Some((header.clone(), expiry.0));
        Ok(header)
    }

    async fn issue(&self) -> kube::Result<TokenRequest> {
        let api: Api<ServiceAccount> = Api::namespaced(self.issuer.clone(), NAMESPACE);
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let body = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let request = || {
            let url = kube::core::Request::new(api.resource_url());
            let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
            let built = url.create_subresource("token", &self.account, &PostParams::default(), body);
            built.map_err(kube::Error::BuildRequest)
        };
        match self.issuer.request(request()?).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let metadata = ObjectMeta { name: Some(self.account.clone()), ..ObjectMeta::default() };
                api.create(&PostParams::default(), &ServiceAccount { metadata, ..ServiceAccount::default() }).await?;
                self.issuer.request(request()?).await
            }
            answer => answer,
        }
    }
}
