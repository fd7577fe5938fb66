//! What a Service claims: cluster IPs and node ports.
//!
//! A claim is a key of its own in the store, `allocations/clusterips/<address>` or `allocations/nodeports/<port>`,
//! committed together with the Service: two Services can never hold one address, whatever server wrote them, and a
//! crash can never leak one.

mod addresses;
mod families;
mod ports;

use api::{Errors, Object, Status, object::ObjectExt};
use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;
use serde_json::json;
use store::{Key, Precondition, Write};

use crate::admission::Attributes;

/// The resource under which claims are stored; no path leads there.
const STORED_AS: &str = "allocations";
const ADDRESSES: &str = "clusterips";
const PORTS: &str = "nodeports";
/// How often a free address or port is looked for at random before all are looked at in turn.
const RANDOM_ATTEMPTS: usize = 16;

/// Fills in what `object` needs and returns the claims to commit with it: `Put` with `Precondition::Absent`
/// for what is taken, `Delete` for what is given back. `object` is `None` when `attributes.old` is deleted.
/// If a claim turns out to be taken, the whole request is decided again.
pub fn claims(attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<Vec<Write>, Status> {
    if !attributes.kind.group.is_empty() || attributes.kind.plural != "services" {
        return Ok(Vec::new());
    }
    let old = attributes.old.map(decoded).transpose()?;
    let held = Claims::of(old.as_ref());
    let Some(object) = object else { return Ok(writes(attributes, "", &held, &Claims::default())) };
    // What the status subresource changes claims nothing.
    if !attributes.subresource.is_empty() {
        return Ok(Vec::new());
    }
    let mut service = decoded(object)?;
    let before = service.clone();
    let request = Request { attributes, held: &held, old: old.as_ref() };
    families::complete(&request, &mut service)?;
    addresses::assign(&request, &mut service)?;
    ports::assign(&request, &mut service)?;
    if service != before {
        *object = serde_json::to_value(&service).map_err(Status::internal)?;
    }
    Ok(writes(attributes, object.uid(), &held, &Claims::of(Some(&service))))
}

fn decoded(object: &Object) -> Result<Service, Status> {
    Service::deserialize(object).map_err(|error| Status::bad_request(error.to_string()))
}

/// A Service that wants addresses and ports, and what it has already.
struct Request<'a> {
    attributes: &'a Attributes<'a>,
    held: &'a Claims,
    old: Option<&'a Service>,
}

impl Request<'_> {
    /// Whether somebody has it. What the Service itself holds is asked of `held`.
    fn is_taken(&self, what: &str, name: &str) -> bool {
        self.attributes.view.get("", STORED_AS, what, name).is_some()
    }

    /// A free one of `count`, the lower `band` of which is kept for those who ask by number, as long as the rest has
    /// some. `name` says what the one at an index is called, `is_own` which are taken by this very request.
    fn free(
        &self,
        what: &str,
        (count, band): (usize, usize),
        name: impl Fn(usize) -> String,
        is_own: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let is_free = |index: &usize| !is_own(*index) && !self.is_taken(what, &name(*index));
        let upper = count.saturating_sub(band);
        let mut random = (0..RANDOM_ATTEMPTS).filter(|_| upper > 0).map(|_| band + self.attributes.chance.below(upper));
        let in_turn = || (band..count).find(is_free);
        random.find(is_free).or_else(in_turn).or_else(|| (0..band.min(count)).rev().find(is_free))
    }

    fn invalid(&self, errors: Errors) -> Result<(), Status> {
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Status::invalid("", "Service", self.attributes.name, errors)),
        }
    }
}

/// What a Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Claims {
    addresses: Vec<String>,
    ports: Vec<u16>,
}

impl Claims {
    fn of(service: Option<&Service>) -> Self {
        let Some(spec) = service.and_then(|service| service.spec.as_ref()) else { return Self::default() };
        Self { addresses: addresses::of(spec), ports: ports::of(spec) }
    }

    fn keys(&self) -> Vec<(&'static str, String)> {
        let addresses = self.addresses.iter().map(|address| (ADDRESSES, address.clone()));
        addresses.chain(self.ports.iter().map(|port| (PORTS, port.to_string()))).collect()
    }
}

/// The difference between what was held and what is wanted.
fn writes(attributes: &Attributes<'_>, uid: &str, held: &Claims, wanted: &Claims) -> Vec<Write> {
    let (held, wanted) = (held.keys(), wanted.keys());
    let taken = wanted.iter().filter(|claim| !held.contains(claim)).map(|(what, name)| Write::Put {
        key: key(what, name),
        value: api::encoding::encode(&json!({
            "kind": "Allocation", "apiVersion": "skiff/v1", "metadata": {"namespace": what, "name": name},
            "service": {"namespace": attributes.namespace, "name": attributes.name, "uid": uid},
        })),
        precondition: Precondition::Absent,
        ttl: None,
    });
    let given_back = held.iter().filter(|claim| !wanted.contains(claim));
    let present = given_back.filter(|(what, name)| attributes.view.get("", STORED_AS, what, name).is_some());
    let released = present.map(|(what, name)| Write::Delete { key: key(what, name), precondition: Precondition::None });
    taken.chain(released).collect()
}

fn key(what: &str, name: &str) -> Key {
    format!("{STORED_AS}/{what}/{name}").into()
}

#[cfg(test)]
mod tests;
