//! One HTTP request without a pool: for probes and lifecycle hooks. Certificates are not checked, as upstream.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// How much of an answer is read.
const BODY_BYTES_MAX: usize = 10 * 1024;
const REDIRECTS_MAX: usize = 10;

/// Where and what to ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Target {
    /// As an action of a Pod names it; `default_host` is the Pod's address, `agent` is `probe` or `lifecycle`.
    ///
    /// # Errors
    /// The port is a name that the container does not have.
    pub fn of(action: &HTTPGetAction, container: &Container, default_host: &str, agent: &str) -> Result<Self, String> {
        let given = action.http_headers.iter().flatten();
        let mut headers: BTreeMap<String, String> =
            given.map(|header| (header.name.to_lowercase(), header.value.clone())).collect();
        headers.entry("user-agent".into()).or_insert_with(|| format!("kube-{agent}/1.36"));
        headers.entry("accept".into()).or_insert_with(|| "*/*".into());
        let path = action.path.as_deref().unwrap_or("/");
        Ok(Self {
            https: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host: action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| default_host.into()),
            port: port(&action.port, container)?,
            path: if path.starts_with('/') { path.into() } else { format!("/{path}") },
            headers,
        })
    }

    pub fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", authority(&self.host, self.port), self.path)
    }
}

/// `host:port`, with brackets around IPv6.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A port by number or by the container's name for it.
///
/// # Errors
/// There is no such port.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            let named = ports.iter().find(|port| port.name.as_deref() == Some(name.as_str()));
            let number = named.and_then(|port| u16::try_from(port.container_port).ok());
            number.or_else(|| name.parse().ok())
        }
    };
    let name = match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    number.filter(|number| *number != 0).ok_or_else(|| format!("couldn't find port: {name}"))
}

/// Asks once, following redirects on the same host.
///
/// # Errors
/// No answer, in Go's words as far as people know them.
pub async fn get(target: &Target, limit: Duration) -> Result<Answer, String> {
    let url = target.url();
    let all = async {
        let mut target = target.clone();
        for _ in 0..REDIRECTS_MAX {
            let (answer, location) = get_once(&target).await?;
            match location.filter(|_| (300..400).contains(&answer.status)).and_then(|to| redirect(&target, &to)) {
                Some(next) => target = next,
                None => return Ok(answer),
            }
        }
        Err("stopped after 10 redirects".to_string())
    };
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_string();
    let answer = tokio::time::timeout(limit, all).await.unwrap_or(Err(late));
    answer.map_err(|error| format!("Get \"{url}\": {error}"))
}

fn redirect(from: &Target, location: &str) -> Option<Target> {
    if location.starts_with('/') {
        return Some(Target { path: location.into(), ..from.clone() });
    }
    let uri: http::Uri = location.parse().ok()?;
    let https = uri.scheme_str()? == "https";
    let same = uri.host()? == from.host;
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/".into(), ToString::to_string);
    same.then(|| Target { https, port, path, ..from.clone() })
}

async fn get_once(target: &Target) -> Result<(Answer, Option<String>), String> {
    let stream = dial(&target.host, target.port).await?;
    if !target.https {
        return ask(target, stream).await;
    }
    let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting_client()));
    let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
    let stream = connector.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
    ask(target, stream).await
}

/// Opens a TCP connection; the error is as Go's `dial` says it.
///
/// # Errors
/// It could not be opened.
pub async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let at = authority(host, port);
    TcpStream::connect((host, port)).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_string(),
            std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_string(),
            std::io::ErrorKind::TimedOut => "i/o timeout".to_string(),
            _ => error.to_string(),
        };
        format!("dial tcp {at}: {why}")
    })
}

async fn ask<S>(target: &Target, stream: S) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let mut request = Request::get(&target.path);
    if !target.headers.contains_key("host") {
        request = request.header(header::HOST, authority(&target.host, target.port));
    }
    for (name, value) in &target.headers {
        // Unlike Go, an empty Accept or User-Agent is not sent at all: that is what writing it empty means.
        if value.is_empty() && (name == "accept" || name == "user-agent") {
            continue;
        }
        let name = HeaderName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        request = request.header(name, HeaderValue::try_from(value.as_str()).map_err(|error| error.to_string())?);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status: StatusCode = response.status();
    let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).map(str::to_string);
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    // More than the limit is cut off, not an error.
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    connection.abort();
    Ok((Answer { status: status.as_u16(), body: String::from_utf8_lossy(&body).into_owned() }, location))
}

/// Probes ask whether something answers, not who it is.
fn trusting_client() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default TLS versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAnything(provider)))
        .with_no_client_auth()
}

#[derive(Debug)]
struct TrustAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
