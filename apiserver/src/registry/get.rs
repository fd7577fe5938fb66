//! GET of one object.

use std::sync::Arc;

use api::Status;

use crate::{
    Server,
    cache::{Entry, key},
    call::Call,
    respond::Answer,
};

impl Server {
    pub(super) async fn get(&self, call: &Call) -> Result<Answer, Status> {
        self.wait_for_version(&call.options.resource_version).await?;
        let entry = self.entry(call).ok_or_else(|| call.not_found())?;
        Ok(Answer::Object { code: 200, bytes: entry.bytes.clone() })
    }

    /// What the cache holds under the name of the request.
    pub(crate) fn entry(&self, call: &Call) -> Option<Arc<Entry>> {
        let key = key(call.kind, call.namespace(), call.name());
        self.cache.resource(&call.descriptor().stored_as).get(&key)
    }

    /// Waits as a reader's resourceVersion demands: none, for everything acknowledged so far; `0`, for
    /// nothing; else for that revision.
    pub(super) async fn wait_for_version(&self, resource_version: &str) -> Result<(), Status> {
        match resource_version {
            "" => self.cache.consistent().await.map(|_| ()),
            "0" => Ok(()),
            text => self.wait_for_future(super::token::parse_version(text)?).await,
        }
    }
}
