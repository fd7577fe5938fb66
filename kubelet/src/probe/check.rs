//! One probe of one container.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, Probe};

use super::{grpc, http};
use crate::{
    environment::expand_statically,
    runtime::{ContainerRuntime, RuntimeError},
};

/// What a probe found, with what the container said.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Success,
    /// Counts as success, but is worth an event.
    Warning(String),
    Failure(String),
    /// It could not even be asked; counts as failure.
    Errored(String),
}

/// Where a probe finds its container.
#[derive(Clone)]
pub struct Patient {
    pub runtime: Arc<dyn ContainerRuntime>,
    pub container: Container,
    pub id: String,
    /// The Pod's address.
    pub ip: String,
    /// Hollow nodes have no network: only exec is asked, everything else is well.
    pub hollow: bool,
}

pub async fn check(patient: &Patient, probe: &Probe) -> Outcome {
    let limit = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1) as u64);
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return check_exec(patient, &command, limit).await;
    }
    if patient.hollow {
        return Outcome::Success;
    }
    if let Some(action) = &probe.http_get {
        return match http::Target::of(action, &patient.container, &patient.ip, "probe") {
            Ok(target) => check_http(&target, limit).await,
            Err(error) => Outcome::Errored(error),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&patient.ip);
        return match http::port(&action.port, &patient.container) {
            Ok(port) => check_tcp(host, port, limit).await,
            Err(error) => Outcome::Errored(error),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).unwrap_or_default();
        let service = action.service.as_deref().unwrap_or_default();
        return match grpc::check(&patient.ip, port, service, limit).await {
            Ok(()) => Outcome::Success,
            Err(why) => Outcome::Failure(why),
        };
    }
    Outcome::Errored(format!("missing probe handler for container {}", patient.container.name))
}

async fn check_exec(patient: &Patient, command: &[String], limit: Duration) -> Outcome {
    let variables = patient.container.env.as_deref().unwrap_or_default();
    let command: Vec<String> = command.iter().map(|word| expand_statically(word, variables)).collect();
    match patient.runtime.exec_sync(&patient.id, &command, limit).await {
        Ok(result) if result.exit_code == 0 => Outcome::Success,
        Ok(result) => Outcome::Failure(String::from_utf8_lossy(&result.output).into_owned()),
        Err(RuntimeError::TimedOut { seconds, .. }) => {
            Outcome::Failure(format!("command timed out: {:?} timed out after {seconds}s", command.join(" ")))
        }
        Err(error) => Outcome::Errored(error.to_string()),
    }
}

async fn check_http(target: &http::Target, limit: Duration) -> Outcome {
    match http::get(target, limit).await {
        Ok(answer) if (200..300).contains(&answer.status) => Outcome::Success,
        Ok(answer) if (300..400).contains(&answer.status) => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body))
        }
        Ok(answer) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
        Err(error) => Outcome::Failure(error),
    }
}

async fn check_tcp(host: &str, port: u16, limit: Duration) -> Outcome {
    match tokio::time::timeout(limit, http::dial(host, port)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(error),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", http::authority(host, port))),
    }
}
