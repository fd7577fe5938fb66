use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn resource() -> Arc<ApiResource> {
    Arc::new(ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        plural: "configmaps".into(),
    })
}

fn owner(name: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: name.into(),
        uid: name.into(),
        block_owner_deletion: Some(true),
        controller: None,
    }
}

/// The object `n/it`, which may be leaving under a finalizer.
fn meta(finalizer: Option<&str>, is_leaving: bool) -> ObjectMeta {
    let mut meta = json!({"namespace": "n", "name": "it", "uid": "it", "resourceVersion": "7",
        "finalizers": finalizer.into_iter().chain(["example.com/mine"]).collect::<Vec<_>>()});
    if is_leaving {
        meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    serde_json::from_value(meta).unwrap()
}

fn dependent(name: &str, owners: &[OwnerReference], leaving: Leaving) -> Arc<Item> {
    let item = Item {
        resource: resource(),
        key: Key::new("n", name),
        uid: name.into(),
        revision: Some("3".into()),
        owners: owners.to_vec(),
        leaving,
    };
    Arc::new(item)
}

fn check(meta: ObjectMeta, owners: &[(&str, Standing)], dependents: &[Arc<Item>], expected: Expect) {
    let owners = owners.iter().map(|(name, standing)| (owner(name), *standing)).collect();
    let (key, dependents) = (Key::new("n", "it"), dependents.to_vec());
    let decision = decide(&Observed { resource: resource(), key, meta, owners, dependents });
    let notes = decision.why.iter().map(|note| format!("{}: {}", note.reason, note.message));
    let lines: Vec<String> = decision.actions.iter().map(Action::to_string).chain(notes).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn what_has_an_owner_stays() {
    let it = || meta(None, false);
    check(it(), &[], &[], expect![[""]]);
    check(it(), &[("a", Standing::Solid)], &[], expect![[""]]);
    let others_go = expect![[
        r#"patch ConfigMap n/it {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"kind":"ConfigMap","name":"a","uid":"a"}],"resourceVersion":"7","uid":"it"}}"#
    ]];
    check(it(), &[("a", Standing::Solid), ("b", Standing::Absent), ("c", Standing::Waiting)], &[], others_go);
}

#[test]
fn what_has_none_left_goes() {
    let absent = [("a", Standing::Absent), ("b", Standing::Absent)];
    check(meta(None, false), &absent, &[], expect!["delete ConfigMap n/it Background"]);
    check(meta(Some(ORPHAN), false), &absent, &[], expect!["delete ConfigMap n/it Orphan"]);
    check(meta(Some(FOREGROUND), false), &absent, &[], expect!["delete ConfigMap n/it Foreground"]);
    let decision = decide(&Observed {
        resource: resource(),
        key: Key::new("n", "it"),
        meta: meta(None, false),
        owners: vec![(owner("a"), Standing::Absent)],
        dependents: Vec::new(),
    });
    let Verb::Delete(deletion) = &decision.actions[0].verb else { panic!("a delete") };
    assert_eq!((deletion.uid.as_deref(), deletion.revision.as_deref()), (Some("it"), Some("7")));
}

#[test]
fn what_its_owner_waits_for_goes_with_its_own_dependents_first() {
    let waiting = [("a", Standing::Waiting), ("b", Standing::Absent)];
    check(meta(None, false), &waiting, &[], expect!["delete ConfigMap n/it Background"]);
    let child = dependent("child", &[owner("it")], Leaving::No);
    check(meta(None, false), &waiting, &[child], expect!["delete ConfigMap n/it Foreground"]);
    let in_a_cycle = dependent("child", &[owner("it")], Leaving::Foreground);
    let unblocked = expect![[
        r#"patch ConfigMap n/it {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":false,"kind":"ConfigMap","name":"a","uid":"a"}],"resourceVersion":"7","uid":"it"}}"#
    ]];
    check(meta(None, false), &waiting[..1], &[in_a_cycle], unblocked);
}

#[test]
fn a_foreground_owner_waits_for_those_that_block_it() {
    let leaving = || meta(Some(FOREGROUND), true);
    let blocking = dependent("a", &[owner("it")], Leaving::No);
    check(leaving(), &[], &[blocking], expect![[""]]);
    let free = OwnerReference { block_owner_deletion: None, ..owner("it") };
    let other = dependent("a", &[free, owner("another")], Leaving::No);
    let goes = expect![[
        r#"patch ConfigMap n/it {"metadata":{"finalizers":["example.com/mine"],"resourceVersion":"7","uid":"it"}}"#
    ]];
    check(leaving(), &[], &[other], goes);
}

#[test]
fn an_orphaning_owner_lets_its_dependents_go_before_it_goes() {
    let leaving = || meta(Some(ORPHAN), true);
    let children = [dependent("a", &[owner("it")], Leaving::No)];
    let let_go =
        expect![[r#"patch ConfigMap n/a {"metadata":{"ownerReferences":[],"resourceVersion":"3","uid":"a"}}"#]];
    check(leaving(), &[], &children, let_go);
    let goes = expect![[
        r#"patch ConfigMap n/it {"metadata":{"finalizers":["example.com/mine"],"resourceVersion":"7","uid":"it"}}"#
    ]];
    check(leaving(), &[], &[], goes);
}

#[test]
fn owners_that_cannot_own_are_told_about() {
    let elsewhere = expect![[r#"
        delete ConfigMap n/it Background
        OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: n, name: a, uid: a] does not exist in namespace "n""#]];
    check(meta(None, false), &[("a", Standing::Elsewhere)], &[], elsewhere);
    let nowhere = expect![[r#"
        OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: n, name: a, uid: a] does not exist in namespace "n""#]];
    check(meta(None, false), &[("a", Standing::Nowhere)], &[], nowhere);
}
