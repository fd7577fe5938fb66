//! How a client is made: over the network from a kubeconfig, or over a service in the same process.

mod account;

use std::path::Path;

use anyhow::Context;
use http::{Request, Response};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, Service};

pub use self::account::as_service_account;

/// Who a client acts as. On this side it only informs; the server decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

/// A client as a kubeconfig describes it; without a path as kubectl finds it, or the Pod's ServiceAccount.
///
/// # Errors
/// The file cannot be read, or names keys, certificates or a server that cannot be used.
pub async fn from_kubeconfig(path: Option<&Path>, user_agent: &str) -> anyhow::Result<Client> {
    Ok(Client::try_from(load(path, user_agent).await?)?)
}

/// A client to the same server that says nothing of who it is.
///
/// # Errors
/// As [`from_kubeconfig`].
pub async fn anonymous(path: Option<&Path>, user_agent: &str) -> anyhow::Result<Client> {
    let mut config = load(path, user_agent).await?;
    config.auth_info = kube::config::AuthInfo::default();
    Ok(Client::try_from(config)?)
}

async fn load(path: Option<&Path>, user_agent: &str) -> anyhow::Result<Config> {
    // Another provider may be installed already, by whoever embeds this: then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = match path {
        None => Config::infer().await.context("find a kubeconfig")?,
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("use {}", path.display()))?
        }
    };
    config.headers.push((http::header::USER_AGENT, user_agent.parse().context("user agent")?));
    Ok(config)
}

/// A client whose requests go to `service` as function calls. The service itself knows who is calling.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = hyper::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}
