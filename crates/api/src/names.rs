//! What names, keys and addresses may look like, with upstream's sentences (`util/validation`).
//!
//! Every function returns the sentences about `value`; none means that it is fine.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::LazyLock,
};

use regex::Regex;

/// Longest label of a name or of a hostname, in bytes.
pub const LABEL_BYTES_MAX: usize = 63;
/// Longest name of most kinds, in bytes.
pub const SUBDOMAIN_BYTES_MAX: usize = 253;

/// A rule that a regular expression states, with the sentence for whatever breaks it.
struct Rule {
    sentence: &'static str,
    pattern: String,
    examples: &'static [&'static str],
    regex: Regex,
}

impl Rule {
    fn new(sentence: &'static str, pattern: &str, examples: &'static [&'static str]) -> Self {
        let regex = Regex::new(&format!("^(?:{pattern})$")).expect("the patterns below are valid");
        Self { sentence, pattern: pattern.to_owned(), examples, regex }
    }

    fn allows(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    fn sentence(&self) -> String {
        let mut sentence = format!("{} (", self.sentence);
        for (index, example) in self.examples.iter().enumerate() {
            sentence += &format!("{}'{example}', ", if index == 0 { "e.g. " } else { " or " });
        }
        sentence + &format!("regex used for validation is '{}')", self.pattern)
    }

    fn check(&self, value: &str, bytes_max: usize) -> Vec<String> {
        let mut sentences = Vec::new();
        if value.len() > bytes_max {
            sentences.push(max_len(bytes_max));
        }
        if !self.allows(value) {
            sentences.push(self.sentence());
        }
        sentences
    }
}

macro_rules! rules {
    ($($name:ident = $sentence:expr, $pattern:expr, $examples:expr;)*) => {
        $(static $name: LazyLock<Rule> = LazyLock::new(|| Rule::new($sentence, $pattern, &$examples));)*
    };
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

rules! {
    DNS1123_LABEL = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
        start and end with an alphanumeric character", LABEL, ["my-name", "123-abc"];
    DNS1123_SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
        '.', and must start and end with an alphanumeric character", SUBDOMAIN, ["example.com"];
    DNS1123_SUBDOMAIN_UNDERSCORE = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
        characters, '_', '-' or '.', and must start and end with an alphanumeric character",
        r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*", ["example.com"];
    DNS1035_LABEL = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
        alphabetic character, and end with an alphanumeric character",
        "[a-z]([-a-z0-9]*[a-z0-9])?", ["my-name", "abc-123"];
    WILDCARD_SUBDOMAIN = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, \
        which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
        &format!(r"\*\.{SUBDOMAIN}"), ["*.example.com"];
    LABEL_KEY_NAME = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
        alphanumeric character", "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", ["MyName", "my.name", "123-abc"];
    LABEL_VALUE = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
        must start and end with an alphanumeric character",
        "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", ["MyValue", "my_value", "12345"];
    C_IDENTIFIER = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
        alphanumeric characters or '_'", "[A-Za-z_][A-Za-z0-9_]*", ["my_name", "MY_NAME", "MyName"];
    PERCENT = "a valid percent string must be a numeric string followed by an ending '%'", "[0-9]+%", ["1%", "93%"];
    HTTP_HEADER = "a valid HTTP header must consist of alphanumeric characters or '-'", "[-A-Za-z0-9]+",
        ["X-Header-Name"];
    ENV_VAR = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and \
        must not start with a digit", "[-._a-zA-Z][-._a-zA-Z0-9]*", ["my.env-name", "MY_ENV.NAME", "MyEnvName1"];
    CONFIG_MAP_KEY = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
        "[-._a-zA-Z0-9]+", ["key.name", "KEY_NAME", "key-name"];
}

/// `must be no more than N characters`
pub fn max_len(bytes_max: usize) -> String {
    format!("must be no more than {bytes_max} characters")
}

/// `must be between A and B, inclusive`
pub fn inclusive_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A hostname label: Namespace names, container names.
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        sentences.push(max_len(LABEL_BYTES_MAX));
    }
    if !DNS1123_LABEL.allows(value) {
        let dots = DNS1123_SUBDOMAIN.allows(value);
        sentences.push(if dots { "must not contain dots".into() } else { DNS1123_LABEL.sentence() });
    }
    sentences
}

/// A DNS name: names of most kinds.
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    DNS1123_SUBDOMAIN.check(value, SUBDOMAIN_BYTES_MAX)
}

/// A DNS name in which labels may hold underscores.
pub fn is_dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    DNS1123_SUBDOMAIN_UNDERSCORE.check(value, SUBDOMAIN_BYTES_MAX)
}

