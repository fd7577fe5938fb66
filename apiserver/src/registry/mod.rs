//! The verbs, once for all kinds. Each file is one verb and reads as its script.

mod commit;
mod create;
mod decode;
mod delete;
mod deletion;
mod get;
mod list;
mod managed;
mod meta;
mod patch;
mod scale;
mod selection;
mod token;
mod update;
mod watch;

use std::sync::Arc;

use api::Status;

pub(crate) use self::decode::{any as any_body, value as body_value};
pub use self::{
    commit::Written,
    selection::Selection,
    update::{Change, Part},
};
use crate::{Server, call::Call, respond::Answer};

impl Server {
    /// Carries out a request for a resource, or for one of the subresources that every kind can have.
    pub(crate) async fn act(self: &Arc<Self>, call: &Call) -> Result<Answer, Status> {
        let descriptor = call.descriptor();
        match (call.info.subresource.as_str(), call.info.verb.as_str()) {
            ("", verb) if !descriptor.verbs.iter().any(|known| known == verb) => Err(Status::method_not_allowed()),
            ("", "get") => self.get(call).await,
            ("", "list") => self.list(call).await,
            ("", "watch") => self.watch(call).await,
            ("", "create") if call.name().is_empty() => self.create(call).await,
            ("", "update") => self.update(call, Part::Object).await,
            ("", "patch") => self.patch(call, Part::Object).await,
            ("", "delete") => self.delete(call).await,
            ("", "deletecollection") => self.delete_collection(call).await,
            ("scale", verb) if descriptor.has_subresource("scale") => self.scale(call, verb).await,
            (name, verb) if descriptor.has_subresource(name) => {
                let Some(part) = Part::of_subresource(name) else { return Err(Status::no_such_path()) };
                match verb {
                    "get" => self.get(call).await,
                    "update" => self.update(call, part).await,
                    "patch" => self.patch(call, part).await,
                    _ => Err(Status::method_not_allowed()),
                }
            }
            ("", _) => Err(Status::method_not_allowed()),
            _ => Err(Status::no_such_path()),
        }
    }
}
