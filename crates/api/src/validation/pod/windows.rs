//! Options for Windows. No node of ours runs it; objects move between clusters.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{PodSpec, WindowsSecurityContextOptions};
use regex::Regex;

use crate::{
    field::{Errors, Path},
    kinds::core::pod::warnings::containers,
    names,
    validation::check,
};

const CREDENTIAL_SPEC_BYTES_MAX: usize = 64 * 1024;
const DOMAIN_BYTES_MAX: usize = 256;
const USER_BYTES_MAX: usize = 104;
const FORBIDDEN_IN_USER: &str = r#""/\:;|=,+*?<>@[]"#;

pub fn validate_options(options: Option<&WindowsSecurityContextOptions>, path: &Path, errors: &mut Errors) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        check(names::is_dns1123_subdomain(name), name, &path.child("gmsaCredentialSpecName"), errors);
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let path = path.child("gmsaCredentialSpec");
        match spec.len() {
            0 => errors.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string"),
            size if size > CREDENTIAL_SPEC_BYTES_MAX => {
                errors.invalid(&path, spec, "gmsaCredentialSpec size must be under 64 KiB");
            }
            _ => {}
        }
    }
    if let Some(name) = &options.run_as_user_name {
        for message in user_name_messages(name) {
            errors.invalid(&path.child("runAsUserName"), name, message);
        }
    }
}

/// `[DOMAIN\]USER`
fn user_name_messages(name: &str) -> Vec<String> {
    static DOMAIN: LazyLock<Regex> = LazyLock::new(|| {
        let net_bios = r#"[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}"#;
        let label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
        Regex::new(&format!(r"^(?:{net_bios}|{label}(?:\.{label})*)$")).expect("a constant expression")
    });
    let mut messages = Vec::new();
    let mut say = |is_wrong: bool, message: &str| {
        if is_wrong {
            messages.push(format!("runAsUserName{message}"));
        }
    };
    let is_whole_wrong =
        name.is_empty() || name.chars().any(|c| c.is_ascii_control()) || name.matches('\\').count() > 1;
    if is_whole_wrong {
        let message = match name {
            "" => " cannot be an empty string",
            name if name.chars().any(|c| c.is_ascii_control()) => " cannot contain control characters",
            _ => " cannot contain more than one backslash",
        };
        say(true, message);
        return messages;
    }
    let (domain, user) = match name.split_once('\\') {
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    say(
        domain.unwrap_or_default().len() >= DOMAIN_BYTES_MAX,
        &format!("'s Domain length must be under {DOMAIN_BYTES_MAX} characters"),
    );
    say(
        domain.is_some_and(|domain| !DOMAIN.is_match(domain)),
        "'s Domain doesn't match the NetBios nor the DNS format",
    );
    say(user.is_empty(), "'s User cannot be empty");
    say(user.len() > USER_BYTES_MAX, &format!("'s User length must not be longer than {USER_BYTES_MAX} characters"));
    say(
        !user.is_empty() && user.chars().all(|c| c == '.' || c == ' '),
        "'s User cannot contain only periods or spaces",
    );
    say(
        user.contains(|c| FORBIDDEN_IN_USER.contains(c)),
        &format!("'s User cannot contain the following characters: {FORBIDDEN_IN_USER}"),
    );
    messages
}

/// Either all containers are processes of the host, or none.
pub fn validate_host_process(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let of_pod = spec.security_context.as_ref().and_then(|context| context.windows_options.as_ref()?.host_process);
    let containers = containers(spec, path);
    let mut count = 0;
    for (container, path) in &containers {
        let own =
            container.security_context.as_ref().and_then(|context| context.windows_options.as_ref()?.host_process);
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let path = path.child("securityContext").child("windowsOptions").child("hostProcess");
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(&path, own, why);
        }
        count += usize::from(own.or(of_pod).unwrap_or_default());
    }
    if count == 0 {
        return;
    }
    if count != containers.len() {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", why);
    }
    if spec.host_network != Some(true) {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), false, why);
    }
}
