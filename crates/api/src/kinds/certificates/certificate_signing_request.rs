//! CertificateSigningRequest: asks a signer for a client or serving certificate.
//!
//! After creation only its subresources change it: approval decides, status carries the certificate.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::{
    api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;
use x509_parser::{certification_request::X509CertificationRequest, pem::Pem, prelude::FromDer};

use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, NameRule, Subresource, column, status_of},
    names,
};

const EXPIRATION_SECONDS_MIN: i32 = 600;
const DOMAIN_BYTES_MAX: usize = 253;
/// A domain, a slash, and room for a namespace and a name.
const SIGNER_NAME_BYTES_MAX: usize = DOMAIN_BYTES_MAX + 1 + 253 + 63 + 1;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const APPROVAL: Subresource = Subresource {
    name: "approval",
    group: "",
    version: "",
    kind: "CertificateSigningRequest",
    verbs: &["get", "patch", "update"],
};

impl Kind for CertificateSigningRequest {
    const SHORT_NAMES: &'static [&'static str] = &["csr"];
    const SUBRESOURCES: &'static [Subresource] = &[APPROVAL, status_of("CertificateSigningRequest")];
    const NAME_RULE: NameRule = NameRule::PathSegment;

    /// Who asks is for the server to say: it fills these in from the request after this.
    fn prepare_for_create(&mut self) {
        let spec = &mut self.spec;
        (spec.username, spec.uid, spec.groups, spec.extra) = (None, None, None, None);
        self.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_for_update(&mut self, old: &Self) {
        self.spec = old.spec.clone();
        self.status = old.status.clone();
    }

    /// Decisions are taken from `old`, unless some were added or removed: that fails validation.
    fn prepare_for_status_update(&mut self, old: &Self) {
        for decision in ["Approved", "Denied"] {
            let kept: Vec<_> = conditions(old, decision).cloned().collect();
            if kept.len() != conditions(self, decision).count() {
                continue;
            }
            let all = self.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
            for (condition, old) in all.filter(|condition| condition.type_ == decision).zip(kept) {
                *condition = old;
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(self, errors);
        validate_status(self, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate_change(self, old, Allowed::Metadata, errors);
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        validate_status(self, errors);
        validate_change(self, old, Allowed::Certificate, errors);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        match old {
            None => vec![
                "CertificateSigningRequest is stored, but no signer of this cluster issues certificates yet".into(),
            ],
            Some(_) => Vec::new(),
        }
    }

    fn columns() -> Vec<Column> {
        vec![
            NAME_COLUMN,
            AGE_COLUMN,
            column("SignerName", "The signer that is asked."),
            column("Requestor", "The user that asks."),
            column("RequestedDuration", "How long the certificate is asked to be valid."),
            column("Condition", "What was decided, and whether the certificate is there."),
        ]
    }

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let duration = spec.expiration_seconds.map(|seconds| jiff::SignedDuration::from_secs(seconds.into()));
        let signer = if spec.signer_name.is_empty() { "<none>" } else { &spec.signer_name };
        vec![
            self.metadata.name.clone().into(),
            kind::age(&self.metadata, now).into(),
            signer.into(),
            spec.username.clone().unwrap_or_default().into(),
            duration.map_or_else(|| "<none>".into(), kind::human_duration).into(),
            condition_cell(self).into(),
        ]
    }

    fn selectable_fields(&self) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", self.spec.signer_name.clone())]
    }
}

fn conditions<'a>(
    request: &'a CertificateSigningRequest,
    r#type: &'a str,
) -> impl Iterator<Item = &'a CertificateSigningRequestCondition> {
    let all = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.filter(move |condition| condition.type_ == r#type)
}

fn certificate(request: &CertificateSigningRequest) -> &[u8] {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.map_or(&[], |bytes| bytes.0.as_slice())
}

/// `Approved,Issued`, `Denied`, `Pending`, ...
fn condition_cell(request: &CertificateSigningRequest) -> String {
    let has = |r#type| conditions(request, r#type).next().is_some();
    let decision = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if certificate(request).is_empty() { "" } else { ",Issued" };
    format!("{decision}{failed}{issued}")
}

