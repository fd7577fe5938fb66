//! The environment of a container, and `$(NAME)` in what refers to it. Pure, given the objects that it names.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret, Service};

use crate::{
    downward::{self, Place},
    pod::{namespace, spec},
    sources::SourceError,
};

/// Everything a container's environment may refer to.
#[derive(Default)]
pub struct Facts {
    pub place: Place,
    /// Of the Pod's namespace, and `kubernetes` of `default`.
    pub services: Vec<Arc<Service>>,
    pub config_maps: BTreeMap<String, Result<Arc<ConfigMap>, SourceError>>,
    pub secrets: BTreeMap<String, Result<Arc<Secret>, SourceError>>,
    /// Contents of env files, by volume and path.
    pub files: BTreeMap<(String, String), String>,
}

type Variables = BTreeMap<String, String>;

/// Name to value. The error is the message of CreateContainerConfigError, in upstream's words.
///
/// # Errors
/// Something that is not optional is missing.
pub fn environment(pod: &Pod, container: &Container, facts: &Facts) -> Result<Variables, String> {
    let services = service_variables(pod, &facts.services);
    let mut variables = Variables::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let found = found(&facts.config_maps, &reference.name, reference.optional)?;
            let data = found.iter().flat_map(|map| map.data.iter().flatten());
            variables.extend(data.map(|(name, value)| (format!("{prefix}{name}"), value.clone())));
        }
        if let Some(reference) = &from.secret_ref {
            let found = found(&facts.secrets, &reference.name, reference.optional)?;
            let data = found.iter().flat_map(|secret| secret.data.iter().flatten());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            variables.extend(data.map(|(name, value)| (format!("{prefix}{name}"), text(&value.0))));
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                let known = |name: &str| variables.get(name).or_else(|| services.get(name)).cloned();
                Some(expand(value, known))
            }
            (_, Some(source)) => value_from(pod, container, source, facts)?,
            _ => Some(String::new()),
        };
        variables.extend(value.map(|value| (variable.name.clone(), value)));
    }
    let unset: Vec<_> = services.into_iter().filter(|(name, _)| !variables.contains_key(name)).collect();
    variables.extend(unset);
    Ok(variables)
}

fn is(optional: Option<bool>) -> bool {
    optional.unwrap_or_default()
}

/// An object by name; `None` when it may be missing and is.
fn found<K>(
    objects: &BTreeMap<String, Result<Arc<K>, SourceError>>,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<Arc<K>>, String> {
    match objects.get(name) {
        Some(Ok(object)) => Ok(Some(object.clone())),
        Some(Err(error)) if error.is_not_found() && is(optional) => Ok(None),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("\"{name}\" was not looked up")),
    }
}

/// `None` when the variable is left out.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    facts: &Facts,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return downward::field(pod, &field.field_path, &facts.place).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), resource, &facts.place).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let Some(map) = found(&facts.config_maps, &reference.name, reference.optional)? else { return Ok(None) };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if is(reference.optional) => Ok(None),
            None => Err(missing_key(&reference.key, "ConfigMap", pod, &reference.name)),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let Some(secret) = found(&facts.secrets, &reference.name, reference.optional)? else { return Ok(None) };
        return match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if is(reference.optional) => Ok(None),
            None => Err(missing_key(&reference.key, "Secret", pod, &reference.name)),
        };
    }
    if let Some(file) = &source.file_key_ref {
        let content = facts.files.get(&(file.volume_name.clone(), file.path.clone()));
        let value = content.and_then(|content| value_in_file(content, &file.key));
        return match value {
            Some(value) => Ok(Some(value)),
            None if is(file.optional) => Ok(None),
            None => Err(format!("environment variable key \"{}\" not found in file \"{}\"", file.key, file.path)),
        };
    }
    Ok(Some(String::new()))
}

/// `KEY='value'` lines of an env file.
fn value_in_file(content: &str, key: &str) -> Option<String> {
    let lines = content.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let value = lines.filter_map(|line| line.split_once('=')).find(|(name, _)| *name == key)?.1;
    let quoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
    Some(quoted.unwrap_or(value).to_string())
}

fn missing_key(key: &str, kind: &str, pod: &Pod, name: &str) -> String {
    format!("couldn't find key {key} in {kind} {}/{name}", namespace(pod))
}

