//! The informers that controllers share: each kind is watched once, and only if somebody asks for it.

use std::sync::OnceLock;

use client::informer::{Index, Informer, Selection};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::{
    ownership::{ORPHANS, orphan},
    pod::PodFacts,
};

/// Pods by the name of their node.
pub const BY_NODE: &str = "node";
/// EndpointSlices by `namespace/service`.
pub const BY_SERVICE: &str = "service";
/// The label that says which Service an EndpointSlice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

fn by_node(pod: &Pod) -> Vec<String> {
    Some(pod.node_name()).filter(|name| !name.is_empty()).map(str::to_owned).into_iter().collect()
}

fn by_service(slice: &EndpointSlice) -> Vec<String> {
    let meta = &slice.metadata;
    let service = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
    let key = service.zip(meta.namespace.as_ref()).map(|(service, namespace)| format!("{namespace}/{service}"));
    key.into_iter().collect()
}

/// Leases of nodes; the others are nobody's business here.
pub const NODE_LEASES: &str = "kube-node-lease";

/// All informers, each started by its first use.
pub struct Caches {
    client: Client,
    stop: CancellationToken,
    pods: OnceLock<Informer<Pod>>,
    nodes: OnceLock<Informer<Node>>,
    namespaces: OnceLock<Informer<Namespace>>,
    services: OnceLock<Informer<Service>>,
    endpoints: OnceLock<Informer<Endpoints>>,
    endpoint_slices: OnceLock<Informer<EndpointSlice>>,
    service_accounts: OnceLock<Informer<ServiceAccount>>,
    root_certificates: OnceLock<Informer<ConfigMap>>,
    deployments: OnceLock<Informer<Deployment>>,
    replica_sets: OnceLock<Informer<ReplicaSet>>,
    node_leases: OnceLock<Informer<Lease>>,
    disruption_budgets: OnceLock<Informer<PodDisruptionBudget>>,
}

/// One accessor for each kind: name, type, indexes.
macro_rules! shared {
    ($($name:ident: $kind:ty, $indexes:expr;)*) => {
        impl Caches {
            $(pub fn $name(&self) -> Informer<$kind> {
                let indexes: &[Index<$kind>] = $indexes;
                let start = || {
                    let api = Api::all(self.client.clone());
                    Informer::start_indexed(api, Selection::default(), indexes, self.stop.clone())
                };
                self.$name.get_or_init(start).clone()
            })*
        }
    };
}

shared! {
    pods: Pod, &[(BY_NODE, by_node), (ORPHANS, orphan)];
    nodes: Node, &[];
    namespaces: Namespace, &[];
    services: Service, &[];
    endpoints: Endpoints, &[];
    endpoint_slices: EndpointSlice, &[(BY_SERVICE, by_service)];
    service_accounts: ServiceAccount, &[];
    deployments: Deployment, &[];
    replica_sets: ReplicaSet, &[(ORPHANS, orphan)];
    disruption_budgets: PodDisruptionBudget, &[];
}

impl Caches {
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Self {
            client,
            stop,
            pods: OnceLock::new(),
            nodes: OnceLock::new(),
            namespaces: OnceLock::new(),
            services: OnceLock::new(),
            endpoints: OnceLock::new(),
            endpoint_slices: OnceLock::new(),
            service_accounts: OnceLock::new(),
            root_certificates: OnceLock::new(),
            deployments: OnceLock::new(),
            replica_sets: OnceLock::new(),
            node_leases: OnceLock::new(),
            disruption_budgets: OnceLock::new(),
        }
    }

    /// The Leases of nodes.
    pub fn node_leases(&self) -> Informer<Lease> {
        let start = || {
            let api = Api::namespaced(self.client.clone(), NODE_LEASES);
            Informer::start(api, Selection::default(), self.stop.clone())
        };
        self.node_leases.get_or_init(start).clone()
    }

    /// The ConfigMaps named `kube-root-ca.crt`: other ConfigMaps can be many and large.
    pub fn root_certificates(&self) -> Informer<ConfigMap> {
        let start = || {
            let fields = Some(format!("metadata.name={}", crate::root_ca::NAME));
            let selection = Selection { fields, ..Selection::default() };
            Informer::start(Api::all(self.client.clone()), selection, self.stop.clone())
        };
        self.root_certificates.get_or_init(start).clone()
    }
}
