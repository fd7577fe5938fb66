//! The streams of exec and attach, whichever way they come: WebSocket channels or SPDY streams.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use base64::Engine as _;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::mpsc;

use super::spdy;

/// How long a SPDY client may take to open all of its streams.
const STREAMS_DEADLINE: Duration = Duration::from_secs(30);
/// Messages on their way to one client.
const MESSAGES_QUEUED_MAX: usize = 64;

/// What the client wants to exchange.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// Where output goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Channel {
    Stdout,
    Stderr,
    /// The outcome, as a `Status`.
    Error,
}

/// The client's side of an exec or attach.
pub struct Streams {
    /// Ends when the client closes its input or leaves.
    pub stdin: mpsc::Receiver<Bytes>,
    pub resize: mpsc::Receiver<TerminalSize>,
    pub output: Output,
}

/// Sends to the client.
#[derive(Clone)]
pub struct Output(Arc<Sink>);

enum Sink {
    WebSocket { messages: mpsc::Sender<Message>, framing: Framing },
    Spdy { stdout: Option<spdy::Writer>, stderr: Option<spdy::Writer>, error: spdy::Writer },
}

/// How channels are put into WebSocket messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Framing {
    base64: bool,
    /// From version 4 on, the error channel carries a `Status`; before, plain text.
    has_status: bool,
    /// From version 5 on, either side can close one channel.
    has_close: bool,
}

/// The subprotocols that exec and attach understand, best first.
pub const WEBSOCKET_PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
/// The same over SPDY.
pub const SPDY_PROTOCOLS: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// In v5, a message to this channel closes the channel that its payload names.
const CLOSE: u8 = 255;
const STDIN: u8 = 0;
const RESIZE: u8 = 4;

impl Output {
    /// Sends output; an error means that the client has left.
    pub async fn send(&self, channel: Channel, bytes: Bytes) -> Result<(), spdy::Gone> {
        match &*self.0 {
            Sink::WebSocket { messages, framing } => {
                messages.send(framing.message(channel, &bytes)).await.map_err(|_| spdy::Gone)
            }
            Sink::Spdy { stdout, stderr, error } => match channel {
                Channel::Stdout => send_if_wanted(stdout.as_ref(), bytes).await,
                Channel::Stderr => send_if_wanted(stderr.as_ref(), bytes).await,
                Channel::Error => error.send(bytes).await,
            },
        }
    }

    /// Tells how the command ended, after all output, and closes.
    pub async fn finish(&self, outcome: Outcome) {
        let is_plain = matches!(&*self.0, Sink::WebSocket { framing, .. } if !framing.has_status);
        let text = if is_plain { outcome.plain() } else { outcome.status().to_string() };
        if !text.is_empty() {
            let _ = self.send(Channel::Error, text.into()).await;
        }
        match &*self.0 {
            Sink::WebSocket { messages, .. } => {
                // Without a code clients read an abnormal end.
                let normal = CloseFrame { code: close_code::NORMAL, reason: "".into() };
                let _ = messages.send(Message::Close(Some(normal))).await;
            }
            Sink::Spdy { stdout, stderr, error } => {
                for writer in stdout.iter().chain(stderr).chain([error]) {
                    let _ = writer.finish().await;
                }
            }
        }
    }
}

async fn send_if_wanted(writer: Option<&spdy::Writer>, bytes: Bytes) -> Result<(), spdy::Gone> {
    match writer {
        Some(writer) => writer.send(bytes).await,
        None => Ok(()),
    }
}

/// How a command ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    Exited(i64),
    Failed(String),
}

impl Outcome {
    fn status(&self) -> serde_json::Value {
        match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(message) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {message}"),
                "details": {"causes": [{"message": message}]},
            }),
        }
    }

    fn plain(&self) -> String {
        match self {
            Self::Exited(0) => String::new(),
            Self::Exited(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Self::Failed(message) => message.clone(),
        }
    }
}

impl Framing {
    fn of(protocol: &str) -> Self {
        Self {
            base64: protocol.contains("base64"),
            has_status: protocol.starts_with('v'),
            has_close: protocol.starts_with("v5"),
        }
    }

    fn message(self, channel: Channel, bytes: &[u8]) -> Message {
        let number = match channel {
            Channel::Stdout => 1,
            Channel::Stderr => 2,
            Channel::Error => 3,
        };
        if self.base64 {
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            return Message::Text(format!("{number}{text}").into());
        }
        let mut framed = BytesMut::with_capacity(bytes.len() + 1);
        framed.put_u8(number);
        framed.extend_from_slice(bytes);
        Message::Binary(framed.freeze())
    }

    /// Channel and payload of a message from the client.
    fn parse(self, message: Message) -> Option<(u8, Bytes)> {
        match message {
            Message::Binary(bytes) if !self.base64 => Some((*bytes.first()?, bytes.slice(1..))),
            Message::Text(text) if self.base64 => {
                let channel = text.bytes().next()?.checked_sub(b'0')?;
                let payload = base64::engine::general_purpose::STANDARD.decode(text.get(1..)?).ok()?;
                Some((channel, payload.into()))
            }
            Message::Text(text) => Some((*text.as_bytes().first()?, Bytes::copy_from_slice(&text.as_bytes()[1..]))),
            _ => None,
        }
    }
}

