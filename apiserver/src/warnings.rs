//! Sentences that go to the client as `Warning:` headers.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

/// All warnings of a response together, in bytes; what comes later is dropped.
const WARNING_BYTES_MAX: usize = 4 << 10;

/// The warnings of one request; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Each sentence is sent once.
    pub fn push(&self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        let mut sentences = self.0.lock();
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }

    /// `Warning: 299 - "..."`, one header a sentence.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        let mut bytes = 0;
        for sentence in self.0.lock().iter() {
            let quoted = sentence.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
            let line = format!("299 - \"{quoted}\"");
            bytes += line.len();
            if let (true, Ok(value)) = (bytes <= WARNING_BYTES_MAX, HeaderValue::from_bytes(line.as_bytes())) {
                headers.append(http::header::WARNING, value);
            }
        }
    }
}
