//! Port-forward: pairs of SPDY streams, each pair one connection into the Pod.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tracing::debug;

use super::spdy;

/// The protocol inside SPDY, and its name when SPDY itself is inside a WebSocket.
pub const PROTOCOL: &str = "portforward.k8s.io";
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Halves of pairs that wait for the other half.
const HALVES_MAX: usize = 256;
const CHUNK_BYTES: usize = 32 << 10;

/// Where connections go.
#[derive(Clone, Debug)]
pub enum Target {
    /// The loopback interface of this network namespace: what upstream reaches.
    Namespace(PathBuf),
    /// An address, where the namespace cannot be entered.
    Address(std::net::IpAddr),
}

/// Serves until the client leaves.
pub async fn serve(mut streams: mpsc::Receiver<spdy::Stream>, target: Target) {
    let mut halves: BTreeMap<String, spdy::Stream> = BTreeMap::new();
    while let Some(stream) = streams.recv().await {
        let id = stream.headers.get("requestid").or_else(|| stream.headers.get("port")).cloned().unwrap_or_default();
        let Some(first) = halves.remove(&id) else {
            if halves.len() < HALVES_MAX {
                halves.insert(id, stream);
            }
            continue;
        };
        let is_error = |stream: &spdy::Stream| stream.headers.get("streamtype").is_some_and(|kind| kind == "error");
        let (error, data) = if is_error(&first) { (first, stream) } else { (stream, first) };
        tokio::spawn(forward(data, error, target.clone()));
    }
}

async fn forward(data: spdy::Stream, error: spdy::Stream, target: Target) {
    let port = data.headers.get("port").and_then(|port| port.parse::<u16>().ok());
    let outcome = match port {
        Some(port) => match connect(&target, port).await {
            Ok(connection) => copy(data, connection).await,
            Err(cause) => {
                let _ = data.writer.finish().await;
                Err(format!("failed to connect to localhost:{port} inside the Pod's network: {cause}"))
            }
        },
        None => Err("the stream names no port".to_owned()),
    };
    if let Err(message) = outcome {
        debug!(message, "port-forward failed");
        let _ = error.writer.send(Bytes::from(message)).await;
    }
    let _ = error.writer.finish().await;
}

async fn connect(target: &Target, port: u16) -> std::io::Result<TcpStream> {
    let timeout = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    match target {
        Target::Address(ip) => {
            tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((*ip, port))).await.map_err(|_| timeout())?
        }
        Target::Namespace(path) => {
            let (path, (sender, receiver)) = (path.clone(), tokio::sync::oneshot::channel());
            // A socket belongs to the namespace in which it was made: one short-lived thread enters it.
            std::thread::Builder::new().name("port-forward".into()).spawn(move || {
                let _ = sender.send(connect_in_namespace(&path, port));
            })?;
            let connection = receiver.await.map_err(|_| timeout())??;
            connection.set_nonblocking(true)?;
            TcpStream::from_std(connection)
        }
    }
}

fn connect_in_namespace(path: &std::path::Path, port: u16) -> std::io::Result<std::net::TcpStream> {
    let namespace = std::fs::File::open(path)?;
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
    let (v4, v6) = (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
    std::net::TcpStream::connect_timeout(&v4, DIAL_TIMEOUT)
        .or_else(|error| std::net::TcpStream::connect_timeout(&v6, DIAL_TIMEOUT).map_err(|_| error))
}

async fn copy(mut data: spdy::Stream, connection: TcpStream) -> Result<(), String> {
    let (mut from_pod, mut to_pod) = connection.into_split();
    let inward = async {
        while let Some(bytes) = data.reader.next().await {
            to_pod.write_all(&bytes).await?;
        }
        to_pod.shutdown().await
    };
    let writer = data.writer;
    let outward = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = from_pod.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            writer.send(Bytes::copy_from_slice(&buffer[..length])).await.map_err(std::io::Error::other)?;
        }
        writer.finish().await.map_err(std::io::Error::other)
    };
    // The Pod closing ends the connection; the client closing its half does not end the answer.
    tokio::pin!(inward, outward);
    let mut is_inward_done = false;
    loop {
        tokio::select! {
            result = &mut outward => return result.map_err(|error| error.to_string()),
            result = &mut inward, if !is_inward_done => {
                is_inward_done = true;
                if let Err(error) = result {
                    debug!(%error, "the Pod closed its input");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connects_to_an_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target::Address([127, 0, 0, 1].into());
        assert!(connect(&target, port).await.is_ok());
        assert!(connect(&Target::Namespace("/nowhere".into()), port).await.is_err());
    }
}
