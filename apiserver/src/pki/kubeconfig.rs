//! A kubeconfig: where the API server is, who it is, and who one is oneself.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::authority::Issued;

/// The text of a kubeconfig with everything in it. `server` is a URL; `name` names cluster, user and context.
pub fn kubeconfig(name: &str, server: &str, authority_pem: &str, identity: &Issued) -> String {
    let encoded = |text: &str| STANDARD.encode(text);
    // A JSON string is a YAML string.
    let (name, server) = (format!("{name:?}"), format!("{server:?}"));
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         preferences: {{}}\n\
         current-context: {name}\n\
         clusters:\n\
         - name: {name}\n  \
           cluster:\n    \
             server: {server}\n    \
             certificate-authority-data: {authority}\n\
         contexts:\n\
         - name: {name}\n  \
           context:\n    \
             cluster: {name}\n    \
             user: {name}\n\
         users:\n\
         - name: {name}\n  \
           user:\n    \
             client-certificate-data: {certificate}\n    \
             client-key-data: {key}\n",
        authority = encoded(authority_pem),
        certificate = encoded(&identity.certificate_pem),
        key = encoded(&identity.key_pem),
    )
}
