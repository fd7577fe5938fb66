//! Who owns which field: the bridge to `api::apply`.

use api::{
    Object, Status,
    apply::{self, FieldSet, Writer, ignore_timestamps, reset_fields},
    patch::PatchType,
};

use super::decode::schema_of;
use crate::{Server, call::Call};

/// Calls `act` with who makes the request.
fn with_writer<T>(server: &Server, call: &Call, act: impl FnOnce(&Writer<'_>) -> T) -> T {
    let descriptor = call.descriptor();
    let (manager, api_version) = (call.manager(), descriptor.api_version());
    let reset: FieldSet = reset_fields(descriptor, &call.info.subresource);
    act(&Writer {
        manager: &manager,
        api_version: &api_version,
        kind: &descriptor.kind,
        subresource: &call.info.subresource,
        now: server.clock.now(),
        schema: schema_of(call),
        reset: &reset,
    })
}

fn is_apply(call: &Call) -> bool {
    call.info.verb == "patch" && PatchType::from_content_type(call.content_type()) == Some(PatchType::Apply)
}

/// Server-side apply: `config` laid over what there is.
pub(super) fn applied(server: &Server, call: &Call, config: &Object, live: Option<&Object>) -> Result<Object, Status> {
    with_writer(server, call, |writer| apply::apply(live, config, writer, call.options.force == Some(true)))
}

/// Records who set the fields of an object that is created (`old` is `None`) or changed. What was applied has
/// its record already.
pub(super) fn tracked(server: &Server, call: &Call, mut object: Object, old: Option<&Object>) -> Object {
    if !is_apply(call) {
        with_writer(server, call, |writer| apply::track_update(old, &mut object, writer));
    }
    object
}

/// Whether there is nothing to write: equal but for the times in managedFields.
pub(super) fn is_same(object: &Object, old: &Object) -> bool {
    object == old || ignore_timestamps(old, object.clone()) == *old
}
