//! SPDY/3.1, server side: what kubectl's port-forward and older exec and attach speak.
//!
//! Source: the SPDY/3.1 draft. Flow-control frames are ignored, as Kubernetes' own implementation does; a
//! stream that is not read holds the connection back, which bounds memory.

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tracing::debug;

/// Larger frames end the connection.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Header blocks may not unpack to more than this.
const HEADER_BYTES_MAX: usize = 64 << 10;
const STREAMS_MAX: usize = 1000;
/// Chunks that wait for the reader of one stream.
const CHUNKS_QUEUED_MAX: usize = 16;
/// Data of one frame that we send.
const CHUNK_BYTES_MAX: usize = 32 << 10;

const CONTROL: u8 = 0x80;
const VERSION: u8 = 3;
const FLAG_FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const REFUSED_STREAM: u32 = 3;

/// The dictionary that the draft prescribes for header compression.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    const NAMES: &str = "options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,\
accept-ranges,age,allow,authorization,cache-control,connection,content-base,content-encoding,content-language,\
content-length,content-location,content-md5,content-range,content-type,date,etag,expect,expires,from,host,if-match,\
if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,max-forwards,pragma,\
proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,transfer-encoding,upgrade,\
user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,set-cookie,\
keep-alive,origin";
    const VALUES: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct \
Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/\
xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-\
8859-1,utf-,*,enq=0.";
    let mut bytes = Vec::with_capacity(1423);
    for name in NAMES.split(',') {
        bytes.put_u32(name.len() as u32);
        bytes.put_slice(name.as_bytes());
    }
    bytes.put_slice(VALUES.as_bytes());
    bytes
});

/// Headers of a stream; names in lower case.
pub type Headers = BTreeMap<String, String>;

/// A stream that the client opened.
pub struct Stream {
    pub headers: Headers,
    pub reader: Reader,
    pub writer: Writer,
}

/// What the client sends, until it half-closes.
pub struct Reader(mpsc::Receiver<Bytes>);

impl Reader {
    /// The next chunk; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// Sends to the client. Dropping it without [`Writer::finish`] leaves the stream half open until the
/// connection ends.
#[derive(Clone)]
pub struct Writer {
    stream: u32,
    frames: mpsc::Sender<Frame>,
}

impl Writer {
    /// Sends bytes; fails when the connection is gone.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
            self.frames.send(Frame::Data { stream: self.stream, bytes: chunk, fin: false }).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Says that nothing more comes.
    pub async fn finish(&self) -> Result<(), Gone> {
        let frame = Frame::Data { stream: self.stream, bytes: Bytes::new(), fin: true };
        self.frames.send(frame).await.map_err(|_| Gone)
    }
}

/// The connection has ended.
#[derive(Debug, thiserror::Error)]
#[error("the connection has ended")]
pub struct Gone;

enum Frame {
    Data { stream: u32, bytes: Bytes, fin: bool },
    Reply { stream: u32 },
    Reset { stream: u32, status: u32 },
    Ping(Bytes),
}

/// Serves a connection: the streams arrive in the order in which the client opened them. The connection
/// ends when the client leaves or when the receiver and all writers are dropped.
pub fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static) -> mpsc::Receiver<Stream> {
    let (read_half, write_half) = tokio::io::split(io);
    let (frames, to_write) = mpsc::channel(64);
    let (accepted, streams) = mpsc::channel(16);
    tokio::spawn(async move {
        if let Err(error) = write_frames(write_half, to_write).await {
            debug!(%error, "SPDY connection ended while writing");
        }
    });
    tokio::spawn(async move {
        if let Err(error) = read_frames(read_half, frames, accepted).await {
            debug!(%error, "SPDY connection ended while reading");
        }
    });
    streams
}

