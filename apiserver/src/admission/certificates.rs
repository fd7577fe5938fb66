//! CertificateSigningRequests: who asks is who makes the request; who may approve and who may sign.

use api::{Object, Status, object::ObjectExt};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use x509_parser::{certification_request::X509CertificationRequest, pem::Pem, prelude::FromDer};

use super::{Attributes, Operation, Step};
use crate::request::RequestInfo;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
const API_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

/// Whoever approves must be allowed to `approve` for the signer.
pub(super) struct CertificateApproval;
/// Whoever issues must be allowed to `sign` for the signer.
pub(super) struct CertificateSigning;
/// Nobody gets into `system:masters` by a certificate of this API; and each request bears its author's name.
pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl Step for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    async fn validate(&self, attributes: &Attributes<'_>, _object: &Object) -> Result<(), Status> {
        let Some(old) = attributes.old.filter(|_| attributes.concerns(GROUP, PLURAL, "approval")) else {
            return Ok(());
        };
        may_act_for_signer(attributes, "approve", old)
    }
}

#[async_trait]
impl Step for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Object) -> Result<(), Status> {
        let Some(old) = attributes.old.filter(|_| attributes.concerns(GROUP, PLURAL, "status")) else { return Ok(()) };
        let issued =
            |request: &Object| (request["status"]["certificate"].clone(), request["status"]["conditions"].clone());
        if issued(object) == issued(old) {
            return Ok(());
        }
        may_act_for_signer(attributes, "sign", old)
    }
}

#[async_trait]
impl Step for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
        if attributes.operation == Operation::Create && attributes.is_about(GROUP, PLURAL) {
            let user = attributes.user;
            let spec = &mut object["spec"];
            spec["username"] = user.name.as_str().into();
            spec["groups"] = json!(user.groups);
            if !user.uid.is_empty() {
                spec["uid"] = user.uid.as_str().into();
            }
            if !user.extra.is_empty() {
                spec["extra"] = json!(user.extra);
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Object) -> Result<(), Status> {
        let is_new = attributes.operation == Operation::Create && attributes.is_about(GROUP, PLURAL);
        if !is_new || object.text("/spec/signerName") != API_CLIENT_SIGNER {
            return Ok(());
        }
        if organizations(object).iter().any(|name| name == MASTERS) {
            let why = format!("use of {API_CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            return Err(attributes.forbidden(why));
        }
        Ok(())
    }
}

/// The groups that the certificate would give. What does not parse fails validation elsewhere.
fn organizations(request: &Object) -> Vec<String> {
    let pem = STANDARD.decode(request.text("/spec/request")).unwrap_or_default();
    let Some(Ok(block)) = Pem::iter_from_buffer(&pem).next() else { return Vec::new() };
    let Ok((_, request)) = X509CertificationRequest::from_der(&block.contents) else { return Vec::new() };
    let names = request.certification_request_info.subject.iter_organization();
    names.filter_map(|name| name.as_str().ok().map(str::to_owned)).collect()
}

/// The user may do so for this signer, or for all of its domain.
fn may_act_for_signer(attributes: &Attributes<'_>, verb: &str, request: &Object) -> Result<(), Status> {
    let signer = request.text("/spec/signerName");
    let domain = signer.split('/').next().unwrap_or_default();
    let is_allowed = [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
        let question = RequestInfo {
            verb: verb.into(),
            is_resource: true,
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..RequestInfo::default()
        };
        attributes.auth.authorize(attributes.user, &question).is_allow()
    });
    if is_allowed {
        return Ok(());
    }
    Err(attributes.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::Case;

    #[tokio::test]
    async fn a_request_bears_its_authors_name() {
        let request = json!({"metadata": {"name": "r"}, "spec": {"username": "forged"}});
        let case = Case::create_in(GROUP, PLURAL, request).by("ann", &["dev"]);
        let request = case.admitted(&CertificateSubjectRestriction).await.unwrap();
        assert_eq!((request.text("/spec/username"), &request["spec"]["groups"]), ("ann", &json!(["dev"])));
    }

    #[tokio::test]
    async fn approval_needs_permission_for_the_signer() {
        let request = json!({"metadata": {"name": "r"}, "spec": {"signerName": "a.b/c"}});
        let case = Case::update_in(GROUP, PLURAL, request.clone(), request).subresource("approval");
        let refused = case.by("ann", &[]).validated(&CertificateApproval).await.unwrap_err();
        assert_eq!(
            refused.message,
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests \
             with signerName \"a.b/c\""
        );
        let request = json!({"metadata": {"name": "r"}, "spec": {"signerName": "a.b/c"}});
        let case =
            Case::update_in(GROUP, PLURAL, request.clone(), request).subresource("approval").by("root", &[MASTERS]);
        case.validated(&CertificateApproval).await.unwrap();
    }
}