/// A label that starts with a letter: Service names.
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    DNS1035_LABEL.check(value, LABEL_BYTES_MAX)
}

/// `*.example.com`
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    WILDCARD_SUBDOMAIN.check(value, SUBDOMAIN_BYTES_MAX)
}

/// `[prefix/]name`: keys of labels and annotations, resource names, finalizers.
pub fn is_qualified_name(value: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                sentences.push("prefix part must be non-empty".to_owned());
            } else {
                let long = prefix.len() > SUBDOMAIN_BYTES_MAX;
                let too_long = long.then(|| format!("must be no more than {SUBDOMAIN_BYTES_MAX} bytes"));
                let wrong = too_long.into_iter().chain(DNS1123_SUBDOMAIN.check(prefix, usize::MAX));
                sentences.extend(wrong.map(|sentence| format!("prefix part {sentence}")));
            }
            name
        }
        _ => {
            let rule = LABEL_KEY_NAME.sentence();
            let prefix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {rule} {prefix}")];
        }
    };
    if name.is_empty() {
        sentences.push("name part must be non-empty".into());
    } else if name.len() > LABEL_BYTES_MAX {
        sentences.push(format!("name part must be no more than {LABEL_BYTES_MAX} bytes"));
    }
    if !LABEL_KEY_NAME.allows(name) {
        sentences.push(format!("name part {}", LABEL_KEY_NAME.sentence()));
    }
    sentences
}

pub fn is_valid_label_value(value: &str) -> Vec<String> {
    let mut sentences = LABEL_VALUE.check(value, usize::MAX);
    if value.len() > LABEL_BYTES_MAX {
        sentences.insert(0, format!("must be no more than {LABEL_BYTES_MAX} bytes"));
    }
    sentences
}

/// A key of a ConfigMap or Secret.
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut sentences = CONFIG_MAP_KEY.check(value, SUBDOMAIN_BYTES_MAX);
    sentences.extend(parent_directory(value));
    sentences
}

/// The name of an environment variable, as 1.36 takes it: printable ASCII without `=`.
pub fn is_env_var_name(value: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    if value.is_empty() {
        sentences.push("environment variable name must be non-empty".to_owned());
    }
    if !value.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        let sentence =
            "a valid environment variable name must consist only of printable ASCII characters other than '='";
        sentences.push(sentence.into());
    }
    sentences
}

/// The name of an environment variable by the older, narrower rule.
pub fn is_strict_env_var_name(value: &str) -> Vec<String> {
    let mut sentences = ENV_VAR.check(value, usize::MAX);
    sentences.extend(parent_directory(value));
    sentences
}

fn parent_directory(value: &str) -> Option<String> {
    match value {
        "." | ".." => Some(format!("must not be '{value}'")),
        value if value.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

pub fn is_c_identifier(value: &str) -> Vec<String> {
    C_IDENTIFIER.check(value, usize::MAX)
}

/// The name of a port (IANA service name).
pub fn is_port_name(value: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    if value.len() > 15 {
        sentences.push(max_len(15));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        sentences.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        sentences.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        sentences.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        sentences.push("must not begin or end with a hyphen".into());
    }
    sentences
}

/// A port number, 1 to 65535.
pub fn is_port_number(port: i64) -> Vec<String> {
    is_in_range(port, 1, 65535)
}

pub fn is_in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) { Vec::new() } else { vec![inclusive_range(low, high)] }
}

/// A user or group id of a process.
pub fn is_id(id: i64) -> Vec<String> {
    is_in_range(id, 0, i64::from(i32::MAX))
}

pub fn is_percent(value: &str) -> Vec<String> {
    PERCENT.check(value, usize::MAX)
}

pub fn is_http_header_name(value: &str) -> Vec<String> {
    HTTP_HEADER.check(value, usize::MAX)
}

/// A name that fits between two slashes of a path.
pub fn is_path_segment_name(value: &str) -> Vec<String> {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        value => is_path_segment_prefix(value),
    }
}

/// The start of such a name (generateName).
pub fn is_path_segment_prefix(value: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|bad| value.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// What holds for a generateName: the name's rule, with the trailing hyphen that a suffix will follow.
pub fn masked_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(head) if !head.is_empty() => format!("{head}a"),
        _ => prefix.to_owned(),
    }
}

/// IPv4 with leading zeros counts too, as in fields older than the strict rule.
pub fn parse_ip_sloppy(value: &str) -> Option<IpAddr> {
    if let Ok(ip) = IpAddr::from_str(value) {
        return Some(ip);
    }
    let octets: Vec<u8> = value
        .split('.')
        .map(|octet| {
            let plain = !octet.is_empty() && octet.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| octet.parse().ok()).flatten()
        })
        .collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets)))
}