async fn write_frames(mut io: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) -> std::io::Result<()> {
    let mut deflate = Compress::new(Compression::default(), true);
    deflate.set_dictionary(&DICTIONARY).map_err(std::io::Error::other)?;
    while let Some(frame) = frames.recv().await {
        let mut out = BytesMut::new();
        match frame {
            Frame::Data { stream, bytes, fin } => {
                out.put_u32(stream);
                out.put_u32((u32::from(if fin { FLAG_FIN } else { 0 }) << 24) | bytes.len() as u32);
                out.extend_from_slice(&bytes);
            }
            Frame::Reply { stream } => {
                let block = compressed(&mut deflate, &0u32.to_be_bytes())?;
                put_control(&mut out, SYN_REPLY, 4 + block.len());
                out.put_u32(stream);
                out.extend_from_slice(&block);
            }
            Frame::Reset { stream, status } => {
                put_control(&mut out, RST_STREAM, 8);
                out.put_u32(stream);
                out.put_u32(status);
            }
            Frame::Ping(id) => {
                put_control(&mut out, PING, id.len());
                out.extend_from_slice(&id);
            }
        }
        io.write_all(&out).await?;
        io.flush().await?;
    }
    io.shutdown().await
}

fn put_control(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_slice(&[CONTROL, VERSION]);
    out.put_u16(kind);
    out.put_u32(length as u32);
}

fn compressed(deflate: &mut Compress, block: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len() + 64);
    deflate.compress_vec(block, &mut out, FlushCompress::Sync).map_err(std::io::Error::other)?;
    Ok(out)
}

/// State of the reading side.
struct Demultiplexer {
    inflate: Decompress,
    open: BTreeMap<u32, mpsc::Sender<Bytes>>,
    frames: mpsc::Sender<Frame>,
    accepted: mpsc::Sender<Stream>,
}

async fn read_frames(
    mut io: impl AsyncRead + Unpin,
    frames: mpsc::Sender<Frame>,
    accepted: mpsc::Sender<Stream>,
) -> std::io::Result<()> {
    let mut state = Demultiplexer { inflate: Decompress::new(true), open: BTreeMap::new(), frames, accepted };
    loop {
        let mut head = [0; 8];
        match io.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(std::io::Error::other("frame too large"));
        }
        let mut payload = vec![0; length];
        io.read_exact(&mut payload).await?;
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if head[0] & CONTROL == 0 {
            state.data(first, head[4], payload.into()).await;
        } else if !state.control(first as u16, head[4], payload).await? {
            return Ok(());
        }
    }
}

impl Demultiplexer {
    async fn data(&mut self, stream: u32, flags: u8, bytes: Bytes) {
        if let Some(reader) = self.open.get(&stream)
            && !bytes.is_empty()
            && reader.send(bytes).await.is_err()
        {
            // Nobody reads any more: what still comes is dropped.
            self.open.remove(&stream);
        }
        if flags & FLAG_FIN != 0 {
            self.open.remove(&stream);
        }
    }

