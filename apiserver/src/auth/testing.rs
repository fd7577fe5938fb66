//! A cluster in memory, for the table tests of this module.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use api::{Object, object::ObjectExt};
use clock::{Chance, Clock};
use parking_lot::Mutex;
use serde_json::json;

use super::{Auth, ServiceAccountKeys, TokenConfig, rbac::GROUP};
use crate::{
    request::{RequestInfo, User},
    view::View,
};

type Key = (String, String, String, String);

#[derive(Default)]
struct Objects(Mutex<(u64, BTreeMap<Key, Arc<Object>>)>);

fn key(group: &str, resource: &str, namespace: &str, name: &str) -> Key {
    (group.into(), resource.into(), namespace.into(), name.into())
}

impl View for Objects {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.0.lock().1.get(&key(group, resource, namespace, name)).cloned()
    }
    fn list(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let objects = self.0.lock();
        let wanted = |key: &Key| key.0 == group && key.1 == resource && namespace.is_none_or(|of| of == key.2);
        objects.1.iter().filter(|(key, _)| wanted(key)).map(|(_, object)| Arc::clone(object)).collect()
    }
    fn version(&self, _group: &str, _resource: &str) -> u64 {
        self.0.lock().0
    }
}

/// Objects by group, resource, namespace and name.
#[derive(Default)]
pub struct Cluster {
    objects: Arc<Objects>,
    bound: AtomicUsize,
}

impl Cluster {
    pub fn view(&self) -> Arc<dyn View> {
        Arc::<Objects>::clone(&self.objects)
    }

    pub fn put(&self, group: &str, resource: &str, object: Object) {
        let mut objects = self.objects.0.lock();
        objects.0 += 1;
        let key = key(group, resource, object.namespace(), object.name());
        objects.1.insert(key, Arc::new(object));
    }

    pub fn remove(&self, group: &str, resource: &str, namespace: &str, name: &str) {
        let mut objects = self.objects.0.lock();
        objects.0 += 1;
        objects.1.remove(&key(group, resource, namespace, name));
    }

    /// Gives a user the rules everywhere.
    pub fn bind(&self, user: &str, rules: Object) {
        let name = format!("given-{}", self.bound.fetch_add(1, Ordering::Relaxed));
        self.put(GROUP, "clusterroles", json!({"metadata": {"name": name}, "rules": rules}));
        self.put(
            GROUP,
            "clusterrolebindings",
            json!({"metadata": {"name": name},
            "roleRef": {"kind": "ClusterRole", "name": name}, "subjects": [{"kind": "User", "name": user}]}),
        );
    }

    pub fn auth(&self) -> Auth {
        self.auth_at(Clock::machine())
    }

    /// With a signing key of its own.
    pub fn auth_at(&self, clock: Clock) -> Auth {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let keys = ServiceAccountKeys::from_pems(&[key]).unwrap();
        Auth::new(self.view(), clock, Chance::seeded(1), keys, TokenConfig::in_cluster("10.96.0.1:443"))
    }
}

/// `GET /api/v1/pods?watch=true`.
pub fn parse_request(text: &str) -> RequestInfo {
    let (method, target) = text.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    RequestInfo::parse(&method.parse().unwrap(), path, query)
}

pub fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.into(), groups: groups.iter().map(|group| (*group).into()).collect(), ..User::default() }
}
