//! The Docker runtime against a real Docker. Runs where SKIFF_TEST_DOCKER names its socket (`unix:///...`) and
//! SKIFF_TEST_IMAGE an image with a shell that is present there; elsewhere it has nothing to show.

use std::time::Duration;

use futures::StreamExt;
use kubelet::runtime::{
    ContainerConfig, ContainerRuntime, ContainerState, ExecOptions, LogOptions, PodIdentity, SandboxConfig, Stream,
    docker::Docker,
};

fn pod() -> PodIdentity {
    PodIdentity { uid: "00000000-0000-0000-0000-000000000001".into(), namespace: "default".into(), name: "web".into() }
}

fn container(sandbox: &str, name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        pod: pod(),
        sandbox_id: sandbox.into(),
        name: name.into(),
        image: std::env::var("SKIFF_TEST_IMAGE").unwrap_or_else(|_| "busybox".into()),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: vec![("GREETING".into(), "hello".into())],
        ..Default::default()
    }
}

async fn clear(docker: &Docker) {
    for pod in docker.list().await.expect("docker answers").into_values() {
        for container in pod.containers {
            docker.remove_container(&container.id).await.expect("docker answers");
        }
        for sandbox in pod.sandboxes {
            docker.remove_pod_sandbox(&sandbox.id).await.expect("docker answers");
        }
    }
}

#[tokio::test]
async fn a_pod_lives_and_ends_on_docker() {
    let Ok(endpoint) = std::env::var("SKIFF_TEST_DOCKER") else {
        return eprintln!("skipped: SKIFF_TEST_DOCKER is not set");
    };
    let docker = Docker::connect(&endpoint, "test-node", "bridge").await.unwrap();
    clear(&docker).await;
    assert_eq!(docker.version().await.unwrap().name, "docker");
    let mut events = docker.events().await.unwrap();

    let config = SandboxConfig { pod: pod(), hostname: "web".into(), ..Default::default() };
    let sandbox = docker.run_pod_sandbox(&config).await.unwrap();
    let view = docker.pod(&pod().uid).await.unwrap();
    let ready = view.ready_sandbox().unwrap();
    assert!(!ready.ips.is_empty() && ready.pid.is_some(), "{ready:?}");

    let script = "echo $GREETING; echo oops >&2; trap 'exit 3' TERM; while :; do sleep 0.1; done";
    let id = docker.create_container(&container(&sandbox, "app", script)).await.unwrap();
    docker.start_container(&id).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
    assert_eq!(event.pod_uid, pod().uid);

    let command = |script: &str| ["/bin/sh", "-c", script].map(str::to_string).to_vec();
    let result = docker.exec_sync(&id, &command("hostname; exit 7"), Duration::from_secs(10)).await.unwrap();
    assert_eq!((result.exit_code, String::from_utf8_lossy(&result.output).trim()), (7, "web"));
    let late = docker.exec_sync(&id, &command("sleep 5"), Duration::from_millis(300)).await;
    assert!(late.is_err());

    let options = ExecOptions {
        command: command("test -t 0 && echo tty"),
        tty: true,
        stdin: true,
        stdout: true,
        ..Default::default()
    };
    let mut session = docker.exec(&id, options).await.unwrap();
    let mut output = Vec::new();
    while let Some(Ok((_, piece))) = session.output.next().await {
        output.extend_from_slice(&piece);
    }
    assert_eq!(String::from_utf8_lossy(&output).trim(), "tty");
    assert_eq!(docker.exit_code(&session.id).await.unwrap(), 0);

    let options = LogOptions { stdout: true, stderr: true, ..Default::default() };
    let lines: Vec<_> = docker.logs(&id, options).await.unwrap().map(Result::unwrap).collect().await;
    let of = |stream| lines.iter().find(|line| line.stream == stream).map(|line| line.content.clone()).unwrap();
    assert_eq!((&of(Stream::Stdout)[..], &of(Stream::Stderr)[..]), (&b"hello\n"[..], &b"oops\n"[..]));
    assert!(!docker.stats().await.unwrap().is_empty());

    docker.stop_container(&id, Duration::from_secs(5)).await.unwrap();
    let view = docker.pod(&pod().uid).await.unwrap();
    let ended = view.container("app").unwrap();
    assert_eq!((ended.state, ended.exit_code, ended.reason.as_str()), (ContainerState::Exited, 3, "Error"));

    let mut unstartable = container(&sandbox, "bad", "");
    unstartable.command = vec!["/no/such/program".into()];
    let bad = docker.create_container(&unstartable).await.unwrap();
    assert!(docker.start_container(&bad).await.is_err());
    let view = docker.pod(&pod().uid).await.unwrap();
    assert_eq!(view.container("bad").unwrap().reason, "ContainerCannotRun");

    docker.stop_pod_sandbox(&sandbox).await.unwrap();
    clear(&docker).await;
    assert!(docker.pod(&pod().uid).await.unwrap().is_empty());
}
