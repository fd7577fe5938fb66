//! Lifecycle hooks: postStart and preStop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::{probe::http, runtime::ContainerRuntime};

/// A hook without a limit of its own still ends.
const EXEC_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// As upstream's HTTP client for hooks.
const HTTP_LIMIT: Duration = Duration::from_secs(60);

/// Runs a hook to its end.
///
/// # Errors
/// What went wrong, in upstream's sentence; `pod` is the Pod's full name.
pub async fn run(
    runtime: &dyn ContainerRuntime,
    id: &str,
    container: &Container,
    handler: &LifecycleHandler,
    pod: &str,
    ip: &str,
) -> Result<(), String> {
    let name = &container.name;
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let (error, output) = match runtime.exec_sync(id, &command, EXEC_LIMIT).await {
            Ok(result) if result.exit_code == 0 => return Ok(()),
            Ok(result) => (
                format!("command '{}' exited with {}", command.join(" "), result.exit_code),
                String::from_utf8_lossy(&result.output).into_owned(),
            ),
            Err(error) => (error.to_string(), String::new()),
        };
        return Err(format!(
            "Exec lifecycle hook ([{}]) for Container \"{name}\" in Pod \"{pod}\" failed - error: {error}, message: \"{output}\"",
            command.join(" ")
        ));
    }
    if let Some(action) = &handler.http_get {
        let path = action.path.as_deref().unwrap_or_default();
        let answer = match http::Target::of(action, container, ip, "lifecycle") {
            Ok(target) => get(&target).await,
            Err(error) => Err(error),
        };
        return answer.map_err(|error| {
            format!("HTTP lifecycle hook ({path}) for Container \"{name}\" in Pod \"{pod}\" failed - error: {error}")
        });
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        return Ok(());
    }
    // tcpSocket was never a hook; upstream says the same.
    Err("Cannot run handler: invalid handler".into())
}

/// Any answer will do; a server that speaks plain HTTP on an https hook is asked again in HTTP.
async fn get(target: &http::Target) -> Result<(), String> {
    match http::get(target, HTTP_LIMIT).await {
        Err(error) if target.https && error.contains("tls:") => {
            let plain = http::Target { https: false, ..target.clone() };
            http::get(&plain, HTTP_LIMIT).await.map(|_| ()).map_err(|_| error)
        }
        answer => answer.map(|_| ()),
    }
}