fn validate_spec(request: &CertificateSigningRequest, errors: &mut Errors) {
    let (spec, path) = (&request.spec, Path::new("spec"));
    if let Err(why) = parse_request(&spec.request.0) {
        errors.invalid(&path.child("request"), &spec.request, why);
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    if usages.is_empty() {
        errors.required(&path.child("usages"), "");
    }
    let mut seen = HashSet::new();
    for (index, usage) in usages.iter().enumerate() {
        let path = path.child("usages").index(index);
        if !USAGES.contains(&usage.as_str()) {
            errors.not_supported(&path, usage, USAGES);
        }
        if !seen.insert(usage) {
            errors.duplicate(&path, usage);
        }
    }
    if spec.signer_name == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        errors.invalid(&path.child("signerName"), LEGACY_SIGNER, why);
    } else {
        validate_signer_name(&spec.signer_name, &path.child("signerName"), errors);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < EXPIRATION_SECONDS_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.child("expirationSeconds"), seconds, why);
    }
}

/// The first PEM block must be a PKCS#10 request.
fn parse_request(pem: &[u8]) -> Result<(), String> {
    let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
    let Some(block) = block.filter(|block| block.label == "CERTIFICATE REQUEST") else {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    };
    X509CertificationRequest::from_der(&block.contents).map(drop).map_err(|error| error.to_string())
}

/// `example.com/signer-name`
pub fn validate_signer_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let parts: Vec<_> = name.split('/').collect();
    let [domain, signer] = parts.as_slice() else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, name, why);
    };
    if domain.len() > DOMAIN_BYTES_MAX {
        errors.too_long(path, DOMAIN_BYTES_MAX);
    }
    validate_labels(domain, names::is_dns1123_label, path, errors);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    validate_labels(signer, names::is_dns1123_subdomain, path, errors);
    if name.len() > SIGNER_NAME_BYTES_MAX {
        errors.too_long(path, SIGNER_NAME_BYTES_MAX);
    }
}

/// Reports the first label that breaks the rule.
fn validate_labels(dotted: &str, rule: fn(&str) -> Vec<String>, path: &Path, errors: &mut Errors) {
    let broken = dotted.split('.').map(|label| (label, rule(label))).find(|(_, messages)| !messages.is_empty());
    if let Some((label, messages)) = broken {
        for message in messages {
            errors.invalid(path, dotted, format!("validating label {label:?}: {message}"));
        }
    }
}

