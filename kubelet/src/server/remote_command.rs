//! Exec and attach: joins the client's streams with a session of the runtime.

use std::future::Future;

use axum::{
    extract::{
        FromRequestParts, Path, Request, State,
        ws::{WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, sync::mpsc};
use tracing::debug;

use super::{
    Failure, Server, Target, spdy,
    streams::{Channel, Outcome, SPDY_PROTOCOLS, Streams, WEBSOCKET_PROTOCOLS, Wanted, from_spdy, from_websocket},
};
use crate::runtime::{AttachOptions, ContainerRuntime, ExecOptions, Session, SessionId, Stream};

/// The SPDY header by which both sides agree on a protocol.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// An upgraded connection.
pub enum Connection {
    WebSocket(Box<WebSocket>),
    Spdy { streams: mpsc::Receiver<spdy::Stream>, protocol: String },
}

/// Answers an upgrade, to WebSocket or to SPDY, and runs `serve` on the connection.
pub async fn upgrade<F, S>(
    request: Request,
    websocket_protocols: &[&'static str],
    spdy_protocols: &[&str],
    serve: S,
) -> Result<Response, Failure>
where
    S: FnOnce(Connection) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = header_text(request.headers(), header::UPGRADE.as_str()).to_ascii_lowercase();
    if upgrade == "websocket" || request.version() == Version::HTTP_2 {
        let (mut parts, _) = request.into_parts();
        let ws = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
        let ws = ws.map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
        let ws = ws.protocols(websocket_protocols.iter().copied());
        return Ok(ws.on_upgrade(move |socket| serve(Connection::WebSocket(Box::new(socket)))));
    }
    if upgrade != "spdy/3.1" {
        return Err(Failure::bad_request("unable to upgrade: missing upgrade headers in request"));
    }
    let offered: Vec<String> = request
        .headers()
        .get_all(STREAM_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    let chosen = spdy_protocols.iter().find(|name| offered.iter().any(|offer| offer == *name));
    let Some(protocol) = chosen.map(|name| (*name).to_owned()) else {
        return Err(Failure(
            StatusCode::FORBIDDEN,
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {spdy_protocols:?}"
            ),
        ));
    };
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header(STREAM_PROTOCOL, &protocol)
        .body(axum::body::Body::empty())
        .map_err(|error| Failure::bad_request(error.to_string()))?;
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => {
                let streams = spdy::serve(TokioIo::new(upgraded));
                serve(Connection::Spdy { streams, protocol }).await;
            }
            Err(error) => debug!(%error, "upgrade failed"),
        }
    });
    Ok(answer)
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What the query asks for; the API server spells `stdin` as `input`, and so on.
fn wanted(query: &str) -> (Wanted, Vec<String>) {
    let (mut wanted, mut command) = (Wanted::default(), Vec::new());
    let is_true = |value: &str| matches!(value, "1" | "true" | "True");
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "command" => command.push(decoded(value)),
            "input" | "stdin" => wanted.stdin = is_true(value),
            "output" | "stdout" => wanted.stdout = is_true(value),
            "error" | "stderr" => wanted.stderr = is_true(value),
            "tty" => wanted.tty = is_true(value),
            _ => {}
        }
    }
    (wanted, command)
}

/// Percent-decoded, with `+` for a space.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = rest.as_slice().get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(byte) => {
                        rest.nth(1);
                        byte
                    }
                    None => b'%',
                }
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub async fn exec(
    State(server): State<Server>,
    Path(target): Path<Target>,
    request: Request,
) -> Result<Response, Failure> {
    let (wanted, command) = wanted(request.uri().query().unwrap_or_default());
    if command.is_empty() {
        return Err(Failure::bad_request("you must specify at least 1 command argument"));
    }
    let container = server.running_container(&*server.pod(&target.namespace, &target.pod)?, &target.container).await?;
    let runtime = server.runtime.clone();
    let options = ExecOptions {
        command,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr && !wanted.tty,
        tty: wanted.tty,
    };
    upgrade(request, &WEBSOCKET_PROTOCOLS, &SPDY_PROTOCOLS, move |connection| async move {
        let Some(streams) = streams_of(connection, wanted).await else { return };
        match runtime.exec(&container.id, options).await {
            Ok(session) => join(&*runtime, session, streams, wanted).await,
            Err(error) => {
                streams.output.finish(Outcome::Failed(format!("error executing command in container: {error}"))).await
            }
        }
    })
    .await
    .map(IntoResponse::into_response)
}

