//! Who are you, may you: authentication, impersonation and authorization of every request.
//!
//! Order on a request: [`Auth::authenticate`] -> [`Auth::impersonate`] -> [`Auth::authorize`], whose refusal
//! becomes the answer by [`Decision::into_result`]. Writes of the RBAC kinds pass [`Auth::check_grant`] as well,
//! creates of the kinds that [`is_review`] names are answered by [`Auth::review`] instead of being stored, and
//! [`bootstrap::plan`] says at start which roles and bindings are missing.

pub mod authenticate;
pub mod authorize;
pub mod bootstrap;
mod controller_roles;
pub mod escalation;
pub mod impersonate;
pub mod node;
pub mod rbac;
pub mod reviews;
mod roles;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;

use std::sync::Arc;

use clock::{Chance, Clock};

pub use authorize::Decision;
pub use reviews::is_review;
pub use token::{ServiceAccountKeys, TokenConfig};

use crate::view::View;

/// Request extension: the client's certificate in DER, its chain already verified by the TLS layer against the
/// cluster's client CA. Nothing from the network can set it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerCertificate(pub Vec<u8>);

/// Authentication and authorization over the watch cache; shared behind an `Arc`.
pub struct Auth {
    view: Arc<dyn View>,
    clock: Clock,
    chance: Chance,
    keys: ServiceAccountKeys,
    tokens: TokenConfig,
    rbac: rbac::Rbac,
    node: node::NodeAuthorizer,
    verified: authenticate::VerifiedCache,
}

impl Auth {
    pub fn new(
        view: Arc<dyn View>,
        clock: Clock,
        chance: Chance,
        keys: ServiceAccountKeys,
        tokens: TokenConfig,
    ) -> Self {
        Self {
            rbac: rbac::Rbac::new(Arc::clone(&view)),
            node: node::NodeAuthorizer::new(Arc::clone(&view)),
            verified: authenticate::VerifiedCache::default(),
            view,
            clock,
            chance,
            keys,
            tokens,
        }
    }
}