/// Takes over a WebSocket whose subprotocol is one of [`WEBSOCKET_PROTOCOLS`].
pub fn from_websocket(socket: WebSocket, wanted: Wanted) -> Streams {
    let protocol = socket.protocol().and_then(|name| name.to_str().ok()).unwrap_or("channel.k8s.io").to_owned();
    let framing = Framing::of(&protocol);
    let (mut sink, source) = socket.split();
    let (messages, mut to_send) = mpsc::channel::<Message>(MESSAGES_QUEUED_MAX);
    tokio::spawn(async move {
        // An empty message first tells the client that the connection stands.
        let hello = if wanted.stdout { Channel::Stdout } else { Channel::Error };
        let mut outcome = sink.send(framing.message(hello, b"")).await;
        while let (Ok(()), Some(message)) = (&outcome, to_send.recv().await) {
            let is_last = matches!(message, Message::Close(_));
            outcome = sink.send(message).await;
            if is_last {
                return;
            }
        }
    });
    let (stdin_sender, stdin) = mpsc::channel(MESSAGES_QUEUED_MAX);
    let (resize_sender, resize) = mpsc::channel(4);
    tokio::spawn(receive(source, framing, wanted, stdin_sender, resize_sender));
    Streams { stdin, resize, output: Output(Arc::new(Sink::WebSocket { messages, framing })) }
}

async fn receive(
    mut source: futures::stream::SplitStream<WebSocket>,
    framing: Framing,
    wanted: Wanted,
    stdin: mpsc::Sender<Bytes>,
    resize: mpsc::Sender<TerminalSize>,
) {
    let mut stdin = wanted.stdin.then_some(stdin);
    while let Some(Ok(message)) = source.next().await {
        match framing.parse(message) {
            Some((STDIN, bytes)) => {
                if let Some(sender) = &stdin
                    && !bytes.is_empty()
                    && sender.send(bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            Some((RESIZE, bytes)) => {
                if let Ok(size) = serde_json::from_slice(&bytes) {
                    let _ = resize.try_send(size);
                }
            }
            Some((CLOSE, bytes)) if framing.has_close && bytes.first() == Some(&STDIN) => stdin = None,
            _ => {}
        }
    }
}

/// Takes over a SPDY connection: waits until the client has opened every stream that it wants.
pub async fn from_spdy(mut streams: mpsc::Receiver<spdy::Stream>, wanted: Wanted, protocol: &str) -> Option<Streams> {
    let has_resize = wanted.tty && (protocol.starts_with("v3") || protocol.starts_with("v4"));
    let count = [true, wanted.stdin, wanted.stdout, wanted.stderr && !wanted.tty, has_resize];
    let mut missing = count.into_iter().filter(|wanted| *wanted).count();
    let (mut stdout, mut stderr, mut error) = (None, None, None);
    let (stdin_sender, stdin) = mpsc::channel(MESSAGES_QUEUED_MAX);
    let (resize_sender, resize) = mpsc::channel(4);
    let gather = async {
        while missing > 0 {
            let mut stream = streams.recv().await?;
            missing -= 1;
            match stream.headers.get("streamtype").map(String::as_str) {
                Some("stdout") => stdout = Some(stream.writer),
                Some("stderr") => stderr = Some(stream.writer),
                Some("error") => error = Some(stream.writer),
                Some("stdin") => {
                    let sender = stdin_sender.clone();
                    tokio::spawn(async move {
                        while let Some(bytes) = stream.reader.next().await {
                            if sender.send(bytes).await.is_err() {
                                return;
                            }
                        }
                    });
                }
                Some("resize") => drop(tokio::spawn(read_sizes(stream.reader, resize_sender.clone()))),
                _ => return None,
            }
        }
        Some(())
    };
    tokio::time::timeout(STREAMS_DEADLINE, gather).await.ok()??;
    // The connection lives as long as somebody would accept further streams.
    tokio::spawn(async move { while streams.recv().await.is_some() {} });
    Some(Streams { stdin, resize, output: Output(Arc::new(Sink::Spdy { stdout, stderr, error: error? })) })
}

/// Terminal sizes come as JSON objects, one after the other.
async fn read_sizes(mut reader: spdy::Reader, sizes: mpsc::Sender<TerminalSize>) {
    let mut buffer = BytesMut::new();
    while let Some(bytes) = reader.next().await {
        buffer.extend_from_slice(&bytes);
        let mut parser = serde_json::Deserializer::from_slice(&buffer).into_iter::<TerminalSize>();
        let mut used = 0;
        while let Some(Ok(size)) = parser.next() {
            used = parser.byte_offset();
            let _ = sizes.try_send(size);
        }
        let _ = buffer.split_to(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_follows_the_subprotocol() {
        let v5 = Framing::of("v5.channel.k8s.io");
        assert_eq!(v5.message(Channel::Stderr, b"x"), Message::Binary(Bytes::from_static(b"\x02x")));
        assert_eq!(v5.parse(Message::Binary(Bytes::from_static(b"\x00in"))), Some((0, Bytes::from_static(b"in"))));
        let base64 = Framing::of("v4.base64.channel.k8s.io");
        assert_eq!(base64.message(Channel::Stdout, b"hi"), Message::Text("1aGk=".into()));
        assert_eq!(base64.parse(Message::Text("0aGk=".into())), Some((0, Bytes::from_static(b"hi"))));
        assert!(v5.has_close && !base64.has_close);
    }

    #[test]
    fn outcomes_are_statuses_that_kubectl_reads() {
        assert_eq!(Outcome::Exited(0).status()["status"], "Success");
        let failed = Outcome::Exited(7).status();
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
    }
}
