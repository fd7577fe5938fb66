//! Docker's exec, attach and logs as sessions and lines.

use std::{collections::HashMap, time::Duration};

use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder, ResizeContainerTTYOptionsBuilder},
};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;

use super::{Docker, failed};
use crate::runtime::{
    AttachOptions, EXEC_OUTPUT_BYTES_MAX, ExecOptions, ExecResult, LogLine, LogOptions, Result, RuntimeError, Session,
    SessionId, Stream,
};

/// Docker may say for a moment after the output's end that the process still runs.
const EXIT_POLL: Duration = Duration::from_millis(5);
const EXIT_POLLS_MAX: u32 = 400;

impl Docker {
    pub(super) async fn exec_session(&self, id: &str, options: ExecOptions) -> Result<Session> {
        let create = CreateExecOptions {
            attach_stdin: Some(options.stdin),
            attach_stdout: Some(options.stdout),
            attach_stderr: Some(options.stderr && !options.tty),
            tty: Some(options.tty),
            cmd: Some(options.command),
            ..Default::default()
        };
        let exec = self.api.create_exec(id, create).await.map_err(failed)?.id;
        let start = StartExecOptions { detach: false, tty: options.tty, output_capacity: None };
        match self.api.start_exec(&exec, Some(start)).await.map_err(failed)? {
            StartExecResults::Attached { output, input } => {
                Ok(Session { id: SessionId::Exec(exec), output: split(output), stdin: input })
            }
            StartExecResults::Detached => Err(RuntimeError::Failed("the exec session was detached".into())),
        }
    }

    pub(super) async fn exec_to_end(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecResult> {
        let run = async {
            let options = ExecOptions { command: command.to_vec(), stdout: true, stderr: true, ..Default::default() };
            let mut session = self.exec_session(id, options).await?;
            let mut output = Vec::new();
            while let Some(piece) = session.output.next().await {
                let (_, bytes) = piece?;
                let room = EXEC_OUTPUT_BYTES_MAX - output.len();
                output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Ok(ExecResult { exit_code: self.session_exit_code(&session.id).await?, output })
        };
        let seconds = limit.as_secs();
        tokio::time::timeout(limit, run).await.unwrap_or(Err(RuntimeError::TimedOut { operation: "command", seconds }))
    }

    pub(super) async fn attach_session(&self, id: &str, options: AttachOptions) -> Result<Session> {
        let attach = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdin(options.stdin)
            .stdout(options.stdout)
            .stderr(options.stderr)
            .build();
        let attached = self.api.attach_container(id, Some(attach)).await.map_err(failed)?;
        Ok(Session { id: SessionId::Container(id.to_string()), output: split(attached.output), stdin: attached.input })
    }

    pub(super) async fn resize_session(&self, session: &SessionId, width: u16, height: u16) -> Result<()> {
        let (w, h) = (i32::from(width), i32::from(height));
        match session {
            SessionId::Exec(id) => {
                self.api.resize_exec(id, bollard::exec::ResizeExecOptions { width, height }).await.map_err(failed)
            }
            SessionId::Container(id) => {
                let size = ResizeContainerTTYOptionsBuilder::default().h(h).w(w).build();
                self.api.resize_container_tty(id, size).await.map_err(failed)
            }
        }
    }

    pub(super) async fn session_exit_code(&self, session: &SessionId) -> Result<i32> {
        match session {
            SessionId::Exec(id) => {
                for _ in 0..EXIT_POLLS_MAX {
                    let exec = self.api.inspect_exec(id).await.map_err(failed)?;
                    if let (Some(false), Some(code)) = (exec.running, exec.exit_code) {
                        return Ok(code as i32);
                    }
                    tokio::time::sleep(EXIT_POLL).await;
                }
                Err(RuntimeError::Failed("the command closed its output but did not end".into()))
            }
            SessionId::Container(id) => self.wait_for_exit(id).await,
        }
    }

    pub(super) async fn log_lines(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        let tail = options.tail.map_or("all".to_string(), |lines| lines.to_string());
        let request = LogsOptionsBuilder::default()
            .follow(options.follow)
            .stdout(options.stdout)
            .stderr(options.stderr)
            .timestamps(true)
            .since(options.since.map_or(0, |since| i32::try_from(since.as_second()).unwrap_or(i32::MAX)))
            .tail(&tail)
            .build();
        let api = self.api.clone();
        let mut open: HashMap<&'static str, bool> = HashMap::new();
        let since = options.since;
        let output = api.logs(id, Some(request));
        let lines = output.map(move |piece| piece.map_err(failed).map(|piece| line(piece, &mut open)));
        let keep = move |line: &Result<LogLine>| {
            let early = |at: Option<Timestamp>| matches!((at, since), (Some(at), Some(since)) if at < since);
            !line.as_ref().is_ok_and(|line| early(line.timestamp))
        };
        Ok(lines.filter(move |line| std::future::ready(keep(line))).boxed())
    }
}

/// Docker puts a timestamp before each stored piece of a line; only the first of a line is of interest.
fn line(output: LogOutput, open: &mut HashMap<&'static str, bool>) -> LogLine {
    let (stream, key) = match &output {
        LogOutput::StdErr { .. } => (Stream::Stderr, "stderr"),
        _ => (Stream::Stdout, "stdout"),
    };
    let bytes = output.into_bytes();
    let (timestamp, content) = without_timestamp(&bytes);
    let continued = open.insert(key, !content.ends_with(b"\n")).unwrap_or(false);
    LogLine { stream, timestamp: timestamp.filter(|_| !continued), content }
}

fn without_timestamp(bytes: &Bytes) -> (Option<Timestamp>, Bytes) {
    let Some(space) = bytes.iter().take(40).position(|byte| *byte == b' ') else { return (None, bytes.clone()) };
    match std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok()) {
        Some(timestamp) => (Some(timestamp), bytes.slice(space + 1..)),
        None => (None, bytes.clone()),
    }
}

fn split(
    output: impl futures::Stream<Item = std::result::Result<LogOutput, bollard::errors::Error>> + Send + 'static,
) -> BoxStream<'static, Result<(Stream, Bytes)>> {
    let pieces = output.map(|piece| match piece {
        Ok(LogOutput::StdErr { message }) => Ok((Stream::Stderr, message)),
        Ok(other) => Ok((Stream::Stdout, other.into_bytes())),
        Err(error) => Err(failed(error)),
    });
    pieces.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timestamp_a_line() {
        let mut open = HashMap::new();
        let mut parse = |text: &str| {
            let line = line(LogOutput::StdOut { message: Bytes::from(text.to_string()) }, &mut open);
            (line.timestamp.is_some(), String::from_utf8_lossy(&line.content).into_owned())
        };
        assert_eq!(parse("2026-01-01T00:00:00.5Z a part "), (true, "a part ".into()));
        assert_eq!(parse("2026-01-01T00:00:00.6Z and the rest\n"), (false, "and the rest\n".into()));
        assert_eq!(parse("2026-01-01T00:00:01Z next\n"), (true, "next\n".into()));
    }
}
