//! `serviceaccounts/token`: a TokenRequest in, a token out.

use std::sync::Arc;

use axum::body::Body;

use super::{Answered, admit, posted};
use crate::{
    Server,
    call::Call,
    respond::{Answer, parse, respond},
};

pub(super) fn create(server: Arc<Server>, mut call: Call, body: Body) -> Answered {
    Box::pin(async move {
        let mut request = posted(&mut call, body, "TokenRequest").await?;
        let entry = server.entry(&call).ok_or_else(|| call.not_found())?;
        admit(&server, &call, &mut request).await?;
        let object = server.auth.create_token(&parse(&entry.bytes), request)?;
        respond(&call, Answer::Other { code: 201, object }, server.clock.now())
    })
}