fn validate_status(request: &CertificateSigningRequest, errors: &mut Errors) {
    let path = Path::new("status").child("conditions");
    let all = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut seen = HashSet::new();
    for (index, condition) in all.enumerate() {
        let at = path.index(index);
        let r#type = condition.type_.as_str();
        if r#type.is_empty() {
            errors.required(&at.child("type"), "");
        }
        let statuses: &[&str] =
            if matches!(r#type, "Approved" | "Denied" | "Failed") { &["True"] } else { &["False", "True", "Unknown"] };
        crate::validation::validate_choice(Some(&condition.status), statuses, &at.child("status"), errors);
        let other = match r#type {
            "Approved" => Some("Denied"),
            "Denied" => Some("Approved"),
            _ => None,
        };
        if other.is_some_and(|other| seen.contains(other)) {
            errors.invalid(&path, r#type, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(r#type) {
            errors.duplicate(&at.child("type"), r#type);
        }
    }
}

fn check_certificate(pem: &[u8]) -> Result<(), String> {
    let blocks: Vec<_> = Pem::iter_from_buffer(pem).filter_map(Result::ok).collect();
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".into());
    }
    for block in blocks {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        block.parse_x509().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What a request path may change.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Allowed {
    /// The object itself.
    Metadata,
    /// `/approval`.
    Decision,
    /// `/status`.
    Certificate,
}

fn validate_change(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    allowed: Allowed,
    errors: &mut Errors,
) {
    let path = Path::new("status").child("conditions");
    for r#type in ["Approved", "Denied", "Failed"] {
        let (new_ones, old_ones): (Vec<_>, Vec<_>) =
            (conditions(new, r#type).collect(), conditions(old, r#type).collect());
        let decided_here = r#type == "Failed" || allowed == Allowed::Decision;
        if new_ones.len() < old_ones.len() {
            errors.forbidden(&path, format!("updates may not remove a condition of type {:?}", r#type));
        } else if !decided_here && new_ones.len() > old_ones.len() {
            errors.forbidden(&path, format!("updates may not add a condition of type {:?}", r#type));
        } else if !decided_here && new_ones != old_ones {
            errors.forbidden(&path, format!("updates may not modify a condition of type {:?}", r#type));
        }
    }
    let (certificate, old_certificate) = (certificate(new), certificate(old));
    if certificate == old_certificate {
        return;
    }
    let path = Path::new("status").child("certificate");
    if allowed != Allowed::Certificate {
        errors.forbidden(&path, "updates may not set certificate content");
    } else if !old_certificate.is_empty() {
        errors.forbidden(&path, "updates may not modify existing certificate content");
    }
    if let (false, Err(why)) = (certificate.is_empty(), check_certificate(certificate)) {
        errors.invalid(&path, "<certificate data>", why);
    }
}

/// What `/approval` stores: the conditions of `new`, everything else of `old`.
pub fn prepare_for_approval(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest, now: Timestamp) {
    let conditions = new.status.take().and_then(|status| status.conditions);
    new.spec = old.spec.clone();
    new.status = Some(CertificateSigningRequestStatus { conditions, ..old.status.clone().unwrap_or_default() });
    stamp_conditions(new, old, now);
}

/// Whether `/approval` may store it.
pub fn validate_approval(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut Errors) {
    validate_status(new, errors);
    validate_change(new, old, Allowed::Decision, errors);
}

/// Times of conditions that came without; a condition that was there keeps the time of its transition.
pub fn stamp_conditions(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest, now: Timestamp) {
    let all = new.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
    for condition in all {
        condition.last_update_time.get_or_insert(Time(now));
        if condition.last_transition_time.is_none() {
            let before = conditions(old, &condition.type_).find(|before| before.status == condition.status);
            let since = before.and_then(|before| before.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or(Time(now)));
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_new, check_row};

    fn request(status: Value) -> CertificateSigningRequest {
        serde_json::from_value(
            json!({"metadata": {"name": "a"}, "spec": {"request": "", "signerName": "a.b/c"}, "status": status}),
        )
        .unwrap()
    }

    #[test]
    fn a_spec() {
        check_new::<CertificateSigningRequest>(
            json!({"spec": {"request": "eA==", "signerName": "x", "usages": ["client auth", "client auth", "odd"],
                "expirationSeconds": 60}}),
            expect![[r#"
                spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST
                spec.usages[1]: Duplicate value: "client auth"
                spec.usages[2]: Unsupported value: "odd": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping"
                spec.signerName: Invalid value: "x": must be a fully qualified domain and path of the form 'example.com/signer-name'
                spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds (10 minutes)"#]],
        );
        check_new::<CertificateSigningRequest>(
            json!({"spec": {"request": "eA==", "signerName": "com/A_b"}}),
            expect![[r#"
                spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST
                spec.usages: Required value
                spec.signerName: Invalid value: "com": should be a domain with at least two segments separated by dots
                spec.signerName: Invalid value: "A_b": validating label "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
        );
    }

    fn check_approval(new: Value, old: Value, expected: Expect) {
        let mut errors = Errors::default();
        let (mut new, old) = (request(new), request(old));
        prepare_for_approval(&mut new, &old, "2026-01-01T00:00:00Z".parse().unwrap());
        validate_approval(&new, &old, &mut errors);
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn decisions_are_final_and_made_by_approval() {
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        check_approval(approved.clone(), json!({}), expect![""]);
        check_approval(
            json!({}),
            approved.clone(),
            expect![[r#"status.conditions: Forbidden: updates may not remove a condition of type "Approved""#]],
        );
        check_approval(
            json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "False"}]}),
            json!({}),
            expect![[r#"
                status.conditions[1].status: Unsupported value: "False": supported values: "True"
                status.conditions: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive"#]],
        );
        let mut errors = Errors::default();
        request(approved).validate_status_update(&request(json!({})), &mut errors);
        assert_eq!(errors.iter().count(), 1);
    }

    #[test]
    fn rows() {
        check_row::<CertificateSigningRequest>(
            json!({"metadata": {"name": "a"}, "spec": {"request": "", "signerName": "a.b/c", "username": "u", "expirationSeconds": 3600},
                "status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="}}),
            expect!["a | <unknown> | a.b/c | u | 60m | Approved,Issued"],
        );
    }
}
