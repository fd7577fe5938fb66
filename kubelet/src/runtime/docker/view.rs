//! Docker's answers as the kubelet's view.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerState as DockerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum,
};
use jiff::Timestamp;

use crate::runtime::{ContainerState, ContainerStatus, PodIdentity, PodView, SandboxStatus, labels};

/// A sandbox or a container.
pub enum Entry {
    Sandbox(PodIdentity, SandboxStatus),
    Container(PodIdentity, Box<ContainerStatus>),
}

/// Puts entries together by Pod, the newest first.
pub fn by_pod(entries: impl IntoIterator<Item = Entry>) -> BTreeMap<String, PodView> {
    let mut view: BTreeMap<String, PodView> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Sandbox(identity, sandbox) => pod(&mut view, identity).sandboxes.push(sandbox),
            Entry::Container(identity, container) => pod(&mut view, identity).containers.push(*container),
        }
    }
    for pod in view.values_mut() {
        pod.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
        pod.containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
    }
    view
}

fn pod(view: &mut BTreeMap<String, PodView>, identity: PodIdentity) -> &mut PodView {
    view.entry(identity.uid.clone()).or_insert_with(|| PodView { identity, ..Default::default() })
}

/// From `GET /containers/json`: what there is, without details.
pub fn of_summary(summary: ContainerSummary) -> Option<Entry> {
    let labels: BTreeMap<String, String> = summary.labels?.into_iter().collect();
    let identity = labels::pod_of(&labels)?;
    let id = summary.id?;
    let created_at = Timestamp::from_second(summary.created.unwrap_or_default()).unwrap_or_default();
    let state = match summary.state {
        Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED) => ContainerState::Running,
        Some(ContainerSummaryStateEnum::CREATED) => ContainerState::Created,
        Some(ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::DEAD) => ContainerState::Exited,
        _ => ContainerState::Unknown,
    };
    if is_sandbox(&labels) {
        let ready = state == ContainerState::Running;
        let attempt = number(&labels, labels::SANDBOX_ATTEMPT);
        return Some(Entry::Sandbox(identity, SandboxStatus { id, attempt, ready, created_at, ..Default::default() }));
    }
    let status = ContainerStatus { id, state, created_at, ..of_labels(labels) };
    Some(Entry::Container(identity, Box::new(status)))
}

/// From `GET /containers/<id>/json`: everything.
pub fn of_inspect(inspect: ContainerInspectResponse, image_id: impl Fn(&str) -> String) -> Option<Entry> {
    let config = inspect.config?;
    let labels: BTreeMap<String, String> = config.labels?.into_iter().collect();
    let identity = labels::pod_of(&labels)?;
    let id = inspect.id?;
    let created_at = inspect.created.as_deref().and_then(time).unwrap_or_default();
    let docker = inspect.state.unwrap_or_default();
    if is_sandbox(&labels) {
        let networks = inspect.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let sandbox = SandboxStatus {
            id,
            attempt: number(&labels, labels::SANDBOX_ATTEMPT),
            ready: docker.running.unwrap_or_default(),
            created_at,
            ips: addresses(&networks),
            host_network: networks.contains_key("host"),
            pid: docker.pid.filter(|pid| *pid > 0).and_then(|pid| i32::try_from(pid).ok()),
        };
        return Some(Entry::Sandbox(identity, sandbox));
    }
    let state = state_of(&docker);
    let never_ran = docker.started_at.as_deref().and_then(time).is_none();
    let ended = state == ContainerState::Exited;
    let status = ContainerStatus {
        id,
        state,
        created_at,
        started_at: docker.started_at.as_deref().and_then(time),
        finished_at: ended.then(|| docker.finished_at.as_deref().and_then(time).unwrap_or(created_at)),
        exit_code: docker.exit_code.unwrap_or_default() as i32,
        reason: if ended { reason(&docker, never_ran).to_string() } else { String::new() },
        message: docker.error.clone().unwrap_or_default(),
        image_id: image_id(&inspect.image.unwrap_or_default()),
        ..of_labels(labels)
    };
    Some(Entry::Container(identity, Box::new(status)))
}

fn of_labels(labels: BTreeMap<String, String>) -> ContainerStatus {
    let get = |key: &str| labels.get(key).cloned().unwrap_or_default();
    ContainerStatus {
        name: get(labels::CONTAINER_NAME),
        attempt: number(&labels, labels::RESTART_COUNT),
        hash: get(labels::HASH),
        sandbox_id: get(labels::SANDBOX_ID),
        image: get(labels::IMAGE),
        labels,
        ..Default::default()
    }
}

fn state_of(docker: &DockerState) -> ContainerState {
    match docker.status {
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => ContainerState::Running,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => ContainerState::Exited,
        // Docker leaves what it could not start as created, with the error beside it.
        Some(ContainerStateStatusEnum::CREATED) if docker.exit_code.unwrap_or_default() != 0 => ContainerState::Exited,
        Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
        _ => ContainerState::Unknown,
    }
}

fn reason(docker: &DockerState, never_ran: bool) -> &'static str {
    match docker.exit_code.unwrap_or_default() {
        _ if docker.oom_killed.unwrap_or_default() => "OOMKilled",
        0 => "Completed",
        _ if never_ran => "ContainerCannotRun",
        _ => "Error",
    }
}

fn is_sandbox(labels: &BTreeMap<String, String>) -> bool {
    labels.get(labels::TYPE).is_some_and(|r#type| r#type == labels::TYPE_SANDBOX)
}

fn number(labels: &BTreeMap<String, String>, key: &str) -> u32 {
    labels.get(key).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Docker's zero time, 0001-01-01, means never.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|time: &Timestamp| time.as_second() > 0)
}

fn addresses(networks: &HashMap<String, bollard::models::EndpointSettings>) -> Vec<std::net::IpAddr> {
    let texts = networks.values().flat_map(|endpoint| [&endpoint.ip_address, &endpoint.global_ipv6_address]);
    texts.flatten().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(json: serde_json::Value) -> (ContainerState, String, i32) {
        let inspect = serde_json::json!({
            "Id": "c", "Created": "2026-01-01T00:00:00Z", "State": json,
            "Config": {"Labels": {labels::POD_NAME: "p", labels::POD_NAMESPACE: "n", labels::POD_UID: "u",
                                  labels::CONTAINER_NAME: "app", labels::RESTART_COUNT: "2"}}});
        let Some(Entry::Container(_, status)) =
            of_inspect(serde_json::from_value(inspect).unwrap(), |id| id.to_string())
        else {
            panic!("a container")
        };
        assert_eq!(status.attempt, 2);
        (status.state, status.reason, status.exit_code)
    }

    #[test]
    fn the_end_of_a_container_has_kubernetes_words() {
        let ran = "2026-01-01T00:00:01Z";
        let case = |value| state(value);
        let exited = |code: i32, oom: bool| serde_json::json!({"Status": "exited", "ExitCode": code, "OOMKilled": oom, "StartedAt": ran, "FinishedAt": ran});
        assert_eq!(case(exited(0, false)), (ContainerState::Exited, "Completed".into(), 0));
        assert_eq!(case(exited(137, true)), (ContainerState::Exited, "OOMKilled".into(), 137));
        assert_eq!(case(exited(3, false)), (ContainerState::Exited, "Error".into(), 3));
        let unstartable =
            serde_json::json!({"Status": "created", "ExitCode": 127, "StartedAt": "0001-01-01T00:00:00Z"});
        assert_eq!(case(unstartable), (ContainerState::Exited, "ContainerCannotRun".into(), 127));
    }
}
