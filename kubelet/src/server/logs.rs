//! Logs of one container.

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::api::core::v1::Pod;

use super::{Failure, Server, Target};
use crate::runtime::{ContainerState, LogLine, LogOptions};

/// The query of a log request, in the API's names.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogQuery {
    #[serde(default)]
    follow: Flag,
    #[serde(default)]
    previous: Flag,
    #[serde(default)]
    timestamps: Flag,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    tail_lines: Option<u64>,
    limit_bytes: Option<usize>,
}

/// A boolean as Go writes it in queries.
#[derive(Default, serde::Deserialize)]
#[serde(from = "String")]
struct Flag(bool);

impl From<String> for Flag {
    fn from(text: String) -> Self {
        Self(matches!(text.as_str(), "1" | "true" | "True" | "t"))
    }
}

pub async fn container_logs(
    State(server): State<Server>,
    Path(target): Path<Target>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Failure> {
    let pod = server.pod(&target.namespace, &target.pod)?;
    if crate::pod::find_container(&pod, &target.container).is_none() {
        return Err(Failure::not_found(format!(
            "container \"{}\" not found in pod \"{}\"",
            target.container, target.pod
        )));
    }
    let id = container_id(&server, &pod, &target, query.previous.0).await?;
    let since = match (query.since_time, query.since_seconds) {
        (Some(time), _) => Some(time),
        (None, Some(seconds)) => Some(server.auth.now() - jiff::SignedDuration::from_secs(seconds)),
        (None, None) => None,
    };
    let options = LogOptions {
        follow: query.follow.0 && !query.previous.0,
        since,
        tail: query.tail_lines,
        stdout: true,
        stderr: true,
    };
    let lines = server.runtime.logs(&id, options).await?;
    let (with_timestamps, limit) = (query.timestamps.0, query.limit_bytes.unwrap_or(usize::MAX));
    let bytes = lines.scan(limit, move |left, line| {
        let piece = line.map(|line| limited(rendered(line, with_timestamps), left)).map_err(std::io::Error::other);
        let is_over = matches!(&piece, Ok(bytes) if bytes.is_empty());
        futures::future::ready((!is_over).then_some(piece))
    });
    Ok(([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(bytes)).into_response())
}

fn rendered(line: LogLine, with_timestamps: bool) -> Bytes {
    match line.timestamp.filter(|_| with_timestamps) {
        None => line.content,
        Some(at) => {
            let mut out = BytesMut::with_capacity(line.content.len() + 32);
            let time = at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string();
            out.put_slice(time.as_bytes());
            out.extend_from_slice(&line.content);
            out.freeze()
        }
    }
}

fn limited(bytes: Bytes, left: &mut usize) -> Bytes {
    let bytes = bytes.slice(..bytes.len().min(*left));
    *left -= bytes.len();
    bytes
}

/// The incarnation that is asked for, or the sentence that says why there is none.
async fn container_id(server: &Server, pod: &Pod, target: &Target, previous: bool) -> Result<String, Failure> {
    let view = server.runtime.pod(crate::pod::uid(pod)).await?;
    let (name, pod_name) = (&target.container, &target.pod);
    let mut incarnations = view.incarnations(name).filter(|container| container.state != ContainerState::Created);
    if previous {
        let newest = view.container(name);
        let is_running = newest.is_some_and(|container| container.state == ContainerState::Running);
        // While the container backs off, the newest incarnation is the one that `lastState` tells of.
        let is_waiting = status_of(pod, name)
            .is_some_and(|status| status.state.as_ref().is_some_and(|state| state.waiting.is_some()));
        let skip = usize::from(is_running || !is_waiting);
        return incarnations.nth(skip).map(|container| container.id.clone()).ok_or_else(|| {
            Failure::bad_request(format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found"))
        });
    }
    if let Some(container) = incarnations.next() {
        return Ok(container.id.clone());
    }
    let reason = status_of(pod, name)
        .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .unwrap_or_else(|| "ContainerCreating".into());
    let why = match reason.as_str() {
        "ErrImagePull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        reason => reason.to_owned(),
    };
    Err(Failure::bad_request(format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {why}")))
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a k8s_openapi::api::core::v1::ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Stream;

    #[test]
    fn timestamps_are_nanoseconds_and_limits_cut() {
        let line = || LogLine {
            stream: Stream::Stdout,
            timestamp: Some("2026-01-02T03:04:05.5Z".parse().unwrap()),
            content: Bytes::from_static(b"hello\n"),
        };
        assert_eq!(rendered(line(), true), "2026-01-02T03:04:05.500000000Z hello\n");
        let mut left = 3;
        assert_eq!(limited(rendered(line(), false), &mut left), "hel");
        assert_eq!((left, limited(rendered(line(), false), &mut left).len()), (0, 0));
    }
}
