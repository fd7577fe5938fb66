//! The gRPC health protocol (grpc.health.v1.Health/Check) over plain HTTP/2, as much of it as a probe needs.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::http::{authority, dial};

const ANSWER_BYTES_MAX: usize = 4096;
const SERVING: u8 = 1;
const UNIMPLEMENTED: &str = "12";

/// Asks a server for the health of a service; empty means the server as a whole.
///
/// # Errors
/// It is not healthy or did not answer, in upstream's words.
pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    let at = authority(host, port);
    let seconds = limit.as_secs();
    match tokio::time::timeout(limit, ask(host, port, service)).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(format!("timeout: failed to connect service \"{at}\" within {seconds}s: context deadline exceeded"))
        }
    }
}

async fn ask(host: &str, port: u16, service: &str) -> Result<(), String> {
    let at = authority(host, port);
    let unreachable = |error: String| format!("error: failed to connect service at \"{at}\": {error}");
    let stream = dial(host, port).await.map_err(unreachable)?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let failed = |error: String| format!("error: health rpc probe failed: {error}");
    let request = Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(question(service)))
        .map_err(|error| failed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
    let headers = response.headers().clone();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    let body = body.map_err(|error| failed(error.to_string()))?;
    let trailers = body.trailers().cloned().unwrap_or(headers);
    verdict(&trailers, &body.to_bytes())
}

/// A message with one string field, in gRPC's frame.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

fn verdict(trailers: &HeaderMap, frame: &[u8]) -> Result<(), String> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let message = text("grpc-message");
    match text("grpc-status") {
        "" | "0" => {}
        UNIMPLEMENTED => {
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ));
        }
        code => return Err(format!("error: health rpc probe failed: rpc error: code = {code} desc = {message}")),
    }
    // Field 1, a varint; absent means UNKNOWN.
    match frame.get(5..) {
        Some([0x08, SERVING, ..]) => Ok(()),
        Some([0x08, 2, ..]) => Err("service unhealthy (responded with \"NOT_SERVING\")".into()),
        Some([0x08, 3, ..]) => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".into()),
        _ => Err("service unhealthy (responded with \"UNKNOWN\")".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_verdicts() {
        assert_eq!(question("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(question("a").as_ref(), [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(verdict(&HeaderMap::new(), &[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert!(verdict(&HeaderMap::new(), &[0, 0, 0, 0, 2, 8, 2]).unwrap_err().contains("NOT_SERVING"));
    }
}