/// Variables that tell where Services are. `kubernetes` is always told; the namespace's own with enableServiceLinks.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> Variables {
    let links = spec(pod).enable_service_links.unwrap_or(true);
    let mut variables = Variables::new();
    let is_master = |service: &Service| {
        service.metadata.namespace.as_deref() == Some("default")
            && service.metadata.name.as_deref() == Some("kubernetes")
    };
    let own = |service: &Service| service.metadata.namespace.as_deref() == Some(namespace(pod));
    // A Service of the same name in the Pod's own namespace hides `kubernetes`.
    for service in services.iter().filter(|service| is_master(service)) {
        add_service(&mut variables, service);
    }
    for service in services.iter().filter(|service| links && own(service)) {
        add_service(&mut variables, service);
    }
    variables
}

fn add_service(variables: &mut Variables, service: &Service) {
    let of = service.spec.clone().unwrap_or_default();
    let Some(ip) = of.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None") else { return };
    let upper = |text: &str| text.replace('-', "_").to_uppercase();
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let ports = of.ports.unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let mut set = |key: String, value: String| variables.insert(key, value);
    set(format!("{name}_SERVICE_HOST"), ip.clone());
    set(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in &ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let number = port.port;
        let url = format!("{lower}://{}", crate::probe::http::authority(&ip, number as u16));
        if index == 0 {
            set(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{number}_{protocol}");
        set(prefix.clone(), url);
        set(format!("{prefix}_PROTO"), lower);
        set(format!("{prefix}_PORT"), number.to_string());
        set(format!("{prefix}_ADDR"), ip.clone());
    }
}

/// Replaces `$(NAME)` by its value; unknown names stay as they are and `$$` is a dollar sign.
pub fn expand(text: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match reference {
            Some((name, after)) => {
                out.push_str(&value_of(name).unwrap_or_else(|| format!("$({name})")));
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out + rest
}

/// For probes: only variables whose values are written in the Pod.
pub fn expand_statically(text: &str, variables: &[EnvVar]) -> String {
    expand(text, |name| variables.iter().rev().find(|variable| variable.name == name)?.value.clone())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn references_are_expanded_once() {
        let value_of = |name: &str| (name == "A").then(|| "$(B)".to_string());
        for (text, expected) in [
            ("x$(A)y", "x$(B)y"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$$(B)"),
            ("cost $5", "cost $5"),
            ("$(open", "$(open"),
            ("end$", "end$"),
        ] {
            assert_eq!(expand(text, value_of), expected, "{text}");
        }
    }

    fn check(container: serde_json::Value, expected: Expect) {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "labels": {"app": "web"}},
                                     "spec": {"containers": [container]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let map: ConfigMap = serde_json::from_value(serde_json::json!({"data": {"k": "v", "X": "map"}})).unwrap();
        let service = serde_json::json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}});
        let service: Service = serde_json::from_value(service).unwrap();
        let missing = SourceError::NotFound { kind: "secret", name: "s".into() };
        let facts = Facts {
            services: vec![Arc::new(service)],
            config_maps: [("m".to_string(), Ok(Arc::new(map)))].into(),
            secrets: [("s".to_string(), Err(missing))].into(),
            ..Default::default()
        };
        let text = match environment(&pod, &spec(&pod).containers[0], &facts) {
            Ok(variables) => variables.into_iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
            Err(error) => error,
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn later_sources_win_and_services_are_told() {
        let container = serde_json::json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
            "env": [{"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST)/$(P_k)"},
                    {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}]});
        check(
            container,
            expect![[r#"
            APP=web
            KUBERNETES_PORT=tcp://10.96.0.1:443
            KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
            KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
            KUBERNETES_PORT_443_TCP_PORT=443
            KUBERNETES_PORT_443_TCP_PROTO=tcp
            KUBERNETES_SERVICE_HOST=10.96.0.1
            KUBERNETES_SERVICE_PORT=443
            KUBERNETES_SERVICE_PORT_HTTPS=443
            P_X=map
            P_k=v
            URL=https://10.96.0.1/v
        "#]],
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let of = |reference: serde_json::Value| serde_json::json!({"name": "c", "env": [{"name": "A", "valueFrom": reference}]});
        check(of(serde_json::json!({"secretKeyRef": {"name": "s", "key": "k"}})), expect![[r#"secret "s" not found"#]]);
        check(
            of(serde_json::json!({"configMapKeyRef": {"name": "m", "key": "z"}})),
            expect!["couldn't find key z in ConfigMap n/m"],
        );
    }
}
