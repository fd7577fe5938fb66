//! Projected volumes: several sources in one tree.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, KeyToPath, PodCertificateProjection, ProjectedVolumeSource,
    ServiceAccountTokenProjection,
};

use super::volumes::{validate_downward_file, validate_items, validate_mode, validate_not_reserved};
use crate::{
    field::{Errors, Path},
    names,
    validation::{check, meta, validate_label_selector},
};

/// Seconds: a token lives at least ten minutes.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const CERTIFICATE_SECONDS_MIN: i32 = 3600;
const CERTIFICATE_SECONDS_MAX: i32 = 91 * 24 * 3600;
/// Of signers in `kubernetes.io`.
const KUBERNETES_CERTIFICATE_SECONDS_MAX: i32 = 24 * 3600;
const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// The paths taken so far.
#[derive(Default)]
struct Taken(BTreeSet<String>);

impl Taken {
    /// Takes `target`; where it is taken, the error shows `value`.
    fn take(&mut self, target: &str, value: &str, path: &Path, errors: &mut Errors) {
        if !self.0.insert(target.to_owned()) {
            errors.invalid(path, value, "conflicting duplicate paths");
        }
    }

    fn take_items(&mut self, name: &str, items: Option<&[KeyToPath]>, path: &Path, errors: &mut Errors) {
        for item in items.unwrap_or_default().iter().filter(|item| !item.path.is_empty()) {
            self.take(&item.path, name, path, errors);
        }
    }
}

pub fn validate(source: &ProjectedVolumeSource, path: &Path, errors: &mut Errors) {
    validate_mode(source.default_mode, &path.child("defaultMode"), errors);
    let mut taken = Taken::default();
    for (index, source) in source.sources.iter().flatten().enumerate() {
        let at = path.child("sources").index(index);
        let mut count = 0;
        let mut named = |name: &str, items: Option<&[KeyToPath]>, at: &Path, errors: &mut Errors| {
            count += 1;
            if name.is_empty() {
                errors.required(&at.child("name"), "");
            }
            validate_items(items, at, errors);
            taken.take_items(name, items, path, errors);
        };
        if let Some(secret) = &source.secret {
            named(&secret.name, secret.items.as_deref(), &at.child("secret"), errors);
        }
        if let Some(map) = &source.config_map {
            named(&map.name, map.items.as_deref(), &at.child("configMap"), errors);
        }
        if let Some(fields) = &source.downward_api {
            count += 1;
            for file in fields.items.iter().flatten() {
                validate_downward_file(file, &at.child("downwardAPI"), errors);
                if !file.path.is_empty() {
                    taken.take(&file.path, &file.path, path, errors);
                }
            }
        }
        if let Some(token) = &source.service_account_token {
            count += 1;
            validate_token(token, path, &at.child("serviceAccountToken"), errors);
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            count += 1;
            validate_trust_bundle(bundle, &at.child("clusterTrustBundle"), errors);
            taken.take(&bundle.path, &bundle.path, path, errors);
        }
        if let Some(certificate) = &source.pod_certificate {
            count += 1;
            validate_certificate(certificate, &mut taken, path, &at.child("podCertificate"), errors);
        }
        if count > 1 {
            errors.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

/// Upstream names the volume's `path` where it means the token's.
fn validate_token(token: &ServiceAccountTokenProjection, volume: &Path, path: &Path, errors: &mut Errors) {
    let seconds = token.expiration_seconds.unwrap_or_default();
    let at = path.child("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > TOKEN_SECONDS_MAX {
        errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    match token.path.as_str() {
        "" => errors.required(&volume.child("path"), ""),
        target => validate_not_reserved(target, &volume.child("path"), errors),
    }
}

fn validate_trust_bundle(bundle: &ClusterTrustBundleProjection, path: &Path, errors: &mut Errors) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => errors.invalid(path, bundle, "only one of name and signerName may be used"),
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            // With a signer in front, the signer's slash has become a colon.
            let own = name.rsplit_once(':').map_or(name.as_str(), |(_, own)| own);
            for message in names::is_dns1123_subdomain(own) {
                errors.invalid(&path.child("name"), name, format!("not a valid clustertrustbundlename: {message}"));
            }
            if bundle.label_selector.is_some() {
                let why = "labelSelector must be unset if name is specified";
                errors.invalid(&path.child("labelSelector"), &bundle.label_selector, why);
            }
        }
        (None, Some(signer)) => {
            validate_signer_name(signer, &path.child("signerName"), errors);
            validate_label_selector(bundle.label_selector.as_ref(), &path.child("labelSelector"), errors);
        }
        (None, None) => errors.required(path, "either name or signerName must be specified"),
    }
    if bundle.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    validate_not_reserved(&bundle.path, &path.child("path"), errors);
}

/// `domain/path`, as certificates name their signer.
fn validate_signer_name(signer: &str, path: &Path, errors: &mut Errors) {
    if signer.is_empty() {
        return errors.required(path, "");
    }
    match signer.split_once('/') {
        Some((domain, name)) if domain.contains('.') && !name.is_empty() => {
            check(names::is_dns1123_subdomain(domain), signer, path, errors);
        }
        _ => errors.invalid(
            path,
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
}

fn validate_certificate(
    certificate: &PodCertificateProjection,
    taken: &mut Taken,
    volume: &Path,
    path: &Path,
    errors: &mut Errors,
) {
    validate_signer_name(&certificate.signer_name, &path.child("signerName"), errors);
    meta::validate_annotations(certificate.user_annotations.as_ref(), &path.child("userAnnotations"), errors);
    if !KEY_TYPES.contains(&certificate.key_type.as_str()) {
        errors.not_supported(&path.child("keyType"), &certificate.key_type, KEY_TYPES);
    }
    if let Some(seconds) = certificate.max_expiration_seconds {
        let at = path.child("maxExpirationSeconds");
        let domain = certificate.signer_name.split('/').next().unwrap_or_default();
        let is_kubernetes = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
        let max = if is_kubernetes { KUBERNETES_CERTIFICATE_SECONDS_MAX } else { CERTIFICATE_SECONDS_MAX };
        if seconds < CERTIFICATE_SECONDS_MIN {
            errors.invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        if seconds > max {
            errors.invalid(&at, seconds, format!("if provided, maxExpirationSeconds must be <= {max}"));
        }
    }
    let files = [
        ("credentialBundlePath", &certificate.credential_bundle_path),
        ("keyPath", &certificate.key_path),
        ("certificateChainPath", &certificate.certificate_chain_path),
    ];
    let files =
        files.iter().filter_map(|(field, file)| Some((field, file.as_deref().filter(|file| !file.is_empty())?)));
    let mut has_file = false;
    for (field, file) in files {
        has_file = true;
        validate_not_reserved(file, &path.child(field), errors);
        taken.take(file, file, volume, errors);
    }
    if !has_file {
        errors.required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}