    /// Whether the connection goes on.
    async fn control(&mut self, kind: u16, flags: u8, payload: Vec<u8>) -> std::io::Result<bool> {
        match kind {
            SYN_STREAM => self.open_stream(flags, &payload).await?,
            RST_STREAM => drop(self.open.remove(&stream_id(&payload)?)),
            PING => drop(self.frames.send(Frame::Ping(payload.into())).await),
            GOAWAY => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    async fn open_stream(&mut self, flags: u8, payload: &[u8]) -> std::io::Result<()> {
        let id = stream_id(payload)?;
        let block = payload.get(10..).ok_or_else(|| std::io::Error::other("short SYN_STREAM"))?;
        let headers = self.headers(block)?;
        if self.open.len() >= STREAMS_MAX {
            let _ = self.frames.send(Frame::Reset { stream: id, status: REFUSED_STREAM }).await;
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel(CHUNKS_QUEUED_MAX);
        if flags & FLAG_FIN == 0 {
            self.open.insert(id, sender);
        }
        let writer = Writer { stream: id, frames: self.frames.clone() };
        let _ = self.frames.send(Frame::Reply { stream: id }).await;
        let stream = Stream { headers, reader: Reader(receiver), writer };
        self.accepted.send(stream).await.map_err(|_| std::io::Error::other("the server stopped accepting"))
    }

    fn headers(&mut self, block: &[u8]) -> std::io::Result<Headers> {
        let plain = self.inflated(block)?;
        parse_headers(&plain).ok_or_else(|| std::io::Error::other("malformed header block"))
    }

    fn inflated(&mut self, block: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let began = self.inflate.total_in();
        loop {
            let consumed = (self.inflate.total_in() - began) as usize;
            out.reserve(4096);
            let before = out.len();
            match self.inflate.decompress_vec(&block[consumed..], &mut out, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&DICTIONARY).map_err(std::io::Error::other)?;
                    continue;
                }
                Err(error) => return Err(std::io::Error::other(error)),
            }
            if out.len() > HEADER_BYTES_MAX {
                return Err(std::io::Error::other("header block too large"));
            }
            let is_drained = (self.inflate.total_in() - began) as usize == block.len() && out.len() < out.capacity();
            if is_drained || out.len() == before {
                return Ok(out);
            }
        }
    }
}

fn stream_id(payload: &[u8]) -> std::io::Result<u32> {
    let bytes: [u8; 4] =
        payload.get(..4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| std::io::Error::other("short frame"))?;
    Ok(u32::from_be_bytes(bytes) & 0x7fff_ffff)
}

fn parse_headers(mut block: &[u8]) -> Option<Headers> {
    fn number(block: &mut &[u8]) -> Option<usize> {
        let (head, rest) = block.split_first_chunk::<4>()?;
        *block = rest;
        Some(u32::from_be_bytes(*head) as usize)
    }
    fn text(block: &mut &[u8]) -> Option<String> {
        let length = number(block)?;
        let (head, rest) = block.split_at_checked(length)?;
        *block = rest;
        Some(String::from_utf8_lossy(head).into_owned())
    }
    let count = number(&mut block)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut block)?.to_ascii_lowercase();
        headers.insert(name, text(&mut block)?);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's SYN_STREAM, packed with its own compressor.
    fn syn_stream(deflate: &mut Compress, id: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        let block = compressed(deflate, &block).unwrap();
        let mut out = BytesMut::new();
        put_control(&mut out, SYN_STREAM, 10 + block.len());
        out.put_u32(id);
        out.put_u32(0);
        out.put_u16(0);
        out.extend_from_slice(&block);
        out.to_vec()
    }

    fn client_deflate() -> Compress {
        let mut deflate = Compress::new(Compression::default(), true);
        // The checksum that the draft's dictionary has in every other implementation.
        assert_eq!(deflate.set_dictionary(&DICTIONARY).unwrap(), 0xe3c6_a7c2);
        deflate
    }

    #[tokio::test]
    async fn streams_carry_headers_and_bytes_both_ways() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut streams = serve(server);
        let mut deflate = client_deflate();
        for (id, kind) in [(1, "error"), (3, "data")] {
            client.write_all(&syn_stream(&mut deflate, id, &[("streamType", kind), ("port", "80")])).await.unwrap();
        }
        client.write_all(&[0, 0, 0, 3, FLAG_FIN, 0, 0, 2, b'h', b'i']).await.unwrap();
        let error = streams.recv().await.unwrap();
        let mut data = streams.recv().await.unwrap();
        assert_eq!((error.headers["streamtype"].as_str(), data.headers["streamtype"].as_str()), ("error", "data"));
        assert_eq!(data.reader.next().await.unwrap(), "hi");
        assert!(data.reader.next().await.is_none());
        data.writer.send(Bytes::from_static(b"yo")).await.unwrap();
        data.writer.finish().await.unwrap();
        let mut frames = Vec::new();
        for _ in 0..4 {
            let mut head = [0; 8];
            client.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
            client.read_exact(&mut payload).await.unwrap();
            frames.push((head, payload));
        }
        assert_eq!(frames[0].0[..4], [CONTROL, VERSION, 0, 2]);
        assert_eq!(frames[2], ([0, 0, 0, 3, 0, 0, 0, 2], b"yo".to_vec()));
        assert_eq!(frames[3].0, [0, 0, 0, 3, FLAG_FIN, 0, 0, 0]);
    }

    #[tokio::test]
    async fn garbage_ends_the_connection_quietly() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut streams = serve(server);
        client.write_all(&[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]).await.unwrap();
        assert!(streams.recv().await.is_none());
    }
}