pub async fn attach(
    State(server): State<Server>,
    Path(target): Path<Target>,
    request: Request,
) -> Result<Response, Failure> {
    let pod = server.pod(&target.namespace, &target.pod)?;
    let (mut wanted, _) = wanted(request.uri().query().unwrap_or_default());
    let container = server.running_container(&pod, &target.container).await?;
    let declared = crate::pod::find_container(&pod, &target.container).map(|(_, container)| container);
    wanted.tty = declared.is_some_and(|container| container.tty.unwrap_or(false));
    let runtime = server.runtime.clone();
    let options = AttachOptions { stdin: wanted.stdin, stdout: wanted.stdout, stderr: wanted.stderr && !wanted.tty };
    upgrade(request, &WEBSOCKET_PROTOCOLS, &SPDY_PROTOCOLS, move |connection| async move {
        let Some(streams) = streams_of(connection, wanted).await else { return };
        match runtime.attach(&container.id, options).await {
            Ok(session) => join(&*runtime, session, streams, wanted).await,
            Err(error) => {
                streams.output.finish(Outcome::Failed(format!("error attaching to container: {error}"))).await
            }
        }
    })
    .await
}

async fn streams_of(connection: Connection, wanted: Wanted) -> Option<Streams> {
    match connection {
        Connection::WebSocket(socket) => Some(from_websocket(*socket, wanted)),
        Connection::Spdy { streams, protocol } => from_spdy(streams, wanted, &protocol).await,
    }
}

/// Copies in both directions until the process ends or the client leaves.
async fn join(runtime: &dyn ContainerRuntime, session: Session, streams: Streams, wanted: Wanted) {
    let Session { id, mut output, mut stdin } = session;
    let Streams { stdin: mut input, mut resize, output: client } = streams;
    let is_attach = matches!(id, SessionId::Container(_));
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
                break;
            }
        }
        if wanted.stdin {
            let _ = stdin.shutdown().await;
        }
        std::future::pending::<()>().await
    };
    let sizes = async {
        while let Some(size) = resize.recv().await {
            if let Err(error) = runtime.resize(&id, size.width, size.height).await {
                debug!(%error, "resize failed");
            }
        }
        std::future::pending::<()>().await
    };
    let outward = async {
        while let Some(piece) = output.next().await {
            let (stream, bytes): (Stream, Bytes) = match piece {
                Ok(piece) => piece,
                Err(error) => return Err(error.to_string()),
            };
            let channel = if stream == Stream::Stderr && !wanted.tty { Channel::Stderr } else { Channel::Stdout };
            if client.send(channel, bytes).await.is_err() {
                return Err("the client left".to_owned());
            }
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = outward => ended,
        () = inward => Ok(()),
        () = sizes => Ok(()),
    };
    let outcome = match ended {
        Err(message) => Outcome::Failed(message),
        // Attach ends with the stream; only exec has an exit code of its own.
        Ok(()) if is_attach => Outcome::Exited(0),
        Ok(()) => match runtime.exit_code(&id).await {
            Ok(code) => Outcome::Exited(code.into()),
            Err(error) => Outcome::Failed(error.to_string()),
        },
    };
    client.finish(outcome).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_the_api_server_writes_them() {
        let (wanted, command) = wanted("command=sh&command=-c&command=echo+a%26b%20%C3%A9&input=1&output=1&tty=true");
        assert_eq!(command, ["sh", "-c", "echo a&b é"]);
        assert_eq!(wanted, Wanted { stdin: true, stdout: true, stderr: false, tty: true });
    }
}
