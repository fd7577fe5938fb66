use expect_test::{Expect, expect};

use super::*;

const NOW: &str = "2026-01-01T00:01:40Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// The Node `a`, with conditions given as `Ready=True` and taints as `key:effect`.
fn node(conditions: &[&str], taints: &[&str]) -> Node {
    let condition = |text: &&str| {
        let (r#type, status) = text.split_once('=').unwrap();
        json!({"type": r#type, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let taint = |text: &&str| {
        let (key, effect) = text.split_once(':').unwrap();
        json!({"key": key, "effect": effect})
    };
    let json = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"},
        "spec": {"taints": taints.iter().map(taint).collect::<Vec<_>>()},
        "status": {"conditions": conditions.iter().map(condition).collect::<Vec<_>>()}});
    serde_json::from_value(json).unwrap()
}

fn present(node: Node, silent_seconds: u64) -> Observed {
    let felt_at = now() - Duration::from_secs(silent_seconds);
    Observed::Present { node: Arc::new(node), felt_at, is_new: false, any_ready: true, unmarked: Vec::new() }
}

fn check(observed: &Observed, expected: Expect) {
    let decision = decide(observed, Config::default(), now());
    let notes = decision.actions.iter().filter_map(|action| action.success.as_ref()).chain(&decision.why);
    let notes = notes.map(|note| format!("{}: {}", note.reason, note.message));
    let again = decision.check_again_at.map(|at| format!("again in {:#}", at - now()));
    let lines: Vec<String> = decision.actions.iter().map(Action::to_string).chain(notes).chain(again).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_healthy_node_causes_no_writes() {
    check(&present(node(&["Ready=True", "MemoryPressure=False"], &[]), 10), expect!["again in 30s"]);
    check(&present(node(&["Ready=True"], &["mine:NoExecute", "mine:NoSchedule"]), 0), expect!["again in 40s"]);
    check(&present(node(&[], &[]), 45), expect!["again in 15s"]);
}

#[test]
fn a_silent_node_becomes_unknown() {
    let told = expect![[r#"
        replace Node/status a
        NodeNotReady: Node a status is now: NodeNotReady"#]];
    check(&present(node(&["Ready=True", "NetworkUnavailable=False"], &[]), 40), told);
    let silent = silenced(&node(&["Ready=True", "NetworkUnavailable=False"], &[]), now()).unwrap();
    let conditions = silent.status.as_ref().unwrap().conditions.iter().flatten();
    let lines: Vec<String> = conditions
        .map(|found| format!("{}={} {}", found.type_, found.status, found.reason.as_deref().unwrap_or("-")))
        .collect();
    let expected = expect![[r#"
        Ready=Unknown NodeStatusUnknown
        NetworkUnavailable=False -
        MemoryPressure=Unknown NodeStatusNeverUpdated
        DiskPressure=Unknown NodeStatusNeverUpdated
        PIDPressure=Unknown NodeStatusNeverUpdated"#]];
    expected.assert_eq(&lines.join("\n"));
    assert!(silenced(&silent, now()).is_none(), "once is enough");
}

#[test]
fn taints_follow_conditions() {
    let unreachable = expect![[
        r#"patch Node a {"metadata":{"resourceVersion":"7","uid":"u"},"spec":{"taints":[{"effect":"NoSchedule","key":"mine"},{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T00:01:40Z"},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T00:01:40Z"}]}}
again in 40s"#
    ]];
    let before =
        ["mine:NoSchedule", "node.kubernetes.io/not-ready:NoExecute", "node.kubernetes.io/not-ready:NoSchedule"];
    check(&present(node(&["Ready=Unknown"], &before), 0), unreachable);
    let pressure = expect![[
        r#"patch Node a {"metadata":{"resourceVersion":"7","uid":"u"},"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/disk-pressure","timeAdded":"2026-01-01T00:01:40Z"}]}}
again in 40s"#
    ]];
    let cordoned = ["node.kubernetes.io/unschedulable:NoSchedule"];
    check(&present(node(&["Ready=True", "DiskPressure=True"], &cordoned), 0), pressure);
}

#[test]
fn nobody_is_driven_out_while_no_node_is_ready() {
    let taints = |any_ready| {
        let action = taints::reconcile(&node(&["Ready=False"], &[]), any_ready, now()).unwrap();
        let client::controller::Verb::Patch { patch, .. } = action.verb else { panic!("a patch") };
        let taints = patch["spec"]["taints"].as_array().unwrap().clone();
        taints.iter().map(|taint| taint["effect"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (taints(true), taints(false)),
        (vec!["NoSchedule".into(), "NoExecute".into()], vec!["NoSchedule".to_owned()])
    );
}

#[test]
fn a_cordon_is_a_taint() {
    let mut cordoned = node(&["Ready=True"], &[]);
    cordoned.spec.as_mut().unwrap().unschedulable = Some(true);
    let action = taints::reconcile(&cordoned, true, now()).unwrap().to_string();
    assert!(action.contains(r#""key":"node.kubernetes.io/unschedulable""#), "{action}");
}

#[test]
fn its_pods_are_no_longer_ready() {
    let json = json!({"metadata": {"namespace": "n", "name": "p", "uid": "p", "resourceVersion": "3"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}});
    let pod: Pod = serde_json::from_value(json).unwrap();
    let taints = ["node.kubernetes.io/not-ready:NoExecute", "node.kubernetes.io/not-ready:NoSchedule"];
    let observed = Observed::Present {
        node: Arc::new(node(&["Ready=False"], &taints)),
        felt_at: now(),
        is_new: true,
        any_ready: true,
        unmarked: vec![Arc::new(pod)],
    };
    let expected = expect![[
        r#"patch Pod/status n/p {"metadata":{"resourceVersion":"3","uid":"p"},"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:01:40Z","status":"False","type":"Ready"},{"status":"True","type":"PodScheduled"}]}}
NodeNotReady: Node is not ready
RegisteredNode: Node a event: Registered Node a in Controller
again in 0s"#
    ]];
    check(&observed, expected);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_a_change_of_the_lease_or_the_status() {
    let lease = |time: &str| -> Lease {
        let json = json!({"metadata": {"namespace": "kube-node-lease", "name": "a"}, "spec": {"renewTime": time}});
        serde_json::from_value(json).unwrap()
    };
    let clock = Clock::starting_at(now());
    let controller = |node: Option<Node>, lease: Lease, pulses| NodeLifecycle {
        nodes: Informer::holding(node, &[]),
        leases: Informer::holding([lease], &[]),
        pods: Informer::holding([], &[(BY_NODE, |_| Vec::new())]),
        clock: clock.clone(),
        config: Config::default(),
        pulses: Mutex::new(pulses),
    };
    let ready = || Some(node(&["Ready=True"], &[]));
    let felt = |observed: Option<Observed>| match observed {
        Some(Observed::Present { felt_at, is_new, .. }) => (is_new, (felt_at - now()).get_seconds()),
        _ => panic!("the node is there"),
    };
    let first = controller(ready(), lease("2020-01-01T00:00:00.000000Z"), HashMap::new());
    assert_eq!(felt(first.observe("a")), (true, 0));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(felt(first.observe("a")), (false, 0), "nothing changed");
    let renewed = controller(ready(), lease("2020-01-01T00:00:01.000000Z"), first.pulses.into_inner());
    assert_eq!(felt(renewed.observe("a")), (false, 10));
    let gone = controller(None, lease("2020-01-01T00:00:01.000000Z"), renewed.pulses.into_inner());
    let removal = expect![[r#"
        RemovingNode: Node a event: Removing Node a from Controller
        again in 0s"#]];
    check(&gone.observe("a").unwrap(), removal);
    assert!(gone.observe("a").is_none());
}
