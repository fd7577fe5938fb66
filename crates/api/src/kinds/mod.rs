//! The table of contents of the API: one line a kind.

use std::sync::LazyLock;

use k8s_openapi::api::{
    apps::v1 as apps_v1, authentication::v1 as authentication_v1, authorization::v1 as authorization_v1,
    certificates::v1 as certificates_v1, coordination::v1 as coordination_v1, core::v1 as core_v1,
    discovery::v1 as discovery_v1, events::v1 as events_v1, policy::v1 as policy_v1, rbac::v1 as rbac_v1,
    scheduling::v1 as scheduling_v1,
};

use crate::kind::{AnyKind, builtin};

pub mod apps;
mod authentication;
mod authorization;
pub mod certificates;
mod coordination;
pub mod core;
mod discovery;
mod events;
mod policy;
pub mod rbac;
pub mod scheduling;
#[cfg(test)]
pub(crate) mod testing;

/// Every built-in kind, in the order of discovery: groups as upstream ranks them, kinds by their plural.
pub static ALL: LazyLock<Vec<Box<dyn AnyKind>>> = LazyLock::new(|| {
    vec![
        builtin::<core_v1::Binding>(),
        builtin::<core_v1::ConfigMap>(),
        builtin::<core_v1::Endpoints>(),
        builtin::<core_v1::Event>(),
        builtin::<core_v1::Namespace>(),
        builtin::<core_v1::Node>(),
        builtin::<core_v1::Pod>(),
        builtin::<core_v1::PodTemplate>(),
        builtin::<core_v1::Secret>(),
        builtin::<core_v1::ServiceAccount>(),
        builtin::<core_v1::Service>(),
        builtin::<apps_v1::ControllerRevision>(),
        builtin::<apps_v1::DaemonSet>(),
        builtin::<apps_v1::Deployment>(),
        builtin::<apps_v1::ReplicaSet>(),
        builtin::<apps_v1::StatefulSet>(),
        builtin::<events_v1::Event>(),
        builtin::<authentication_v1::SelfSubjectReview>(),
        builtin::<authentication_v1::TokenReview>(),
        builtin::<authorization_v1::LocalSubjectAccessReview>(),
        builtin::<authorization_v1::SelfSubjectAccessReview>(),
        builtin::<authorization_v1::SelfSubjectRulesReview>(),
        builtin::<authorization_v1::SubjectAccessReview>(),
        builtin::<certificates_v1::CertificateSigningRequest>(),
        builtin::<policy_v1::PodDisruptionBudget>(),
        builtin::<rbac_v1::ClusterRoleBinding>(),
        builtin::<rbac_v1::ClusterRole>(),
        builtin::<rbac_v1::RoleBinding>(),
        builtin::<rbac_v1::Role>(),
        builtin::<scheduling_v1::PriorityClass>(),
        builtin::<coordination_v1::Lease>(),
        builtin::<discovery_v1::EndpointSlice>(),
    ]
});

/// The kind that serves this group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static dyn AnyKind> {
    ALL.iter().map(AsRef::as_ref).find(|kind| {
        let descriptor = kind.descriptor();
        descriptor.group == group && descriptor.version == version && descriptor.plural == plural
    })
}

#[cfg(test)]
mod tests;
