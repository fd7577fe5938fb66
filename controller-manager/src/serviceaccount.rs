//! Gives each namespace its ServiceAccount `default`.
//!
//! Guarantees: an active namespace has it, also after it was deleted.
//! Relies on:  nothing.

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness},
    informer::Informer,
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;

const NAME: &str = "default";

/// An active namespace.
pub struct Observed {
    namespace: String,
    exists: bool,
}

pub(crate) struct ServiceAccounts {
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

/// Whether things may still be created in a namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

impl Controller for ServiceAccounts {
    const NAME: &'static str = "serviceaccount";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        let exists = self.accounts.get(&key.name, NAME).is_some();
        let active = self.namespaces.get("", &key.name).filter(|namespace| is_active(namespace));
        Ok(active.map(|_| Observed { namespace: key.name.clone(), exists }))
    }

    fn decide(&self, observed: &Observed, _: Timestamp) -> Decision {
        let mut decision = Decision::default();
        if !observed.exists {
            let metadata = ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(observed.namespace.clone()),
                ..ObjectMeta::default()
            };
            decision.actions.push(Action::create(&ServiceAccount { metadata, ..ServiceAccount::default() }));
        }
        decision
    }
}

pub(crate) fn run(caches: &Caches, context: Context, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let controller = ServiceAccounts { namespaces: caches.namespaces(), accounts: caches.service_accounts() };
    let (namespaces, accounts) = (controller.namespaces.clone(), controller.accounts.clone());
    Harness::new(controller)
        .watch(&namespaces, |_, change| [Key::of(&**change.object())])
        .watch(&accounts, |_, change| {
            let meta = &change.object().metadata;
            meta.namespace.clone().filter(|_| meta.name.as_deref() == Some(NAME)).map(Key::cluster)
        })
        .run(context, stop)
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_namespace_without_the_account_gets_it_unless_it_is_leaving() {
        let namespace = |name: &str, phase: &str| -> Namespace {
            serde_json::from_value(serde_json::json!({"metadata": {"name": name}, "status": {"phase": phase}})).unwrap()
        };
        let namespaces = [namespace("a", "Active"), namespace("b", "Terminating")];
        let controller =
            ServiceAccounts { namespaces: Informer::holding(namespaces, &[]), accounts: Informer::holding([], &[]) };
        let observed = controller.observe(&Key::cluster("a"), None).await.unwrap().unwrap();
        let actions = controller.decide(&observed, Timestamp::UNIX_EPOCH).actions;
        assert_eq!(actions[0].to_string(), "create ServiceAccount a/default");
        assert!(controller.observe(&Key::cluster("b"), None).await.unwrap().is_none());
    }
}
