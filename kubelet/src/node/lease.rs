//! Says "I am alive" every ten seconds, in a task of its own that nothing else can delay.

use std::time::Duration;

use clock::{Chance, Clock};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);

/// Renews until it is dropped. `uid` is the Node's, which owns the lease.
pub async fn renew(client: Client, clock: Clock, chance: Chance, node: String, uid: String) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    loop {
        let wait = match renew_once(&api, &clock, &node, &uid).await {
            Ok(()) => RENEW,
            Err(error) => {
                tracing::warn!(node, error = &error as &dyn std::error::Error, "lease not renewed");
                RETRY * 4
            }
        };
        tokio::time::sleep(chance.jitter(wait, 0.04)).await;
    }
}

async fn renew_once(api: &Api<Lease>, clock: &Clock, node: &str, uid: &str) -> kube::Result<()> {
    let now = MicroTime(clock.now());
    let patch = json!({"spec": {"holderIdentity": node, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}});
    match api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let owner = OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.into(),
                uid: uid.into(),
                ..Default::default()
            };
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(node.into()),
                    namespace: Some(NAMESPACE.into()),
                    owner_references: Some(vec![owner]),
                    ..Default::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(node.into()),
                    lease_duration_seconds: Some(DURATION_SECONDS),
                    renew_time: Some(now),
                    ..Default::default()
                }),
            };
            api.create(&PostParams::default(), &lease).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}
