//! Ports, protocols, IP addresses and CIDRs, as every kind that has them judges them.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::check;
use crate::{
    field::{Errors, Path},
    names,
};

/// Protocols of a port, in the order error messages list them.
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// A port number, 1 to 65535.
pub fn validate_port(port: i32, path: &Path, errors: &mut Errors) {
    for message in names::is_port_number(i64::from(port)) {
        errors.invalid(path, port, message);
    }
}

/// A port number, or the name of a container's port.
pub fn validate_port_or_name(port: &IntOrString, path: &Path, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => validate_port(*number, path, errors),
        IntOrString::String(name) => check(names::is_port_name(name), name, path, errors),
    }
}

/// `TCP`, `UDP` or `SCTP`; defaults have filled it in.
pub fn validate_protocol(protocol: Option<&str>, path: &Path, errors: &mut Errors) {
    match protocol.unwrap_or_default() {
        "" => errors.required(path, ""),
        known if PROTOCOLS.contains(&known) => {}
        other => errors.not_supported(path, other, PROTOCOLS),
    }
}

/// An IP address, in the strict form that 1.36 asks for. Returns whether it is one.
pub fn validate_ip(text: &str, path: &Path, errors: &mut Errors) -> bool {
    let messages = names::is_ip_for_legacy_field(text);
    let valid = messages.is_empty();
    check(messages, text, path, errors);
    valid
}

/// A CIDR, in the strict form that 1.36 asks for.
pub fn validate_cidr(text: &str, path: &Path, errors: &mut Errors) {
    check(names::is_cidr_for_legacy_field(text), text, path, errors);
}

/// An address that traffic may be sent to: not unspecified, loopback or link-local.
pub fn validate_endpoint_ip(text: &str, path: &Path, errors: &mut Errors) {
    let Some(address) = names::parse_ip_sloppy(text) else {
        return errors.invalid(path, text, "must be a valid IP address");
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    }
    if address.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check_endpoint(text: &str, expected: Expect) {
        let mut errors = Errors::default();
        validate_endpoint_ip(text, &Path::new("x"), &mut errors);
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn endpoint_addresses() {
        check_endpoint("10.0.0.1", expect![""]);
        check_endpoint(
            "127.0.0.1",
            expect![[r#"x: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#]],
        );
        check_endpoint(
            "fe80::1",
            expect![[r#"x: Invalid value: "fe80::1": may not be in the link-local range (169.254.0.0/16, fe80::/10)"#]],
        );
        check_endpoint("0.0.0.0", expect![[r#"x: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)"#]]);
    }
}
