//! WATCH: what changes from a revision on, gapless, or 410.
//!
//! A watcher holds nothing but its place in the resource's window of events; the frames it sends are shared
//! by all watchers.

use std::{sync::Arc, time::Duration};

use api::{AnyKind, Errors, Path, Status};
use axum::{
    body::Body,
    extract::{
        FromRequestParts as _,
        ws::{Message, WebSocketUpgrade},
    },
    response::Response,
};
use bytes::{Bytes, BytesMut};
use clock::Clock;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use store::Revision;
use tokio::{sync::watch as signal, time::Instant};

use super::{selection::Selection, token::parse_version};
use crate::{
    Server,
    cache::{Cache, Cursor, Entry, Event, Resource, TooOld, frame},
    call::Call,
    kinds,
    negotiate::{Form, negotiate},
    options::{Options, invalid_unless_empty},
    respond::{Answer, parse, served},
    table,
};

/// A watch without `timeoutSeconds` lasts between this and twice as long.
const TIMEOUT_MIN: Duration = Duration::from_secs(30 * 60);
/// How often a quiet watch that takes bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Events that are put in one chunk.
const BATCH_EVENTS_MAX: usize = 256;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl Server {
    pub(super) async fn watch(&self, call: &Call) -> Result<Answer, Status> {
        let mut watcher = self.watcher(call).await?;
        if call.header(header::UPGRADE).eq_ignore_ascii_case("websocket") {
            let upgrade = WebSocketUpgrade::from_request_parts(&mut call.parts.clone(), &()).await;
            let upgrade = upgrade.map_err(|rejection| Status::bad_request(rejection.to_string()))?;
            return Ok(Answer::Response(upgrade.on_upgrade(async move |mut socket| {
                while let Some(lines) = watcher.next().await {
                    for line in String::from_utf8_lossy(&lines).lines() {
                        if socket.send(Message::text(line)).await.is_err() {
                            return;
                        }
                    }
                }
            })));
        }
        let lines = watcher.lines();
        let mut response = Response::new(Body::from_stream(lines));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Answer::Response(response))
    }

    /// The watch that the parameters describe.
    pub(crate) async fn watcher(&self, call: &Call) -> Result<Watcher, Status> {
        validate(&call.options)?;
        let selection = Selection::new(call.kind, &call.info, &call.options)?;
        let form = negotiate(&call.parts.headers)?.form;
        let Options { resource_version, send_initial_events, allow_watch_bookmarks, timeout_seconds, .. } =
            &call.options;
        let resource = self.cache.resource(&call.descriptor().stored_as);
        let from_state = send_initial_events.unwrap_or(matches!(resource_version.as_str(), "" | "0"));
        let signals_end = *send_initial_events == Some(true) && *allow_watch_bookmarks;
        let (pending, cursor, known) = if from_state {
            self.wait_for_version(resource_version).await?;
            let (snapshot, cursor) = resource.snapshot_and_cursor(|| self.cache.progress());
            let entries: Vec<_> = selection.pick(&snapshot.objects, None).cloned().collect();
            (entries, Ok(cursor), snapshot.revision)
        } else {
            let revision = match resource_version.as_str() {
                "" | "0" => self.cache.consistent().await?,
                text => parse_version(text)?,
            };
            (
                Vec::new(),
                resource.cursor_after(revision).map_err(|too_old| Box::new(expired(revision, too_old))),
                revision,
            )
        };
        let timeout = timeout_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let timeout = timeout.unwrap_or_else(|| self.chance.jitter(TIMEOUT_MIN, 1.0));
        Ok(Watcher {
            changes: resource.changes(),
            cache: self.cache.clone(),
            resource,
            selection,
            writer: Writer::new(call, form, self.clock.clone()),
            state: State::Initial { entries: pending.into_iter(), end: signals_end, cursor },
            known,
            bookmarks: *allow_watch_bookmarks,
            announced: 0,
            next_bookmark: Instant::now() + BOOKMARK_EVERY,
            ends: Instant::now() + timeout,
        })
    }
}

