//! NamespaceLifecycle: nothing is created in a namespace that is missing or leaving.

use std::time::Duration;

use api::{
    Object, Status,
    object::ObjectExt,
    status::{Cause, GroupResource},
};
use async_trait::async_trait;

use super::{Attributes, Operation, Step};

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-public", "kube-system"];
const NAMESPACES: GroupResource<'_> = GroupResource { group: "", resource: "namespaces" };
/// With several servers, this one may not have seen a namespace yet that another has just created.
const MISSING_NAMESPACE_WAIT: Duration = Duration::from_millis(50);

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Step for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, attributes: &Attributes<'_>, _object: &mut Object) -> Result<(), Status> {
        if attributes.namespace.is_empty() || attributes.operation != Operation::Create {
            return Ok(());
        }
        let find = || attributes.view.get("", "namespaces", "", attributes.namespace);
        let namespace = match find() {
            Some(namespace) => namespace,
            None => {
                tokio::time::sleep(MISSING_NAMESPACE_WAIT).await;
                find().ok_or_else(|| Status::not_found(NAMESPACES, attributes.namespace))?
            }
        };
        if namespace.text("/status/phase") == "Terminating" || namespace.is_deleting() {
            return Err(terminating(attributes));
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, _object: &Object) -> Result<(), Status> {
        let is_deletion = attributes.operation == Operation::Delete && attributes.kind.plural == "namespaces";
        if is_deletion && attributes.kind.group.is_empty() && IMMORTAL.contains(&attributes.name) {
            return Err(attributes.forbidden("this namespace may not be deleted"));
        }
        Ok(())
    }
}

fn terminating(attributes: &Attributes<'_>) -> Status {
    let namespace = attributes.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = attributes.forbidden(why);
    status.details.get_or_insert_default().causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::Case;

    #[tokio::test(start_paused = true)]
    async fn content_needs_a_namespace_that_stays() {
        let case = Case::create("configmaps", json!({"metadata": {"name": "c", "namespace": "a"}}));
        assert_eq!(case.admitted(&NamespaceLifecycle).await.unwrap_err().message, "namespaces \"a\" not found");
        let case = case.with("", "namespaces", json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}));
        assert_eq!(
            case.admitted(&NamespaceLifecycle).await.unwrap_err().message,
            "configmaps \"c\" is forbidden: unable to create new content in namespace a because it is being terminated"
        );
        let case = case.with("", "namespaces", json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}));
        case.admitted(&NamespaceLifecycle).await.unwrap();
    }

    #[tokio::test]
    async fn some_namespaces_stay() {
        let case = |name: &str| Case::delete("namespaces", json!({"metadata": {"name": name}}));
        let status = case("kube-system").validated(&NamespaceLifecycle).await.unwrap_err();
        assert_eq!(status.message, "namespaces \"kube-system\" is forbidden: this namespace may not be deleted");
        case("mine").validated(&NamespaceLifecycle).await.unwrap();
    }
}
