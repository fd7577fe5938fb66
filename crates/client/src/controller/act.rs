//! Carries out actions: the only place where controllers write.

use futures::future::join_all;
use kube::{
    Client, Resource,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
    core::{PartialObjectMeta, Request},
};
use serde_json::Value;

use super::{Action, Deletion, Note, Verb, tell};
use crate::{Key, events::EventRecorder, freshness::Mark};

/// Actions under way at once, after a start of 1, 2, 4, ...: a server that refuses is asked once.
const PARALLEL_MAX: usize = 64;

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    /// The object has changed: the next pass sees how.
    #[error("{action}: it has changed meanwhile")]
    Conflict { action: String },
    #[error("{action}")]
    Failed {
        action: String,
        verb: &'static str,
        #[source]
        source: kube::Error,
    },
}

impl ActError {
    /// What the next pass should know: the verb, and the server's sentence.
    pub fn failure(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Conflict { .. } => None,
            Self::Failed { verb, source, .. } => Some((verb, sentence(source))),
        }
    }
}

/// The server's own words where there are some.
fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// What became of a list of actions.
#[derive(Debug, Default)]
pub(super) struct Acted {
    /// What the caches must show before the key is looked at again, by kind.
    pub marks: Vec<(String, Mark)>,
    pub error: Option<ActError>,
}

impl Acted {
    pub fn and(&mut self, other: Self) {
        self.marks.extend(other.marks);
        self.error = self.error.take().or(other.error);
    }
}

/// Does what actions say.
pub(super) struct Executor {
    pub client: Client,
    pub manager: String,
    pub recorder: EventRecorder,
}

impl Executor {
    /// In order, in batches of 1, 2, 4, ...; nothing more after the batch with the first error.
    pub async fn act(&self, actions: Vec<Action>) -> Acted {
        let mut acted = Acted::default();
        let mut rest = actions.into_iter();
        let mut batch_size = 1;
        loop {
            let batch: Vec<Action> = rest.by_ref().take(batch_size).collect();
            if batch.is_empty() || acted.error.is_some() {
                return acted;
            }
            for outcome in join_all(batch.into_iter().map(|action| self.one(action))).await {
                acted.and(outcome);
            }
            batch_size = (batch_size * 2).min(PARALLEL_MAX);
        }
    }

    async fn one(&self, action: Action) -> Acted {
        tracing::debug!(%action, "act");
        match self.send(&action).await {
            Ok(written) => {
                let mark = mark(&action, &written);
                if let Some(note) = action.success {
                    let server_chose =
                        matches!(&action.verb, Verb::Create(object) if object.pointer("/metadata/name").is_none());
                    let name = written.metadata.name.filter(|_| server_chose).unwrap_or_default();
                    tell(&self.recorder, Note { message: format!("{}{name}", note.message), ..note });
                }
                Acted { marks: mark.into_iter().collect(), error: None }
            }
            Err(error) if is_done(&action.verb, &error) => Acted::default(),
            Err(error) => self.failed(action, error),
        }
    }

    fn failed(&self, action: Action, error: kube::Error) -> Acted {
        let line = action.to_string();
        let conflict = matches!(&error, kube::Error::Api(status) if status.reason == "Conflict");
        let error = if conflict {
            ActError::Conflict { action: line }
        } else {
            if let Some(note) = action.failure {
                tell(&self.recorder, Note { message: format!("{}{}", note.message, sentence(&error)), ..note });
            }
            tracing::warn!(action = line, error = sentence(&error), "action failed");
            ActError::Failed { action: line, verb: action.verb.name(), source: error }
        };
        Acted { marks: Vec::new(), error: Some(error) }
    }

    async fn send(&self, action: &Action) -> kube::Result<PartialObjectMeta> {
        let key = &action.target.key;
        let namespace = Some(key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let request = Request::new(DynamicObject::url_path(&action.target.resource, namespace));
        let post = PostParams { field_manager: Some(self.manager.clone()), ..PostParams::default() };
        let body = |object: &Value| object.to_string().into_bytes();
        let built = match &action.verb {
            Verb::Create(object) => request.create(&post, body(object)),
            Verb::Replace { object, subresource: None } => request.replace(&key.name, &post, body(object)),
            Verb::Replace { object, subresource: Some(subresource) } => {
                request.replace_subresource(subresource, &key.name, &post, body(object))
            }
            Verb::Patch { patch, subresource } => {
                let params = PatchParams { field_manager: Some(self.manager.clone()), ..PatchParams::default() };
                match subresource {
                    None => request.patch(&key.name, &params, &Patch::Merge(patch)),
                    Some(subresource) => {
                        request.patch_subresource(subresource, &key.name, &params, &Patch::Merge(patch))
                    }
                }
            }
            Verb::Delete(deletion) => {
                let Deletion { uid, revision, propagation, grace_seconds } = deletion.clone();
                let params = DeleteParams {
                    preconditions: Some(Preconditions { uid, resource_version: revision }),
                    propagation_policy: propagation,
                    grace_period_seconds: grace_seconds,
                    ..DeleteParams::default()
                };
                request.delete(&key.name, &params)
            }
        };
        self.client.request(built.map_err(kube::Error::BuildRequest)?).await
    }
}

/// Errors that say: what was asked for is already so.
fn is_done(verb: &Verb, error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    match verb {
        Verb::Create(_) => {
            status.reason == "AlreadyExists" || causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
        }
        Verb::Delete(_) | Verb::Replace { .. } | Verb::Patch { .. } => status.code == 404,
    }
}

/// What the cache of the kind must show.
fn mark(action: &Action, written: &PartialObjectMeta) -> Option<(String, Mark)> {
    let kind = action.target.resource.kind.clone();
    if let Verb::Delete(Deletion { uid, .. }) = &action.verb {
        let key = Key::clone(&action.target.key);
        return uid.clone().map(|uid| (kind, Mark::Leaving { key, uid }));
    }
    let revision = written.metadata.resource_version.as_deref()?.parse().ok()?;
    Some((kind, Mark::Revision(revision)))
}
