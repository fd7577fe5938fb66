//! TLS made of the cluster's certificates (provider: ring).

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{PkiError, authority::Issued};

/// A server with this certificate. Clients may show a certificate of the given authority; one of any other
/// authority, or an expired one, ends the handshake.
pub fn server_config(serving: &Issued, client_authority_pem: &str) -> Result<ServerConfig, PkiError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_authority_pem)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    let (chain, key) = identity(serving)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client that trusts servers of the authority and shows its own certificate.
pub fn client_config(server_authority_pem: &str, client: &Issued) -> Result<ClientConfig, PkiError> {
    let (chain, key) = identity(client)?;
    let roots = roots(server_authority_pem)?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map_err(|error| PkiError::Tls(error.to_string()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// All certificates of the PEM text: an authority that is being replaced has two.
fn roots(pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| PkiError::Tls(error.to_string()))?;
    }
    Ok(roots)
}

fn identity(issued: &Issued) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes());
    Ok((certificates(&issued.certificate_pem)?, key.map_err(|error| PkiError::Tls(error.to_string()))?))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PkiError::Tls(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clock::{Chance, Clock};
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::pki::{Authority, Endpoints, Pki};

    /// The client's certificate as the server sees it.
    async fn handshake(server: ServerConfig, client: ClientConfig) -> Result<Vec<u8>, String> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connect = async move {
            let name = "kubernetes.default.svc".try_into().unwrap();
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
            // A refusal of the client's certificate comes after the client's own handshake.
            stream.read(&mut [0]).await.map(drop)
        };
        let accept = async move {
            let stream = TlsAcceptor::from(Arc::new(server)).accept(far).await.map_err(|error| error.to_string())?;
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            Ok(chain.first().map(|certificate| certificate.to_vec()).unwrap_or_default())
        };
        tokio::join!(connect, accept).1
    }

    #[tokio::test]
    async fn client_certificates_of_this_cluster_are_seen_and_others_refused() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::machine());
        let pki = Pki::open(directory.path(), clock.clone(), Chance::seeded(1)).unwrap();
        let serving = pki.api_server("10.96.0.1".parse().unwrap(), &Endpoints::default()).unwrap();
        let authority = &pki.cluster.certificate_pem;
        let server = server_config(&serving, authority).unwrap();

        let admin = pki.admin().unwrap();
        let seen = handshake(server.clone(), client_config(authority, &admin).unwrap()).await;
        assert_eq!(seen, Ok(admin.certificate_der()));

        let stranger = Authority::generate("kubernetes", clock, Chance::seeded(2)).unwrap();
        let forged = stranger.issue_client("kubernetes-admin", &["system:masters"]).unwrap();
        let seen = handshake(server.clone(), client_config(authority, &forged).unwrap()).await;
        assert!(seen.is_err(), "{seen:?}");
        assert!(handshake(server, client_config(&stranger.certificate_pem, &admin).unwrap()).await.is_err());
    }
}
