//! One request in a cluster in memory, for the table tests of the steps.

use api::{Object, Status, object::ObjectExt};
use clock::{Chance, Clock};

use super::{Attributes, Operation, Step};
use crate::{
    auth::testing::{Cluster, user},
    request::User,
    warnings::Warnings,
};

pub(crate) struct Case {
    cluster: Cluster,
    operation: Operation,
    group: String,
    plural: String,
    subresource: String,
    object: Object,
    old: Option<Object>,
    user: User,
}

impl Case {
    fn new(operation: Operation, group: &str, plural: &str, object: Object, old: Option<Object>) -> Self {
        Self {
            cluster: Cluster::default(),
            operation,
            group: group.into(),
            plural: plural.into(),
            subresource: String::new(),
            object,
            old,
            user: user("someone", &[]),
        }
    }

    /// Of the core group.
    pub fn create(plural: &str, object: Object) -> Self {
        Self::create_in("", plural, object)
    }

    pub fn create_in(group: &str, plural: &str, object: Object) -> Self {
        Self::new(Operation::Create, group, plural, object, None)
    }

    pub fn update_in(group: &str, plural: &str, old: Object, object: Object) -> Self {
        Self::new(Operation::Update, group, plural, object, Some(old))
    }

    pub fn delete(plural: &str, object: Object) -> Self {
        Self::new(Operation::Delete, "", plural, object.clone(), Some(object))
    }

    /// An object that is there already.
    pub fn with(self, group: &str, resource: &str, object: Object) -> Self {
        self.cluster.put(group, resource, object);
        self
    }

    pub fn subresource(self, name: &str) -> Self {
        Self { subresource: name.into(), ..self }
    }

    pub fn by(self, name: &str, groups: &[&str]) -> Self {
        Self { user: user(name, groups), ..self }
    }

    pub async fn admitted(&self, step: &dyn Step) -> Result<Object, Status> {
        let mut object = self.object.clone();
        let (view, auth, config) = (self.cluster.view(), self.cluster.auth(), crate::tests::config());
        let (clock, chance, warnings) = (Clock::machine(), Chance::seeded(1), Warnings::default());
        let kind = crate::kinds::find(&self.group, "v1", &self.plural).unwrap();
        let attributes = Attributes {
            kind: kind.descriptor(),
            operation: self.operation,
            user: &self.user,
            namespace: self.object.namespace(),
            name: self.object.name(),
            subresource: &self.subresource,
            dry_run: false,
            old: self.old.as_ref(),
            view: &*view,
            auth: &auth,
            config: &config,
            clock: &clock,
            chance: &chance,
            warnings: &warnings,
        };
        step.admit(&attributes, &mut object).await?;
        step.validate(&attributes, &object).await?;
        Ok(object)
    }

    pub async fn validated(&self, step: &dyn Step) -> Result<(), Status> {
        self.admitted(step).await.map(drop)
    }
}