fn mapped(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    }
}

/// An IP address by the strict rule of older fields: any spelling, no leading zeros, not IPv4 in IPv6.
pub fn is_ip_for_legacy_field(value: &str) -> Vec<String> {
    let Some(ip) = parse_ip_sloppy(value) else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()];
    };
    let mut sentences = Vec::new();
    if IpAddr::from_str(value).is_err() {
        sentences.push("must not have leading 0s".to_owned());
    }
    if mapped(&ip).is_some() {
        sentences.push("must not be an IPv4-mapped IPv6 address".into());
    }
    sentences
}

/// An IP address in its one canonical spelling.
pub fn is_ip(value: &str) -> Vec<String> {
    let mut sentences = is_ip_for_legacy_field(value);
    if sentences.is_empty()
        && let Some(ip) = parse_ip_sloppy(value).filter(|ip| ip.to_string() != value)
    {
        sentences.push(format!("must be in canonical form (\"{ip}\")"));
    }
    sentences
}

/// A CIDR by the strict rule of older fields.
pub fn is_cidr_for_legacy_field(value: &str) -> Vec<String> {
    let wrong = || vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    let Some((address, length)) = value.split_once('/') else { return wrong() };
    let (Some(ip), Ok(prefix)) = (parse_ip_sloppy(address), length.parse::<u8>()) else { return wrong() };
    if length.starts_with('+') || prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return wrong();
    }
    if IpAddr::from_str(address).is_err() || (length.len() > 1 && length.starts_with('0')) {
        return vec!["must not have leading 0s in IP or prefix length".into()];
    }
    if mapped(&ip).is_some() {
        return vec!["must not have an IPv4-mapped IPv6 address".into()];
    }
    match ipnet::IpNet::new(ip, prefix) {
        Ok(net) if net.network() != ip => vec!["must not have bits set beyond the prefix length".into()],
        _ => Vec::new(),
    }
}

/// A CIDR in its one canonical spelling.
pub fn is_cidr(value: &str) -> Vec<String> {
    let mut sentences = is_cidr_for_legacy_field(value);
    if sentences.is_empty()
        && let Some(net) = ipnet::IpNet::from_str(value).ok().filter(|net| net.to_string() != value)
    {
        sentences.push(format!("must be in canonical form (\"{net}\")"));
    }
    sentences
}

/// A warning about an address that is valid and not canonical; `path` names the field.
pub fn ip_warning(path: &str, value: &str) -> Option<String> {
    let ip = parse_ip_sloppy(value)?;
    let plain = mapped(&ip).map_or(ip, IpAddr::V4);
    match IpAddr::from_str(value) {
        Ok(IpAddr::V6(v6)) if mapped(&ip).is_none() => (v6.to_string() != value).then(|| {
            let canonical: Ipv6Addr = v6;
            format!("{path}: IPv6 address {value:?} should be in RFC 5952 canonical format (\"{canonical}\")")
        }),
        Ok(IpAddr::V4(_)) => None,
        _ => Some(format!("{path}: non-standard IP address {value:?} is invalid: use \"{plain}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type NameCheck = fn(&str) -> Vec<String>;

    #[test]
    fn good_names_pass() {
        let rows: [(NameCheck, &[&str]); 9] = [
            (is_dns1123_label, &["a", "a-b", "0"]),
            (is_dns1123_subdomain, &["a.b", "a-b.c0"]),
            (is_dns1035_label, &["a1"]),
            (is_qualified_name, &["app", "example.com/My_App.1"]),
            (is_valid_label_value, &["", "1.2_x"]),
            (is_config_map_key, &[".a", "A_b-c"]),
            (is_env_var_name, &["1 weird name", "A"]),
            (is_port_name, &["http", "8-a"]),
            (is_ip, &["10.0.0.1", "2001:db8::1"]),
        ];
        for (rule, values) in rows {
            for value in values {
                assert_eq!(rule(value), Vec::<String>::new(), "{value}");
            }
        }
    }

    #[test]
    fn sentences_are_upstreams() {
        assert_eq!(is_dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            is_dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
              end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(is_qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(is_qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
        assert_eq!(is_config_map_key("..x"), ["must not start with '..'"]);
        assert_eq!(
            is_port_name("-1"),
            ["must contain at least one letter (a-z)", "must not begin or end with a hyphen"]
        );
        assert_eq!(is_ip("1.2.3.04"), ["must not have leading 0s"]);
        assert_eq!(is_ip("FE80::1"), ["must be in canonical form (\"fe80::1\")"]);
        assert_eq!(is_cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(is_path_segment_name("a/b"), ["may not contain '/'"]);
    }
}
