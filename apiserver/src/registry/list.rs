//! LIST: one consistent snapshot, in pages where the client asks for them.

use std::sync::Arc;

use api::{Errors, Path, Status};
use store::Revision;

use super::{
    selection::Selection,
    token::{Continue, expired_page, parse_version},
};
use crate::{
    Server,
    cache::Snapshot,
    call::Call,
    options::{Options, invalid_unless_empty},
    respond::{Answer, List},
};

impl Server {
    pub(super) async fn list(&self, call: &Call) -> Result<Answer, Status> {
        self.page(call).await.map(Answer::List)
    }

    pub(super) async fn page(&self, call: &Call) -> Result<List, Status> {
        validate(&call.options)?;
        let selection = Selection::new(call.kind, &call.info, &call.options)?;
        let token = match call.options.r#continue.as_str() {
            "" => None,
            text => Some(Continue::decode(text)?),
        };
        let snapshot = match &token {
            Some(token) => self.snapshot_of_page(call, token).await?,
            None => self.snapshot_for(call).await?,
        };
        let stored_as = &call.descriptor().stored_as;
        let from = token.map(|token| format!("{stored_as}/{}", token.start));
        Ok(cut(stored_as, &snapshot, &selection, from.as_deref(), call.options.limit))
    }

    /// The state that the first page shows.
    async fn snapshot_for(&self, call: &Call) -> Result<Snapshot, Status> {
        let Options { resource_version, resource_version_match, limit, .. } = &call.options;
        let is_exact = resource_version_match == "Exact" || (resource_version_match.is_empty() && *limit > 0);
        match resource_version.as_str() {
            "" | "0" => {}
            text if is_exact => {
                let revision = parse_version(text)?;
                self.wait_for_future(revision).await?;
                let expired = || Status::expired("The resourceVersion for the provided list is too old.");
                return self.snapshot_at(call, revision).await?.ok_or_else(expired);
            }
            _ => {}
        }
        self.wait_for_version(resource_version).await?;
        Ok(self.cache.snapshot(&self.cache.resource(&call.descriptor().stored_as)))
    }

    /// The state that a later page shows.
    async fn snapshot_of_page(&self, call: &Call, token: &Continue) -> Result<Snapshot, Status> {
        if !matches!(call.options.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        match token.revision {
            Some(revision) => {
                self.wait_for_future(revision).await?;
                self.snapshot_at(call, revision).await?.ok_or_else(|| expired_page(&token.start))
            }
            None => {
                self.cache.consistent().await?;
                Ok(self.cache.snapshot(&self.cache.resource(&call.descriptor().stored_as)))
            }
        }
    }

    /// An older state, from the cache's window or from the store's history; `None` when both have forgotten it.
    async fn snapshot_at(&self, call: &Call, revision: Revision) -> Result<Option<Snapshot>, Status> {
        let stored_as = &call.descriptor().stored_as;
        match self.cache.resource(stored_as).snapshot_at(revision) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(_) => self.cache.snapshot_from_store(stored_as, revision).await,
        }
    }
}

fn cut(stored_as: &str, snapshot: &Snapshot, selection: &Selection, from: Option<&str>, limit: usize) -> List {
    let wanted = if limit == 0 { usize::MAX } else { limit };
    let mut selected = selection.pick(&snapshot.objects, from);
    let entries: Vec<_> = selected.by_ref().take(wanted).map(Arc::clone).collect();
    let has_more = entries.len() == wanted && selected.next().is_some();
    let mut list = List { entries, revision: snapshot.revision, r#continue: String::new(), remaining: None };
    if let (true, Some(last)) = (has_more, list.entries.last()) {
        let start = format!("{}\0", last.key.strip_prefix(&format!("{stored_as}/")).unwrap_or(&last.key));
        let key = last.key.clone();
        list.r#continue = Continue { revision: Some(snapshot.revision), start }.encode();
        list.remaining = selection.is_everything().then(|| selection.count_after(&snapshot.objects, &key));
    }
    list
}

/// Which parameters go together, in upstream's words.
fn validate(options: &Options) -> Result<(), Status> {
    let mut errors = Errors::default();
    let path = Path::new("resourceVersionMatch");
    let wanted = options.resource_version_match.as_str();
    if !wanted.is_empty() {
        if options.resource_version.is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !options.r#continue.is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if !matches!(wanted, "Exact" | "NotOlderThan") {
            errors.not_supported(&path, wanted, &["Exact", "NotOlderThan", ""]);
        }
        if wanted == "Exact" && options.resource_version == "0" {
            errors.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if options.send_initial_events.is_some() {
        errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    invalid_unless_empty("ListOptions", errors)
}