/// Where a watcher stands.
enum State {
    /// Sends the state it began with, then perhaps the bookmark that ends it.
    Initial { entries: std::vec::IntoIter<Arc<Entry>>, end: bool, cursor: Result<Cursor, Box<Status>> },
    /// Follows the events.
    Following(Cursor),
    /// Has said why it cannot go on.
    Over,
}

/// One running watch.
pub(crate) struct Watcher {
    cache: Arc<Cache>,
    resource: Arc<Resource>,
    changes: signal::Receiver<u64>,
    selection: Selection,
    writer: Writer,
    state: State,
    /// Everything up to this revision has been sent.
    known: Revision,
    bookmarks: bool,
    /// The revision of the last bookmark.
    announced: Revision,
    next_bookmark: Instant,
    ends: Instant,
}

impl Watcher {
    /// The frames, each chunk one or several lines.
    pub(crate) fn lines(self) -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        futures::stream::unfold(self, |mut watcher| async move {
            let lines = watcher.next().await?;
            Some((Ok(lines), watcher))
        })
    }

    /// The next lines; `None` at the end of the watch.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            match &mut self.state {
                State::Initial { .. } => {
                    if let Some(lines) = self.initial() {
                        return Some(lines);
                    }
                }
                State::Following(cursor) => {
                    let mut next = *cursor;
                    // Marked as seen before the events are read, so that none can slip in between.
                    self.changes.borrow_and_update();
                    let read = self.resource.events(&mut next, BATCH_EVENTS_MAX, || self.cache.progress());
                    match read {
                        Err(too_old) => return Some(self.fail(expired(self.known, too_old))),
                        Ok((events, known)) => {
                            self.state = State::Following(next);
                            self.known = known.max(self.known);
                            let lines = self.lines_of(&events);
                            if !lines.is_empty() {
                                return Some(lines);
                            }
                            if events.len() == BATCH_EVENTS_MAX {
                                continue;
                            }
                            if self.bookmark_is_due() {
                                return Some(self.bookmark(false));
                            }
                            if !self.wait().await {
                                return None;
                            }
                        }
                    }
                }
                State::Over => return None,
            }
        }
    }

    fn initial(&mut self) -> Option<Bytes> {
        let State::Initial { entries, end, cursor } = &mut self.state else { return None };
        let mut lines = BytesMut::new();
        for entry in entries.by_ref().take(BATCH_EVENTS_MAX) {
            lines.extend_from_slice(&self.writer.frame("ADDED", &entry.bytes));
        }
        if entries.len() > 0 {
            return Some(lines.freeze());
        }
        let (end, cursor) = (*end, cursor.clone());
        match cursor {
            Ok(cursor) => self.state = State::Following(cursor),
            Err(status) => return Some(self.fail(*status)),
        }
        if end {
            lines.extend_from_slice(&self.bookmark(true));
        } else if self.bookmarks && lines.is_empty() {
            // Some clients give up on a watch whose first byte is late.
            lines.extend_from_slice(&self.bookmark(false));
        }
        (!lines.is_empty()).then(|| lines.freeze())
    }

    fn lines_of(&mut self, events: &[Arc<Event>]) -> Bytes {
        let mut frames: Vec<Bytes> = Vec::new();
        for event in events {
            frames.extend(self.frame(event));
        }
        match frames.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            many => many.concat().into(),
        }
    }

    /// An object that comes to match appears as ADDED; one that no longer does, as DELETED.
    fn frame(&mut self, event: &Event) -> Option<Bytes> {
        let matches = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|entry| self.selection.matches(entry));
        let (was, is) = (matches(&event.old), matches(&event.new));
        let new = event.new.as_ref().map(|entry| &entry.bytes);
        let plain = self.writer.is_plain();
        Some(match (was, is, new) {
            (true, true, Some(_)) if plain => event.frame(),
            (false, true, Some(_)) if plain && event.old.is_none() => event.frame(),
            (true, false, None) if plain => event.frame(),
            (true, true, Some(new)) => self.writer.frame("MODIFIED", new),
            (false, true, Some(new)) => self.writer.frame("ADDED", new),
            (true, false, _) => self.writer.frame("DELETED", &event.last_state()),
            _ => return None,
        })
    }

    /// A watch gets a bookmark now and then, if the store has moved on.
    fn bookmark_is_due(&mut self) -> bool {
        if !self.bookmarks || Instant::now() < self.next_bookmark {
            return false;
        }
        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
        self.known > self.announced
    }

    /// Sleeps until there may be something to send; false at the end of the watch.
    async fn wait(&mut self) -> bool {
        let wake_at = if self.bookmarks { self.next_bookmark.min(self.ends) } else { self.ends };
        tokio::select! {
            changed = self.changes.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(wake_at) => wake_at < self.ends,
        }
    }

    fn bookmark(&mut self, initial_events_end: bool) -> Bytes {
        self.announced = self.known;
        self.writer.bookmark(self.known, initial_events_end)
    }

    fn fail(&mut self, status: Status) -> Bytes {
        self.state = State::Over;
        frame("ERROR", &serde_json::to_vec(&status).unwrap_or_default())
    }
}

