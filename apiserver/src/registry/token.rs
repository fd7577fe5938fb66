//! resourceVersions and continue tokens, as clients send them.

use std::time::Duration;

use api::{
    Errors, Path, Status,
    status::{Cause, Details},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use store::Revision;

use crate::Server;

/// How long a request for a revision that has not happened yet waits for it.
const FUTURE_WAIT_MAX: Duration = Duration::from_secs(3);

const VERSION: &str = "meta.k8s.io/v1";

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// `None`: the newest state there is; the pages are then not one snapshot.
    pub revision: Option<Revision>,
    /// Relative to the resource: `<namespace>/<name>` and what follows it.
    pub start: String,
}

#[derive(Deserialize, Serialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

impl Continue {
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| revision as i64);
        let wire = Wire { v: VERSION.into(), rv, start: self.start.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    pub fn decode(token: &str) -> Result<Self, Status> {
        let invalid = |why: String| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| invalid(error.to_string()))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if wire.v != VERSION {
            return Err(invalid(format!("server does not recognize this encoded version {}", wire.v)));
        }
        if wire.rv == 0 {
            return Err(invalid(format!("incorrect encoded start resourceVersion (version {VERSION})")));
        }
        if wire.start.is_empty() {
            return Err(invalid(format!("encoded start key empty (version {VERSION})")));
        }
        Ok(Self { revision: Revision::try_from(wire.rv).ok(), start: wire.start })
    }
}

/// A resourceVersion that is not empty.
pub fn parse_version(text: &str) -> Result<Revision, Status> {
    text.parse().map_err(|_| {
        let mut errors = Errors::default();
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        errors.invalid(&Path::new("resourceVersion"), text, why);
        Status::bad_request(errors.summary())
    })
}

/// The history that a page needs is gone; the answer carries a token for going on without consistency.
pub fn expired_page(start: &str) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata.r#continue = Continue { revision: None, start: start.into() }.encode();
    status
}

impl Server {
    /// Waits for a revision that a client has seen somewhere.
    pub(super) async fn wait_for_future(&self, revision: Revision) -> Result<(), Status> {
        match tokio::time::timeout(FUTURE_WAIT_MAX, self.cache.wait_for(revision)).await {
            Ok(result) => result,
            Err(_) => Err(too_large(revision, self.cache.progress())),
        }
    }
}

fn too_large(revision: Revision, current: Revision) -> Status {
    let mut status = Status::timeout(format!("Too large resource version: {revision}, current: {current}"));
    let message = "Too large resource version".to_owned();
    let cause = Cause { reason: "ResourceVersionTooLarge".into(), message, ..Cause::default() };
    status.details = Some(Details { causes: vec![cause], retry_after_seconds: Some(1), ..Details::default() });
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back() {
        for revision in [Some(7), None] {
            let token = Continue { revision, start: "default/a\0".into() };
            assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        }
    }

    #[test]
    fn garbage_is_a_bad_request() {
        assert_eq!(Continue::decode("!!").unwrap_err().code, 400);
        assert!(parse_version("abc").unwrap_err().message.contains("invalid syntax"));
    }
}
