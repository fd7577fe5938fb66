//! One file an admission step, one list.
//!
//! A step may change the object ([`Step::admit`]) and may refuse it ([`Step::validate`]). All `admit` run
//! before validation, in the order of [`steps`]; all `validate` run after it.

mod certificates;
mod default_tolerations;
mod namespace_lifecycle;
mod node_restriction;
mod node_taints;
mod priority;
mod service_account;
mod topology_labels;

#[cfg(test)]
mod testing;

use api::{Descriptor, Object, Status};
use async_trait::async_trait;
use clock::{Chance, Clock};

use crate::{Config, auth::Auth, request::User, view::View, warnings::Warnings};

/// What happens to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// exec, attach, portforward, proxy.
    Connect,
}

/// What a step knows besides the object itself.
pub struct Attributes<'a> {
    pub kind: &'a Descriptor,
    pub operation: Operation,
    pub user: &'a User,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub dry_run: bool,
    /// The object before, on update and delete.
    pub old: Option<&'a Object>,
    pub view: &'a dyn View,
    pub auth: &'a Auth,
    pub config: &'a Config,
    pub clock: &'a Clock,
    pub chance: &'a Chance,
    /// Sentences for `Warning:` headers.
    pub warnings: &'a Warnings,
}

impl Attributes<'_> {
    /// Whether the request is for this resource, and for the object itself.
    pub fn is_about(&self, group: &str, plural: &str) -> bool {
        self.concerns(group, plural, "")
    }

    /// Whether the request is for this subresource.
    pub fn concerns(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.kind.group == group && self.kind.plural == plural && self.subresource == subresource
    }

    /// 403, in the words of upstream's admission.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(self.kind.group_resource(), self.name, why)
    }
}

/// One admission step.
#[async_trait]
pub trait Step: Send + Sync {
    /// As `--enable-admission-plugins` of upstream spells it.
    fn name(&self) -> &'static str;

    /// May change the object; on delete and connect there is none to change.
    async fn admit(&self, _attributes: &Attributes<'_>, _object: &mut Object) -> Result<(), Status> {
        Ok(())
    }

    /// `object` is what will be stored; on delete what is stored.
    async fn validate(&self, _attributes: &Attributes<'_>, _object: &Object) -> Result<(), Status> {
        Ok(())
    }
}

/// The steps of this server, in upstream's order.
pub fn steps() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction),
        Box::new(node_taints::TaintNodesByCondition),
        Box::new(priority::Priority),
        Box::new(default_tolerations::DefaultTolerationSeconds),
        Box::new(certificates::CertificateApproval),
        Box::new(certificates::CertificateSigning),
        Box::new(certificates::CertificateSubjectRestriction),
        Box::new(topology_labels::PodTopologyLabels),
    ]
}
