//! Names and amounts of resources: `cpu`, `memory`, `nvidia.com/gpu`, ...

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::NOT_NEGATIVE;
use crate::{
    field::{Errors, Path},
    names,
    quantity::Quantity,
};

const REQUESTS_PREFIX: &str = "requests.";

/// Resources of which there are no fractions, beside extended ones.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether Kubernetes itself gives the name its meaning.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the name belongs to a device plugin or the like: `nvidia.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with(REQUESTS_PREFIX)
        && names::is_qualified_name(&format!("{REQUESTS_PREFIX}{name}")).is_empty()
}

/// Whether only whole numbers of it make sense.
pub fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// An amount of a resource: a quantity, not negative, whole where it is counted.
pub fn validate_amount(name: &str, amount: &Text, path: &Path, errors: &mut Errors) {
    let quantity = match Quantity::from_str(&amount.0) {
        Ok(quantity) => quantity,
        Err(error) => return errors.invalid(path, &amount.0, error.to_string()),
    };
    if quantity.sign() < 0 {
        errors.invalid(path, &amount.0, NOT_NEGATIVE);
    }
    if is_counted(name) && !quantity.is_multiple_of_milli(1000) {
        errors.invalid(path, &amount.0, "must be an integer");
    }
}
