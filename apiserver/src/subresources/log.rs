//! `pods/log`: what a container wrote, streamed from the kubelet.

use std::sync::Arc;

use api::{Errors, Path, Status, object::ObjectExt};
use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt, Limited};

use super::{
    Answered,
    connection::{Endpoint, Outgoing},
    kubelet,
};
use crate::{
    Server,
    call::Call,
    options::{is_true, pairs},
};

/// Of an answer that is an error, so much is read.
const ERROR_BYTES_MAX: usize = 10_000;

/// The query of a log request.
#[derive(Debug, Default, PartialEq, Eq)]
struct LogOptions {
    container: String,
    follow: bool,
    previous: bool,
    timestamps: bool,
    insecure: bool,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

pub(super) fn get(server: Arc<Server>, call: Call, _body: Body) -> Answered {
    Box::pin(async move {
        if call.info.verb != "get" {
            return Err(Status::method_not_allowed());
        }
        let options = LogOptions::parse(call.parts.uri.query().unwrap_or_default())?;
        options.validate(call.name())?;
        if options.insecure {
            call.warnings.push("insecureSkipTLSVerifyBackend is not honoured: the kubelet's certificate is verified");
        }
        let pod = kubelet::pod(&server, &call)?;
        let container = kubelet::container(&pod, &options.container)?;
        let node = pod.text("/spec/nodeName");
        if node.is_empty() {
            return Ok(plain_text(Response::new(Body::empty())));
        }
        let path = format!("/containerLogs/{}/{}/{container}", pod.namespace(), pod.name());
        let target = format!("{path}?{}", options.query());
        stream(kubelet::endpoint(&server, node)?, call, &target).await
    })
}

async fn stream(endpoint: Endpoint, mut call: Call, target: &str) -> Result<Response, Status> {
    let url = endpoint.url(target);
    // The client's wishes about encodings are for this server.
    call.parts.headers.clear();
    let outgoing = Outgoing { parts: &mut call.parts, body: Body::empty(), target, headers: HeaderMap::new() };
    let answer = endpoint.forward(outgoing).await;
    let response = answer.map_err(|error| Status::unknown(format!("Get {url:?}: {error}")))?;
    if response.status().is_success() {
        return Ok(plain_text(response));
    }
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Err(match code {
        400 => Status::bad_request(text),
        404 => {
            let mut status = Status::no_such_path();
            status.message = format!("{} ( pods/log {})", status.message, call.name());
            status.details.get_or_insert_default().causes = vec![api::status::Cause {
                reason: "UnexpectedServerResponse".into(),
                message: text,
                field: String::new(),
            }];
            status
        }
        _ => Status::internal(text),
    })
}

fn plain_text(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

impl LogOptions {
    fn parse(query: &str) -> Result<Self, Status> {
        let mut options = Self::default();
        for (name, value) in pairs(query) {
            match name.as_str() {
                "container" => options.container = value,
                "follow" => options.follow = is_true(&value),
                "previous" => options.previous = is_true(&value),
                "timestamps" => options.timestamps = is_true(&value),
                "insecureSkipTLSVerifyBackend" => options.insecure = is_true(&value),
                "sinceSeconds" => options.since_seconds = Some(number(&value)?),
                "sinceTime" => options.since_time = Some(value),
                "tailLines" => options.tail_lines = Some(number(&value)?),
                "limitBytes" => options.limit_bytes = Some(number(&value)?),
                "stream" => options.stream = Some(value),
                _ => {}
            }
        }
        Ok(options)
    }

    fn validate(&self, name: &str) -> Result<(), Status> {
        let mut errors = Errors::default();
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            errors.invalid(&Path::new("tailLines"), lines, "must be greater than or equal to 0");
        }
        if let Some(bytes) = self.limit_bytes.filter(|bytes| *bytes < 1) {
            errors.invalid(&Path::new("limitBytes"), bytes, "must be greater than 0");
        }
        if self.since_seconds.is_some() && self.since_time.is_some() {
            errors.forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified");
        } else if let Some(seconds) = self.since_seconds.filter(|seconds| *seconds < 1) {
            errors.invalid(&Path::new("sinceSeconds"), seconds, "must be greater than 0");
        }
        if let Some(time) = self.since_time.as_deref().filter(|time| time.parse::<jiff::Timestamp>().is_err()) {
            errors.invalid(&Path::new("sinceTime"), time, "must be a time in RFC 3339");
        }
        const STREAMS: &[&str] = &["All", "Stdout", "Stderr"];
        if let Some(stream) = self.stream.as_deref().filter(|stream| !STREAMS.contains(stream)) {
            errors.not_supported(&Path::new("stream"), stream, STREAMS);
        }
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", name, errors)) }
    }

    /// As the kubelet reads it.
    fn query(&self) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        let flags = [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)];
        pairs.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| (name, "true".to_owned())));
        let numbers =
            [("sinceSeconds", self.since_seconds), ("tailLines", self.tail_lines), ("limitBytes", self.limit_bytes)];
        pairs.extend(numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string()))));
        pairs.extend(self.since_time.iter().map(|time| ("sinceTime", time.clone())));
        pairs.extend(self.stream.iter().map(|stream| ("stream", stream.clone())));
        kubelet::query(&pairs)
    }
}

fn number(value: &str) -> Result<i64, Status> {
    value.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_checked_and_passed_on() {
        let options =
            LogOptions::parse("container=a&follow=true&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00Z").unwrap();
        options.validate("p").unwrap();
        assert_eq!(options.query(), "follow=true&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00Z");
        let refused = LogOptions::parse("tailLines=-1&limitBytes=0").unwrap().validate("p").unwrap_err();
        assert_eq!(
            refused.message,
            "PodLogOptions \"p\" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, \
             limitBytes: Invalid value: 0: must be greater than 0]"
        );
    }
}
