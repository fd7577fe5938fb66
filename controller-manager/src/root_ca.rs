//! Publishes the cluster's CA certificates in each namespace, as ConfigMap `kube-root-ca.crt`.
//!
//! Guarantees: an active namespace has the map, with exactly these certificates.
//! Relies on:  nothing.

use std::{collections::BTreeMap, sync::Arc};

use client::{
    Key,
    controller::{Action, Context, Controller, Decision, Failure, Harness},
    informer::Informer,
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use tokio_util::sync::CancellationToken;

use crate::{caches::Caches, serviceaccount::is_active};

/// The name of the ConfigMap.
pub const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

/// An active namespace.
pub struct Observed {
    namespace: String,
    published: Option<Arc<ConfigMap>>,
}

pub(crate) struct RootCertificates {
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
    /// PEM.
    bundle: String,
}

impl Controller for RootCertificates {
    const NAME: &'static str = "root_ca_cert_publisher";
    type Observed = Observed;

    async fn observe(&self, key: &Key, _: Option<Failure>) -> anyhow::Result<Option<Observed>> {
        let published = self.maps.get(&key.name, NAME);
        let active = self.namespaces.get("", &key.name).filter(|namespace| is_active(namespace));
        Ok(active.map(|_| Observed { namespace: key.name.clone(), published }))
    }

    fn decide(&self, observed: &Observed, _: Timestamp) -> Decision {
        let mut decision = Decision::default();
        let data = BTreeMap::from([(FILE.to_owned(), self.bundle.clone())]);
        match &observed.published {
            Some(map) if map.data.as_ref() == Some(&data) => (),
            Some(map) => {
                let map = ConfigMap { data: Some(data), ..ConfigMap::clone(map) };
                decision.actions.push(Action::replace(&map));
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(NAME.into()),
                    namespace: Some(observed.namespace.clone()),
                    annotations: Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into()),
                    ..ObjectMeta::default()
                };
                decision.actions.push(Action::create(&ConfigMap {
                    metadata,
                    data: Some(data),
                    ..ConfigMap::default()
                }));
            }
        }
        decision
    }
}

pub(crate) fn run(
    caches: &Caches,
    context: Context,
    bundle: String,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    let controller = RootCertificates { namespaces: caches.namespaces(), maps: caches.root_certificates(), bundle };
    let (namespaces, maps) = (controller.namespaces.clone(), controller.maps.clone());
    Harness::new(controller)
        .watch(&namespaces, |_, change| [Key::of(&**change.object())])
        .watch(&maps, |_, change| change.object().metadata.namespace.clone().map(Key::cluster))
        .run(context, stop)
        .boxed()
}
