//! What OpenAPI says of built-in types beyond their shape (`x-kubernetes-*`), and k8s-openapi leaves out.
//!
//! Names are those of OpenAPI definitions without `io.k8s.api.` (or, outside of it, `io.k8s.`). A list that is not
//! named here is atomic, and is replaced by a strategic merge patch. Source: Kubernetes 1.36 `api/openapi-spec`.

/// What fields have in common.
pub(super) struct Fact {
    /// `map`, `set` or nothing.
    pub list_type: &'static str,
    /// What tells the items of a `map` list apart.
    pub list_map_keys: &'static [&'static str],
    /// `merge`, `replace`, `retainKeys`, with commas between, or nothing.
    pub patch_strategy: &'static str,
    pub patch_merge_key: &'static str,
    /// `atomic`, `granular` or nothing.
    pub map_type: &'static str,
    pub fields: &'static [&'static str],
}

const fn keyed(keys: &'static [&'static str], patch: &'static str, fields: &'static [&'static str]) -> Fact {
    let patch_merge_key = if patch.is_empty() { "" } else { keys[0] };
    Fact { list_type: "map", list_map_keys: keys, patch_strategy: patch, patch_merge_key, map_type: "", fields }
}

const fn set(patch: &'static str, fields: &'static [&'static str]) -> Fact {
    Fact { list_type: "set", list_map_keys: &[], patch_strategy: patch, patch_merge_key: "", map_type: "", fields }
}

const fn patched(patch: &'static str, patch_merge_key: &'static str, fields: &'static [&'static str]) -> Fact {
    Fact { list_type: "", list_map_keys: &[], patch_strategy: patch, patch_merge_key, map_type: "", fields }
}

