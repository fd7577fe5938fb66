//! One file an admission step, one list.
//!
//! A step may change the object ([`Step::admit`]) and may refuse it ([`Step::validate`]). All `admit` run
//! before validation, in the order of [`steps`]; all `validate` run after it.

use api::{Descriptor, Object, Status};
use async_trait::async_trait;
use clock::{Chance, Clock};

use crate::{request::User, view::View, warnings::Warnings};

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
    pub clock: &'a Clock,
    pub chance: &'a Chance,
    /// Sentences for `Warning:` headers.
    pub warnings: &'a Warnings,
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

/// The steps of this server, in order.
pub fn steps() -> Vec<Box<dyn Step>> {
    Vec::new()
}
