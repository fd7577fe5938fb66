//! What the proxy knows of the cluster, and which Services changed since it was last asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

/// A Service by namespace and name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Services and their EndpointSlices, with the set of those that need to be compiled anew.
#[derive(Default)]
pub struct Cluster {
    services: BTreeMap<ServiceName, Arc<Service>>,
    slices: BTreeMap<ServiceName, BTreeMap<String, Arc<EndpointSlice>>>,
    dirty: BTreeSet<ServiceName>,
}

impl Cluster {
    pub fn apply_service(&mut self, service: Arc<Service>) {
        let name = name_of(&service.metadata);
        self.dirty.insert(name.clone());
        self.services.insert(name, service);
    }

    pub fn delete_service(&mut self, service: &Service) {
        let name = name_of(&service.metadata);
        self.services.remove(&name);
        self.dirty.insert(name);
    }

    /// `old` is the slice as it was before: its label may have named another Service.
    pub fn apply_slice(&mut self, old: Option<&EndpointSlice>, slice: Arc<EndpointSlice>) {
        if let Some(old) = old {
            self.delete_slice(old);
        }
        let Some(owner) = owner_of(&slice) else { return };
        let name = slice.metadata.name.clone().unwrap_or_default();
        self.slices.entry(owner.clone()).or_default().insert(name, slice);
        self.dirty.insert(owner);
    }

    pub fn delete_slice(&mut self, slice: &EndpointSlice) {
        let Some(owner) = owner_of(slice) else { return };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(slice.metadata.name.as_deref().unwrap_or_default());
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.dirty.insert(owner);
    }

    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name).map(AsRef::as_ref)
    }

    pub fn slices<'a>(&'a self, name: &ServiceName) -> impl Iterator<Item = &'a EndpointSlice> {
        self.slices.get(name).into_iter().flat_map(BTreeMap::values).map(AsRef::as_ref)
    }

    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// The Services that changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.dirty)
    }
}

fn name_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ServiceName {
    ServiceName { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

fn owner_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.clone();
    Some(ServiceName { namespace: slice.metadata.namespace.clone().unwrap_or_default(), name })
}
