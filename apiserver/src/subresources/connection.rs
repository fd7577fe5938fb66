//! One HTTP/1.1 connection to a kubelet or to what a proxy leads to: requests sent on, upgrades passed through.

use std::{io, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use http::{HeaderMap, Request, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, client::danger};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::auth::impersonate::is_impersonation_header;

/// A connection must be open, TLS included, within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that are about one connection.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where a request goes.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// A name or an address.
    pub host: String,
    pub port: u16,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
}

/// What is sent on.
pub(super) struct Outgoing<'a> {
    /// Method, headers and upgrade of the client's request.
    pub parts: &'a mut Parts,
    pub body: Body,
    /// Path and query at the endpoint.
    pub target: &'a str,
    /// Beyond those of the client.
    pub headers: HeaderMap,
}

impl Endpoint {
    /// `10.0.0.1:80`, `[::1]:80`
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// `https://10.0.0.1:10250/path`
    pub fn url(&self, target: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{target}", self.authority())
    }

    /// Sends the client's request on and answers what comes back. An upgrade that the other side agrees to joins
    /// the two connections. The error says why the endpoint was not reached.
    pub async fn forward(&self, outgoing: Outgoing<'_>) -> Result<Response, String> {
        let Outgoing { parts, body, target, headers } = outgoing;
        let upgrade = wanted_upgrade(&parts.headers);
        let mut request = Request::builder().method(parts.method.clone()).uri(target);
        let sent = request.headers_mut().ok_or("malformed request")?;
        *sent = end_to_end(&parts.headers);
        sent.remove(header::AUTHORIZATION);
        let impersonating: Vec<_> = sent.keys().filter(|name| is_impersonation_header(name)).cloned().collect();
        impersonating.iter().for_each(|name| drop(sent.remove(name)));
        sent.extend(headers);
        sent.insert(header::HOST, self.authority().parse().map_err(|_| "malformed host name")?);
        let body = match &upgrade {
            Some(protocol) => {
                sent.remove(header::CONTENT_LENGTH);
                sent.insert(header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
                sent.insert(header::UPGRADE, protocol.clone());
                Body::empty()
            }
            None => body,
        };
        let request = request.body(body).map_err(|error| error.to_string())?;
        let response = self.send(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return joined(parts.extensions.remove::<OnUpgrade>(), response);
        }
        let (mut head, body) = response.into_parts();
        head.headers = end_to_end(&head.headers);
        Ok(Response::from_parts(head, Body::new(body)))
    }

    async fn send(&self, request: Request<Body>) -> Result<http::Response<hyper::body::Incoming>, String> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.connect());
        let stream = stream.await.map_err(|_| format!("dial tcp {}: i/o timeout", self.authority()))??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a proxied connection ended early");
            }
        });
        sender.send_request(request).await.map_err(|error| error.to_string())
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let refused = |error: io::Error| format!("dial tcp {}: {}", self.authority(), sentence(&error));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(refused)?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| format!("tls: {error}"))?))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// As Go says it: people search for these words.
fn sentence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        _ => error.to_string(),
    }
}

/// The protocol that the client wants instead of HTTP.
pub(super) fn wanted_upgrade(headers: &HeaderMap) -> Option<http::HeaderValue> {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = connection.flat_map(|value| value.split(',')).map(str::trim);
    let asked = tokens.any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

/// Without what is about the connection alone.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut kept = headers.clone();
    named.iter().for_each(|name| drop(kept.remove(name.as_str())));
    HOP_BY_HOP.iter().for_each(|name| drop(kept.remove(*name)));
    kept
}

/// Answers the upgrade and copies between the two connections until both are done.
fn joined(client: Option<OnUpgrade>, mut response: http::Response<hyper::body::Incoming>) -> Result<Response, String> {
    let client = client.ok_or("the client's connection cannot be upgraded")?;
    let backend = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        match tokio::try_join!(client, backend) {
            Ok((client, backend)) => copy(client, backend).await,
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
    });
    let (head, _) = response.into_parts();
    Ok(Response::from_parts(head, Body::empty()))
}

async fn copy(client: Upgraded, backend: Upgraded) {
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!(%error, "an upgraded connection ended early");
    }
}

/// TLS to whoever answers: Pods and Services show certificates that this cluster knows nothing about.
pub(super) fn unverified_tls() -> Option<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().ok()?;
    let verifier = Arc::new(AnyServer(provider));
    Some(Arc::new(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<danger::ServerCertVerified, rustls::Error> {
        Ok(danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Reads up to the end of the headers.
    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// A server that sends everything on to `endpoint`; its address.
    async fn front(endpoint: Endpoint) -> std::net::SocketAddr {
        let forward = move |request: Request<Body>| async move {
            let (mut parts, body) = request.into_parts();
            let target = parts.uri.path().to_owned();
            let outgoing = Outgoing { parts: &mut parts, body, target: &target, headers: HeaderMap::new() };
            endpoint.forward(outgoing).await.unwrap_or_else(|error| Response::new(Body::from(error)))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(forward)).await });
        address
    }

    #[tokio::test]
    async fn an_upgrade_passes_through_and_bytes_follow() {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = backend.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (mut stream, _) = backend.accept().await.unwrap();
            let head = head(&mut stream).await;
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                          X-Stream-Protocol-Version: v4\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            head
        });
        let front = front(Endpoint { host: "127.0.0.1".into(), port, tls: None }).await;
        let mut client = TcpStream::connect(front).await.unwrap();
        let request = "POST /exec/a/p/c HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nConnection: Upgrade\r\n\
                       Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4\r\nContent-Length: 0\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = head(&mut client).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(answer.contains("upgrade: spdy/3.1") && answer.contains("x-stream-protocol-version: v4"), "{answer}");
        client.write_all(b"ping").await.unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"ping");
        let sent = served.await.unwrap().to_ascii_lowercase();
        assert!(sent.starts_with("post /exec/a/p/c http/1.1") && sent.contains("upgrade: spdy/3.1"), "{sent}");
        assert!(!sent.contains("secret"), "{sent}");
    }

    #[tokio::test]
    async fn a_closed_port_is_said_as_go_says_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let endpoint = Endpoint { host: "127.0.0.1".into(), port, tls: None };
        let (mut parts, _) = Request::new(()).into_parts();
        let outgoing = Outgoing { parts: &mut parts, body: Body::empty(), target: "/", headers: HeaderMap::new() };
        let error = endpoint.forward(outgoing).await.unwrap_err();
        assert_eq!(error, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }
}