/// Puts objects in the form that the client accepts.
struct Writer {
    kind: &'static dyn AnyKind,
    form: Form,
    include_object: String,
    clock: Clock,
    /// Whether a Table with column definitions has been sent.
    has_columns: bool,
}

impl Writer {
    fn new(call: &Call, form: Form, clock: Clock) -> Self {
        let include_object = call.options.include_object.clone();
        Self { kind: call.kind, form, include_object, clock, has_columns: false }
    }

    /// Whether frames can be shared with other watchers.
    fn is_plain(&self) -> bool {
        self.form == Form::Object && kinds::is_storage_form(self.kind)
    }

    fn frame(&mut self, r#type: &str, stored: &Bytes) -> Bytes {
        let bytes = served(self.kind, stored);
        let object = match &self.form {
            Form::Object => return frame(r#type, &bytes),
            Form::Metadata { version } => table::metadata_only(&parse(&bytes), version),
            Form::Table { .. } => self.table(parse(&bytes)),
        };
        frame(r#type, object.to_string().as_bytes())
    }

    fn table(&mut self, object: Value) -> Value {
        let Form::Table { version } = &self.form else { return object };
        let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let mut table = table::table(self.kind, [object], meta, version, &self.include_object, self.clock.now());
        if std::mem::replace(&mut self.has_columns, true) {
            table["columnDefinitions"] = Value::Array(Vec::new());
        }
        table
    }

    fn bookmark(&self, revision: Revision, initial_events_end: bool) -> Bytes {
        let descriptor = self.kind.descriptor();
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            meta["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match &self.form {
            Form::Object => json!({"kind": descriptor.kind, "apiVersion": descriptor.api_version(), "metadata": meta}),
            Form::Metadata { version } => table::metadata_only(&json!({"metadata": meta}), version),
            Form::Table { version } => {
                let row = json!({"cells": [], "object": table::metadata_only(&json!({"metadata": meta}), version)});
                let api_version = format!("meta.k8s.io/{version}");
                json!({"kind": "Table", "apiVersion": api_version, "metadata": {"resourceVersion": meta["resourceVersion"]},
                    "columnDefinitions": [], "rows": [row]})
            }
        };
        frame("BOOKMARK", object.to_string().as_bytes())
    }
}

fn expired(revision: Revision, too_old: TooOld) -> Status {
    Status::expired(format!("too old resource version: {revision} ({})", too_old.oldest))
}

/// Which parameters go together, in upstream's words.
fn validate(options: &Options) -> Result<(), Status> {
    let mut errors = Errors::default();
    let path = Path::new("resourceVersionMatch");
    let wanted = options.resource_version_match.as_str();
    if options.send_initial_events.is_some() && wanted != "NotOlderThan" {
        errors.forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if !wanted.is_empty() {
        if options.send_initial_events.is_none() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if wanted != "NotOlderThan" {
            errors.not_supported(&path, wanted, &["NotOlderThan"]);
        }
        if !options.r#continue.is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
    }
    invalid_unless_empty("ListOptions", errors)
}