const fn map(map_type: &'static str, fields: &'static [&'static str]) -> Fact {
    Fact { list_type: "", list_map_keys: &[], patch_strategy: "", patch_merge_key: "", map_type, fields }
}

pub(super) const FIELDS: &[Fact] = &[
    keyed(&["apiServerID"], "", &["apiserverinternal.v1alpha1.StorageVersionStatus.storageVersions"]),
    keyed(&["containerPort", "protocol"], "merge", &["core.v1.Container.ports", "core.v1.EphemeralContainer.ports"]),
    keyed(&["devicePath"], "merge", &["core.v1.Container.volumeDevices", "core.v1.EphemeralContainer.volumeDevices"]),
    keyed(
        &["driver", "device", "pool", "shareID"],
        "",
        &[
            "resource.v1.ResourceClaimStatus.devices",
            "resource.v1beta1.ResourceClaimStatus.devices",
            "resource.v1beta2.ResourceClaimStatus.devices",
        ],
    ),
    keyed(&["ip"], "merge", &["core.v1.PodSpec.hostAliases", "core.v1.PodStatus.podIPs"]),
    keyed(
        &["mountPath"],
        "merge",
        &[
            "core.v1.Container.volumeMounts",
            "core.v1.ContainerStatus.volumeMounts",
            "core.v1.EphemeralContainer.volumeMounts",
        ],
    ),
    keyed(
        &["name"],
        "merge",
        &[
            "admissionregistration.v1.MutatingAdmissionPolicySpec.matchConditions",
            "admissionregistration.v1.MutatingWebhook.matchConditions",
            "admissionregistration.v1.MutatingWebhookConfiguration.webhooks",
            "admissionregistration.v1.ValidatingAdmissionPolicySpec.matchConditions",
            "admissionregistration.v1.ValidatingAdmissionPolicySpec.variables",
            "admissionregistration.v1.ValidatingWebhook.matchConditions",
            "admissionregistration.v1.ValidatingWebhookConfiguration.webhooks",
            "admissionregistration.v1alpha1.MutatingAdmissionPolicySpec.matchConditions",
            "admissionregistration.v1beta1.MutatingAdmissionPolicySpec.matchConditions",
            "core.v1.Container.env",
            "core.v1.ContainerStatus.allocatedResourcesStatus",
            "core.v1.EphemeralContainer.env",
            "core.v1.PodSpec.containers",
            "core.v1.PodSpec.ephemeralContainers",
            "core.v1.PodSpec.imagePullSecrets",
            "core.v1.PodSpec.initContainers",
            "core.v1.PodSpec.schedulingGates",
            "core.v1.ServiceAccount.secrets",
            "storage.v1.CSINodeSpec.drivers",
        ],
    ),
    keyed(
        &["name"],
        "merge,retainKeys",
        &[
            "core.v1.PodSpec.resourceClaims",
            "core.v1.PodSpec.volumes",
            "core.v1.PodStatus.resourceClaimStatuses",
            "scheduling.v1alpha2.PodGroupSpec.resourceClaims",
            "scheduling.v1alpha2.PodGroupStatus.resourceClaimStatuses",
            "scheduling.v1alpha2.PodGroupTemplate.resourceClaims",
        ],
    ),
    keyed(
        &["name"],
        "",
        &["core.v1.ResourceRequirements.claims", "scheduling.v1alpha2.WorkloadSpec.podGroupTemplates"],
    ),
    keyed(&["port", "protocol"], "merge", &["core.v1.ServiceSpec.ports"]),
    keyed(&["resourceID"], "", &["core.v1.ResourceStatus.resources"]),
    keyed(
        &["rule"],
        "merge",
        &["apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.x-kubernetes-validations"],
    ),
    keyed(&["topologyKey", "whenUnsatisfiable"], "merge", &["core.v1.PodSpec.topologySpreadConstraints"]),
    keyed(
        &["type"],
        "merge",
        &[
            "apps.v1.DaemonSetStatus.conditions",
            "apps.v1.DeploymentStatus.conditions",
            "apps.v1.ReplicaSetStatus.conditions",
            "apps.v1.StatefulSetStatus.conditions",
            "autoscaling.v2.HorizontalPodAutoscalerStatus.conditions",
            "certificates.v1beta1.PodCertificateRequestStatus.conditions",
            "core.v1.ComponentStatus.conditions",
            "core.v1.NamespaceStatus.conditions",
            "core.v1.NodeStatus.addresses",
            "core.v1.NodeStatus.conditions",
            "core.v1.PersistentVolumeClaimStatus.conditions",
            "core.v1.PodStatus.conditions",
            "core.v1.ReplicationControllerStatus.conditions",
            "core.v1.ServiceStatus.conditions",
            "flowcontrol.v1.FlowSchemaStatus.conditions",
            "flowcontrol.v1.PriorityLevelConfigurationStatus.conditions",
            "kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus.conditions",
            "networking.v1.ServiceCIDRStatus.conditions",
            "networking.v1beta1.ServiceCIDRStatus.conditions",
            "policy.v1.PodDisruptionBudgetStatus.conditions",
            "resource.v1alpha3.DeviceTaintRuleStatus.conditions",
            "resource.v1alpha3.ResourcePoolStatusRequestStatus.conditions",
            "resource.v1beta2.DeviceTaintRuleStatus.conditions",
            "scheduling.v1alpha2.PodGroupStatus.conditions",
            "storagemigration.v1beta1.StorageVersionMigrationStatus.conditions",
        ],
    ),
    keyed(
        &["type"],
        "",
        &[
            "admissionregistration.v1.ValidatingAdmissionPolicyStatus.conditions",
            "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus.conditions",
            "apiserverinternal.v1alpha1.StorageVersionStatus.conditions",
            "certificates.v1.CertificateSigningRequestStatus.conditions",
            "resource.v1.AllocatedDeviceStatus.conditions",
            "resource.v1beta1.AllocatedDeviceStatus.conditions",
            "resource.v1beta2.AllocatedDeviceStatus.conditions",
        ],
    ),
    keyed(
        &["uid"],
        "merge",
        &[
            "apimachinery.pkg.apis.meta.v1.ObjectMeta.ownerReferences",
            "resource.v1.ResourceClaimStatus.reservedFor",
            "resource.v1beta1.ResourceClaimStatus.reservedFor",
            "resource.v1beta2.ResourceClaimStatus.reservedFor",
        ],
    ),
    set("merge", &["apimachinery.pkg.apis.meta.v1.ObjectMeta.finalizers", "core.v1.NodeSpec.podCIDRs"]),
    set(
        "",
        &[
            "admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec.validationActions",
            "apiserverinternal.v1alpha1.ServerStorageVersion.decodableVersions",
            "apiserverinternal.v1alpha1.ServerStorageVersion.servedVersions",
            "batch.v1.PodFailurePolicyOnExitCodesRequirement.values",
            "batch.v1.UncountedTerminatedPods.failed",
            "batch.v1.UncountedTerminatedPods.succeeded",
            "core.v1.ContainerRestartRuleOnExitCodes.values",
            "core.v1.NodeAllocatableResourceClaimStatus.containers",
            "discovery.v1.Endpoint.addresses",
            "flowcontrol.v1.NonResourcePolicyRule.nonResourceURLs",
            "flowcontrol.v1.NonResourcePolicyRule.verbs",
            "flowcontrol.v1.ResourcePolicyRule.apiGroups",
            "flowcontrol.v1.ResourcePolicyRule.namespaces",
            "flowcontrol.v1.ResourcePolicyRule.resources",
            "flowcontrol.v1.ResourcePolicyRule.verbs",
            "storage.v1.CSIDriverSpec.volumeLifecycleModes",
        ],
    ),
    patched("merge", "ip", &["core.v1.PodStatus.hostIPs"]),
    patched("merge", "type", &["batch.v1.JobStatus.conditions"]),
    patched("replace", "", &["policy.v1.PodDisruptionBudgetSpec.selector"]),
    patched("retainKeys", "", &["apps.v1.DeploymentSpec.strategy"]),
    map(
        "atomic",
        &[
            "core.v1.PodSpec.nodeSelector",
            "core.v1.ReplicationControllerSpec.selector",
            "core.v1.ServiceSpec.selector",
            "node.v1.Scheduling.nodeSelector",
        ],
    ),
    map(
        "granular",
        &["core.v1.PersistentVolumeClaimStatus.allocatedResourceStatuses", "core.v1.PersistentVolumeSpec.claimRef"],
    ),
];

/// Structures that are owned as a whole.
pub(super) const ATOMIC: &[&str] = &[
    "admissionregistration.v1.MatchResources",
    "admissionregistration.v1.NamedRuleWithOperations",
    "admissionregistration.v1.ParamKind",
    "admissionregistration.v1.ParamRef",
    "admissionregistration.v1.Variable",
    "admissionregistration.v1alpha1.MatchResources",
    "admissionregistration.v1alpha1.NamedRuleWithOperations",
    "admissionregistration.v1alpha1.ParamKind",
    "admissionregistration.v1alpha1.ParamRef",
    "admissionregistration.v1beta1.MatchResources",
    "admissionregistration.v1beta1.NamedRuleWithOperations",
    "admissionregistration.v1beta1.ParamKind",
    "admissionregistration.v1beta1.ParamRef",
    "admissionregistration.v1beta1.Variable",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
    "autoscaling.v1.CrossVersionObjectReference",
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TopologySelectorTerm",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "networking.v1.ServiceBackendPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
];

/// Fields that hold a structure by value, so that it is there even when it is empty; so are all structures that
/// are required, and `metadata`, `spec` and `status`.
pub(super) const BY_VALUE: &[&str] = &[
    "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus.acceptedNames",
    "apimachinery.pkg.apis.meta.v1.APIGroup.preferredVersion",
    "apps.v1.DaemonSetSpec.updateStrategy",
    "apps.v1.DeploymentSpec.strategy",
    "apps.v1.ReplicaSetSpec.template",
    "apps.v1.StatefulSetSpec.updateStrategy",
    "authentication.v1.SelfSubjectReviewStatus.userInfo",
    "authentication.v1.TokenReviewStatus.user",
    "core.v1.Container.resources",
    "core.v1.ContainerStatus.lastState",
    "core.v1.ContainerStatus.state",
    "core.v1.EphemeralContainer.resources",
    "core.v1.Event.source",
    "core.v1.NodeDaemonEndpoints.kubeletEndpoint",
    "core.v1.NodeStatus.daemonEndpoints",
    "core.v1.NodeStatus.nodeInfo",
    "core.v1.PersistentVolumeClaimSpec.resources",
    "core.v1.PodTemplate.template",
    "core.v1.ServiceStatus.loadBalancer",
    "discovery.v1.Endpoint.conditions",
    "events.v1.Event.deprecatedSource",
    "events.v1.Event.regarding",
    "flowcontrol.v1.LimitedPriorityLevelConfiguration.limitResponse",
    "networking.v1.IngressServiceBackend.port",
    "networking.v1.IngressStatus.loadBalancer",
    "networking.v1.NetworkPolicySpec.podSelector",
    "resource.v1.AllocationResult.devices",
    "resource.v1.ResourceClaimSpec.devices",
    "resource.v1beta1.AllocationResult.devices",
    "resource.v1beta1.ResourceClaimSpec.devices",
    "resource.v1beta2.AllocationResult.devices",
    "resource.v1beta2.ResourceClaimSpec.devices",
];

/// Defaults, as JSON, that are part of the schema: a key of a list may be left out where it has one.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("certificates.v1beta1.PodCertificateRequestSpec.maxExpirationSeconds", r#"86400"#),
    ("core.v1.AzureDiskVolumeSource.cachingMode", r#""ReadWrite""#),
    ("core.v1.AzureDiskVolumeSource.fsType", r#""ext4""#),
    ("core.v1.AzureDiskVolumeSource.kind", r#""Shared""#),
    ("core.v1.ContainerPort.protocol", r#""TCP""#),
    ("core.v1.ISCSIPersistentVolumeSource.iscsiInterface", r#""default""#),
    ("core.v1.ISCSIVolumeSource.iscsiInterface", r#""default""#),
    ("core.v1.LocalObjectReference.name", r#""""#),
    ("core.v1.RBDPersistentVolumeSource.keyring", r#""/etc/ceph/keyring""#),
    ("core.v1.RBDPersistentVolumeSource.pool", r#""rbd""#),
    ("core.v1.RBDPersistentVolumeSource.user", r#""admin""#),
    ("core.v1.RBDVolumeSource.keyring", r#""/etc/ceph/keyring""#),
    ("core.v1.RBDVolumeSource.pool", r#""rbd""#),
    ("core.v1.RBDVolumeSource.user", r#""admin""#),
    ("core.v1.ReplicationControllerSpec.replicas", r#"1"#),
    ("core.v1.ScaleIOPersistentVolumeSource.fsType", r#""xfs""#),
    ("core.v1.ScaleIOPersistentVolumeSource.storageMode", r#""ThinProvisioned""#),
    ("core.v1.ScaleIOVolumeSource.fsType", r#""xfs""#),
    ("core.v1.ScaleIOVolumeSource.storageMode", r#""ThinProvisioned""#),
    ("core.v1.ServicePort.protocol", r#""TCP""#),
    ("resource.v1.DeviceToleration.operator", r#""Equal""#),
    ("resource.v1alpha3.ResourcePoolStatusRequestSpec.limit", r#"100"#),
    ("resource.v1beta1.DeviceToleration.operator", r#""Equal""#),
    ("resource.v1beta2.DeviceToleration.operator", r#""Equal""#),
    ("scheduling.v1alpha2.PodGroupSpec.disruptionMode", r#""Pod""#),
];
