//! Requests and limits.

use std::{cmp::Ordering, collections::BTreeSet, str::FromStr as _};

use k8s_openapi::{
    api::core::v1::{Container, ResourceClaim, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{MIRROR_POD, Surroundings};
use crate::{
    field::{Errors, Path, Problem},
    kinds::core::pod::resources::{ResourceList, compare, container_limits, container_requests, is_pod_level},
    names,
    quantity::Quantity as Amount,
    validation::{
        check,
        resources::{is_extended, is_native, validate_amount},
    },
};

/// Resources without a domain in their name.
const STANDARD: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether more of it may be limited than the node has.
fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// The name of a resource anywhere.
pub fn validate_resource_name(name: &str, path: &Path, errors: &mut Errors) {
    let wrong = names::is_qualified_name(name);
    let is_fine = wrong.is_empty();
    check(wrong, name, path, errors);
    let is_standard = STANDARD.contains(&name) || is_huge_pages(name) || name.starts_with("requests.hugepages-");
    if is_fine && !name.contains('/') && !is_standard {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
}

fn validate_container_resource(name: &str, path: &Path, errors: &mut Errors) {
    validate_resource_name(name, path, errors);
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !is_huge_pages(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

fn validate_pod_resource(name: &str, path: &Path, errors: &mut Errors) {
    let mut wrong = Errors::default();
    validate_resource_name(name, path, &mut wrong);
    if wrong.is_empty() && !is_pod_level(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
    errors.extend(wrong);
}

fn validate_huge_pages(name: &str, quantity: &Quantity, path: &Path, errors: &mut Errors) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let page = Amount::from_str(size).ok().filter(|page| page.sign() > 0 && page.is_multiple_of_milli(1000));
    if page.is_none_or(|page| Amount::of(quantity).value() % page.value() != 0) {
        errors.invalid(path, &quantity.0, format!("{} is not positive integer multiple of {name}", quantity.0));
    }
}

/// The resources of one container; `path` leads to `resources`.
pub fn validate_container(container: &Container, around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let resources = container.resources.clone().unwrap_or_default();
    validate_requirements(&resources, validate_container_resource, path, errors);
    validate_claims(resources.claims.as_deref().unwrap_or_default(), around, &path.child("claims"), errors);
}

/// What running the Pod costs beside its containers.
pub fn validate_overhead(overhead: &ResourceList, path: &Path, errors: &mut Errors) {
    let resources = ResourceRequirements { limits: Some(overhead.clone()), ..ResourceRequirements::default() };
    validate_requirements(&resources, validate_container_resource, path, errors);
}

fn validate_requirements(
    resources: &ResourceRequirements,
    validate_name: fn(&str, &Path, &mut Errors),
    path: &Path,
    errors: &mut Errors,
) {
    let nothing = ResourceList::new();
    let (limits, requests) =
        (resources.limits.as_ref().unwrap_or(&nothing), resources.requests.as_ref().unwrap_or(&nothing));
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let look = |name: &str, quantity: &Quantity, path: &Path, errors: &mut Errors| {
        validate_name(name, path, errors);
        validate_amount(name, quantity, path, errors);
    };
    for (name, limit) in limits {
        let path = limits_path.key(name);
        look(name, limit, &path, errors);
        validate_huge_pages(name, limit, &path, errors);
    }
    for (name, request) in requests {
        let path = requests_path.key(name);
        look(name, request, &path, errors);
        match limits.get(name) {
            Some(limit) if !is_overcommit_allowed(name) && compare(request, limit) != Ordering::Equal => {
                errors.invalid(&requests_path, &request.0, format!("must be equal to {name} limit of {}", limit.0));
            }
            Some(limit) if compare(request, limit) == Ordering::Greater => {
                let why = format!("must be less than or equal to {name} limit of {}", limit.0);
                errors.invalid(&requests_path, &request.0, why);
            }
            None if !is_overcommit_allowed(name) => {
                errors.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        validate_huge_pages(name, request, &path, errors);
    }
    let has = |wanted: fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| wanted(name));
    if has(is_huge_pages) && !has(|name| name == "cpu" || name == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// A container's claims are among the Pod's.
fn validate_claims(claims: &[ResourceClaim], around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        if claim.name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let request = claim.request.as_deref().unwrap_or_default();
        let whole = claim.name.clone();
        let key = if request.is_empty() { whole.clone() } else { format!("{whole}/{request}") };
        if known.contains(&whole) {
            errors.duplicate(&path, &whole);
        } else {
            if !request.is_empty() {
                check(names::is_dns1123_label(request), request, &path.child("request"), errors);
            }
            let part_of_it = format!("{whole}/");
            if known.contains(&key) {
                errors.duplicate(&path, &key);
            } else if request.is_empty() && known.iter().any(|other| other.starts_with(&part_of_it)) {
                errors.duplicate(&path, &whole);
            }
            known.insert(key);
        }
        if !around.claim_names.contains(whole.as_str()) {
            let names: Vec<&str> = around.claim_names.iter().copied().collect();
            let which = if names.is_empty() { " which is empty".into() } else { format!(": {}", names.join(", ")) };
            let why = format!("must be one of the names in pod.spec.resourceClaims{which}");
            errors.push(&path, Problem::NotFound(whole.into()), why);
        }
    }
}

/// The claims of the Pod.
pub fn validate_pod_claims(around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let claims = around.spec.resource_claims.as_deref().unwrap_or_default();
    let annotations = around.meta.and_then(|meta| meta.annotations.as_ref());
    let is_mirror = annotations.is_some_and(|annotations| annotations.contains_key(MIRROR_POD));
    for (index, claim) in claims.iter().enumerate() {
        if is_mirror {
            errors.forbidden(&Path::default(), "static pods do not support resource claims");
            continue;
        }
        let path = path.index(index);
        let at = path.child("name");
        match claim.name.as_str() {
            "" => errors.required(&at, ""),
            name if claims[..index].iter().any(|other| other.name == name) => errors.duplicate(&at, name),
            name => check(names::is_dns1123_label(name), name, &at, errors),
        }
        let wrong = match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                Some("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
            }
            (None, None) => Some("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => None,
        };
        wrong.into_iter().for_each(|wrong| errors.invalid(&path, claim, wrong));
        for (name, field) in [
            (&claim.resource_claim_name, "resourceClaimName"),
            (&claim.resource_claim_template_name, "resourceClaimTemplateName"),
        ] {
            if let Some(name) = name {
                check(names::is_dns1123_subdomain(name), name, &path.child(field), errors);
            }
        }
    }
}

/// The resources of the Pod as a whole; `path` leads to the spec.
pub fn validate_pod_level(around: &Surroundings<'_>, path: &Path, errors: &mut Errors) {
    let spec = around.spec;
    let Some(own) = &spec.resources else { return };
    let path = path.child("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return errors.forbidden(&path, "may not be set for a windows pod");
    }
    if own.claims.is_some() {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    validate_requirements(own, validate_pod_resource, &path, errors);
    let (limits, requests) = (own.limits.clone().unwrap_or_default(), own.requests.clone().unwrap_or_default());
    for (name, needed) in container_requests(spec) {
        let Some(request) = requests.get(&name).filter(|request| compare(&needed, request) == Ordering::Greater) else {
            continue;
        };
        let why = format!("must be greater than or equal to aggregate container requests of {}", needed.0);
        errors.invalid(&path.child("requests").key(&name), &request.0, why);
    }
    for (name, needed) in container_limits(spec).into_iter().filter(|(name, _)| is_huge_pages(name)) {
        let Some(limit) = limits.get(&name).filter(|limit| compare(&needed, limit) == Ordering::Greater) else {
            continue;
        };
        let why = format!("must be greater than or equal to aggregate container limits of {}", needed.0);
        errors.invalid(&path.child("limits").key(&name), &limit.0, why);
    }
    for (index, container) in spec.containers.iter().enumerate() {
        for (name, own) in container.resources.iter().filter_map(|own| own.limits.as_ref()).flatten() {
            let Some(limit) = limits.get(name).filter(|limit| compare(own, limit) == Ordering::Greater) else {
                continue;
            };
            let path = path.child("containers").index(index).key(name).child("limits");
            errors.invalid(&path, &own.0, format!("must be less than or equal to pod limits of {}", limit.0));
        }
    }
}
