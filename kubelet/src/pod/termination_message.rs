//! What a container says about its own end: a file that it may write, or the end of its log.

use std::path::{Path, PathBuf};

use futures::StreamExt;
use tokio::io::AsyncReadExt;

use crate::runtime::{ContainerRuntime, ContainerStatus, LogOptions, labels};

/// Of the file, as upstream.
const FILE_BYTES_MAX: u64 = 4096;
const LOG_LINES_MAX: u64 = 80;
const LOG_BYTES_MAX: usize = 2048;

/// The file on the node that is mounted at terminationMessagePath; known from Pod, container and attempt alone.
pub fn file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(attempt.to_string())
}

/// Reads what an ended container left.
pub async fn read(runtime: &dyn ContainerRuntime, pod_dir: &Path, status: &ContainerStatus) -> String {
    let message = read_file(&file(pod_dir, &status.name, status.attempt)).await;
    let policy = status.labels.get(labels::TERMINATION_MESSAGE_POLICY).map(String::as_str);
    if !message.is_empty() || policy != Some("FallbackToLogsOnError") || status.exit_code == 0 {
        return message;
    }
    read_log(runtime, &status.id).await
}

async fn read_file(path: &Path) -> String {
    // Absent when the container has no terminationMessagePath or was made before a restart that cleaned up.
    let Ok(file) = tokio::fs::File::open(path).await else { return String::new() };
    let mut bytes = Vec::new();
    match file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).await {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("Error on reading termination log {}: {error}", path.display()),
    }
}

async fn read_log(runtime: &dyn ContainerRuntime, id: &str) -> String {
    let options = LogOptions { tail: Some(LOG_LINES_MAX), stdout: true, stderr: true, ..Default::default() };
    let mut lines = match runtime.logs(id, options).await {
        Ok(lines) => lines,
        Err(error) => return format!("Error on reading termination message from logs: {error}"),
    };
    let mut text = Vec::new();
    while let Some(Ok(line)) = lines.next().await {
        text.extend_from_slice(&line.content);
    }
    let start = text.len().saturating_sub(LOG_BYTES_MAX);
    String::from_utf8_lossy(&text[start..]).into_owned()
}
