//! What a cluster has from its first moment on: namespaces, priority classes, roles, the `kubernetes` Service.
//!
//! Everything is written through the API, as `system:apiserver`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use api::Status;
use axum::{Router, body::Body, response::Response};
use http::{Request, header};
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    Server,
    auth::bootstrap::{Write, plan},
    call::read_body,
    kinds,
    request::User,
    view::View as _,
};

const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// Every server holds a lease in kube-system; those with a running lease are behind the `kubernetes` Service.
const IDENTITY: &str = "apiserver.kubernetes.io/identity";
const LEASE_SECONDS: i64 = 60;
const RENEW_EVERY: Duration = Duration::from_secs(20);

/// Name, value, description.
const PRIORITY_CLASSES: &[(&str, i64, &str)] = &[
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

impl Server {
    /// Creates what is missing. Safe to run at every start, also by several servers at once.
    pub(crate) async fn bootstrap(self: &Arc<Self>) -> Result<(), Status> {
        let client = Client(self.in_process(User::named("system:apiserver", &["system:masters"])));
        for name in NAMESPACES {
            client
                .ensure(
                    "/api/v1/namespaces",
                    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}),
                )
                .await?;
        }
        for (name, value, description) in PRIORITY_CLASSES {
            let class = json!({
                "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
                "value": value, "description": description,
            });
            client.ensure("/apis/scheduling.k8s.io/v1/priorityclasses", class).await?;
        }
        // All at once, so that they share commits.
        let writes = plan(&*self.cache).into_iter().map(|write| client.carry_out(write));
        futures::future::try_join_all(writes).await?;
        self.ensure_kubernetes_service(&client).await
    }

    async fn ensure_kubernetes_service(&self, client: &Client) -> Result<(), Status> {
        let service = json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "type": "ClusterIP", "sessionAffinity": "None",
                "clusterIP": self.config.service_cluster_ip_ranges.first().and_then(first_address),
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": self.config.secure_port}],
            },
        });
        client.ensure("/api/v1/namespaces/default/services", service).await?;
        self.apply_endpoints(client).await
    }

    /// Says again and again that this server lives, and puts those that do behind the `kubernetes` Service.
    pub(crate) async fn keep_endpoints(self: &Arc<Self>) {
        let client = Client(self.in_process(User::named("system:apiserver", &["system:masters"])));
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            if let Err(error) = self.apply_endpoints(&client).await {
                tracing::warn!(%error, "the endpoints of the kubernetes Service could not be written");
            }
        }
    }

    async fn apply_endpoints(&self, client: &Client) -> Result<(), Status> {
        if self.config.advertise_address.is_loopback() {
            return Ok(());
        }
        self.renew_lease(client).await?;
        let addresses = self.live_servers();
        let port = json!({"name": "https", "port": self.config.secure_port, "protocol": "TCP"});
        let targets: Vec<_> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let endpoints = json!({
            "kind": "Endpoints", "apiVersion": "v1",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": targets, "ports": [port]}],
        });
        let targets: Vec<_> =
            addresses.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect();
        let slice = json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": if self.config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": targets,
            "ports": [port],
        });
        client.put("/api/v1/namespaces/default/endpoints", endpoints).await?;
        client.put("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await
    }

    async fn renew_lease(&self, client: &Client) -> Result<(), Status> {
        let address = self.config.advertise_address.to_string();
        let lease = json!({
            "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": format!("apiserver-{}", address.replace(':', "-")), "namespace": "kube-system",
                "labels": {IDENTITY: "kube-apiserver"}},
            "spec": {
                "holderIdentity": address, "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": self.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            },
        });
        client.merge("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", lease).await
    }

    /// The addresses of the servers whose lease runs, in order.
    fn live_servers(&self) -> Vec<String> {
        let now = self.clock.now();
        let is_live = |lease: &Value| {
            let renewed: Option<Timestamp> = lease["spec"]["renewTime"].as_str().and_then(|at| at.parse().ok());
            renewed.is_some_and(|at| now.duration_since(at).as_secs() < LEASE_SECONDS)
        };
        let leases = self.cache.list("coordination.k8s.io", "leases", Some("kube-system"));
        let servers = leases.iter().filter(|lease| lease["metadata"]["labels"][IDENTITY] == "kube-apiserver");
        let live = servers.filter(|lease| is_live(lease));
        let mut addresses: Vec<_> =
            live.filter_map(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned)).collect();
        addresses.sort();
        addresses
    }
}

/// The first address of a range that a Service can have.
pub fn first_address(range: &IpNet) -> Option<IpAddr> {
    range.hosts().next()
}

/// Requests to this very server.
struct Client(Router);

impl Client {
    /// Creates the object unless it exists.
    async fn ensure(&self, collection: &str, object: Value) -> Result<(), Status> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if self.send("GET", &format!("{collection}/{name}"), None).await.is_ok() {
            return Ok(());
        }
        match self.send("POST", collection, Some(&object)).await {
            // Another server was faster.
            Err(status) if status.code == 409 => Ok(()),
            result => result,
        }
    }

    /// Creates the object, or makes it as given.
    async fn put(&self, collection: &str, object: Value) -> Result<(), Status> {
        self.change("PUT", collection, object).await
    }

    /// Creates the object, or lays it over what there is, whatever its resourceVersion.
    async fn merge(&self, collection: &str, object: Value) -> Result<(), Status> {
        self.change("PATCH", collection, object).await
    }

    async fn change(&self, method: &str, collection: &str, object: Value) -> Result<(), Status> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match self.send(method, &format!("{collection}/{name}"), Some(&object)).await {
            Err(status) if status.code == 404 => self.ensure(collection, object).await,
            result => result,
        }
    }

    async fn carry_out(&self, write: Write) -> Result<(), Status> {
        match write {
            Write::Create(object) => self.ensure(&collection(&object), object).await,
            Write::Update(object) => match self.send("PUT", &path(&object), Some(&object)).await {
                // Another server was faster.
                Err(status) if status.code == 409 => Ok(()),
                result => result,
            },
            Write::Recreate(object) => {
                self.send("DELETE", &path(&object), None).await?;
                self.ensure(&collection(&object), object).await
            }
        }
    }

    async fn send(&self, method: &str, path: &str, object: Option<&Value>) -> Result<(), Status> {
        let body = object.map_or_else(Body::empty, |object| Body::from(object.to_string()));
        let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media_type);
        let request = request.header(header::USER_AGENT, "apiserver").body(body).map_err(Status::internal)?;
        let response: Response = self.0.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        if response.status().is_success() {
            return Ok(());
        }
        let body = read_body(response.into_body()).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| Status::internal(String::from_utf8_lossy(&body))))
    }
}

/// The path of the collection that an object of a built-in kind belongs to.
fn collection(object: &Value) -> String {
    let (kind, api_version) = (object["kind"].as_str(), object["apiVersion"].as_str().unwrap_or_default());
    let found = kinds::all()
        .map(|known| known.descriptor())
        .find(|descriptor| Some(descriptor.kind.as_str()) == kind && descriptor.api_version() == api_version);
    let plural = found.map_or("", |descriptor| &descriptor.plural);
    let root = if api_version.contains('/') { "apis" } else { "api" };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{api_version}/namespaces/{namespace}/{plural}"),
        None => format!("/{root}/{api_version}/{plural}"),
    }
}

fn path(object: &Value) -> String {
    format!("{}/{}", collection(object), object["metadata"]["name"].as_str().unwrap_or_default())
}
