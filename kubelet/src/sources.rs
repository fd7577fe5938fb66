//! ConfigMaps and Secrets that the Pods of this node name: each is watched while some Pod here refers to it.
//!
//! A node may read only what its Pods name (the Node authorizer), one object at a time; so one informer an object.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use client::informer::{Change, Informer, Selection};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Pod, Secret},
};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::pod::{long_lived, namespace, spec, uid};

/// How long a Pod waits for the first answer about an object before it is tried again.
const SYNC_WAIT: Duration = Duration::from_secs(10);

/// Why an object is not at hand.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceError {
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: String },
    #[error("failed to sync {kind} cache: timed out waiting for the condition")]
    NotSynced { kind: &'static str },
}

impl SourceError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

type Key = (String, String);

struct Watched<K> {
    informer: Informer<K>,
    stop: CancellationToken,
    /// Who is woken when it changes, by Pod uid.
    users: BTreeMap<String, Arc<Notify>>,
}

/// Objects of one kind.
struct Kind<K> {
    name: &'static str,
    client: Client,
    watched: Mutex<BTreeMap<Key, Watched<K>>>,
}

impl<K> Kind<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    fn new(name: &'static str, client: Client) -> Arc<Self> {
        Arc::new(Self { name, client, watched: Mutex::new(BTreeMap::new()) })
    }

    /// Exactly these objects are of interest to a Pod from now on.
    fn track(self: &Arc<Self>, uid: &str, wanted: &BTreeSet<Key>, wake: &Arc<Notify>) {
        let mut watched = self.watched.lock();
        for key in wanted {
            let entry = watched.entry(key.clone()).or_insert_with(|| self.watch(key.clone()));
            entry.users.entry(uid.into()).or_insert_with(|| wake.clone());
        }
        watched.retain(|key, entry| {
            if !wanted.contains(key) {
                entry.users.remove(uid);
            }
            let used = !entry.users.is_empty();
            if !used {
                entry.stop.cancel();
            }
            used
        });
    }

    fn watch(self: &Arc<Self>, key: Key) -> Watched<K> {
        let stop = CancellationToken::new();
        let selection = Selection { fields: Some(format!("metadata.name={}", key.1)), ..Default::default() };
        let informer = Informer::start(Api::namespaced(self.client.clone(), &key.0), selection, stop.clone());
        let (mut changes, of, until) = (informer.subscribe(), self.clone(), stop.clone());
        tokio::spawn(async move {
            let wake_all = || {
                if let Some(entry) = of.watched.lock().get(&key) {
                    entry.users.values().for_each(|wake| wake.notify_one());
                }
            };
            loop {
                tokio::select! {
                    () = until.cancelled() => return,
                    change = changes.recv() => match change {
                        Some(Change::Applied { .. } | Change::Deleted(_)) => wake_all(),
                        None => return,
                    }
                }
            }
        });
        Watched { informer, stop, users: BTreeMap::new() }
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, SourceError> {
        let key = (namespace.to_string(), name.to_string());
        let informer = self.watched.lock().get(&key).map(|entry| entry.informer.clone());
        let informer = informer.ok_or(SourceError::NotSynced { kind: self.name })?;
        if tokio::time::timeout(SYNC_WAIT, informer.synced()).await.is_err() {
            return Err(SourceError::NotSynced { kind: self.name });
        }
        informer.get(namespace, name).ok_or(SourceError::NotFound { kind: self.name, name: name.into() })
    }
}

/// Both kinds; cheap to clone.
#[derive(Clone)]
pub struct Sources {
    config_maps: Arc<Kind<ConfigMap>>,
    secrets: Arc<Kind<Secret>>,
}

impl Sources {
    pub fn new(client: Client) -> Self {
        Self { config_maps: Kind::new("configmap", client.clone()), secrets: Kind::new("secret", client) }
    }

    /// Watches what a Pod names; `wake` is rung when any of it changes. `volumes` are left out on hollow nodes.
    pub fn track(&self, pod: &Pod, volumes: bool, wake: &Arc<Notify>) {
        let names = references(pod, volumes);
        let keys = |names: &BTreeSet<String>| -> BTreeSet<Key> {
            names.iter().map(|name| (namespace(pod).to_string(), name.clone())).collect()
        };
        self.config_maps.track(uid(pod), &keys(&names.config_maps), wake);
        self.secrets.track(uid(pod), &keys(&names.secrets), wake);
    }

    /// The Pod is gone: watches that nobody needs end.
    pub fn forget(&self, uid: &str) {
        let wake = Arc::new(Notify::new());
        self.config_maps.track(uid, &BTreeSet::new(), &wake);
        self.secrets.track(uid, &BTreeSet::new(), &wake);
    }

    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, SourceError> {
        self.config_maps.get(namespace, name).await
    }

    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, SourceError> {
        self.secrets.get(namespace, name).await
    }
}

#[derive(Debug, Default, Eq, PartialEq)]
struct References {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

fn references(pod: &Pod, volumes: bool) -> References {
    let mut found = References::default();
    let spec = spec(pod);
    found.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()));
    for (_, container) in long_lived(pod) {
        for from in container.env_from.iter().flatten() {
            found.config_maps.extend(from.config_map_ref.as_ref().map(|reference| reference.name.clone()));
            found.secrets.extend(from.secret_ref.as_ref().map(|reference| reference.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            found.config_maps.extend(source.config_map_key_ref.as_ref().map(|reference| reference.name.clone()));
            found.secrets.extend(source.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten().filter(|_| volumes) {
        found.config_maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
        found.secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
        let projections = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for source in projections {
            found.config_maps.extend(source.config_map.as_ref().map(|source| source.name.clone()));
            found.secrets.extend(source.secret.as_ref().map(|source| source.name.clone()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_names_an_object_is_found() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "a"}}]}],
            "containers": [{"name": "c", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}]}},
                        {"name": "w", "secret": {"secretName": "d"}}]}}))
        .unwrap();
        let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
        let found = references(&pod, true);
        assert_eq!((found.config_maps, found.secrets), (set(&["a", "c"]), set(&["b", "d", "pull"])));
        assert_eq!(references(&pod, false).config_maps, set(&["a"]));
    }
}
