//! A WebSocket as a plain byte stream: kubectl's port-forward sends SPDY through one.

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const BUFFER_BYTES: usize = 64 << 10;

/// Ends a WebSocket in order. Clients take an end without a code for a failure.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::from_static("") }))
}

/// The byte stream; closing it closes the WebSocket and the other way round.
pub fn byte_stream(socket: WebSocket) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let (mut from_peer, mut to_peer) = tokio::io::split(ours);
    let (mut sink, mut source) = socket.split();
    tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if to_peer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to_peer.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; BUFFER_BYTES / 2];
        while let Ok(length @ 1..) = from_peer.read(&mut buffer).await {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return;
            }
        }
        let _ = sink.send(goodbye()).await;
    });
    theirs
}
