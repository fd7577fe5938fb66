//! etcd's errors in our words.

use etcd_client::Error as EtcdError;

use crate::Error;

/// The store's error for etcd's. The numbers in `Compacted` and `Future` are for the caller to fill in.
pub(super) fn of(error: EtcdError) -> Error {
    let EtcdError::GRpcStatus(status) = &error else {
        return match error {
            EtcdError::InvalidArgs(_) | EtcdError::InvalidUri(_) | EtcdError::EndpointError(_) => {
                Error::Failed(error.to_string())
            }
            other => Error::Unavailable(format!("etcd: {other}")),
        };
    };
    let said = status.message();
    if said.contains("required revision has been compacted") {
        return Error::Compacted { requested: 0, oldest: 0 };
    }
    if said.contains("required revision is a future revision") {
        return Error::Future { requested: 0, current: 0 };
    }
    // Told apart by etcd's sentences and not by gRPC's codes, whose type etcd-client does not hand out.
    let refused =
        ["request is too large", "too many operations", "duplicate key", "permission denied", "authentication"];
    if refused.iter().any(|refusal| said.contains(refusal)) {
        return Error::Failed(format!("etcd refused: {said}"));
    }
    Error::Unavailable(format!("etcd: {}", chain(status)))
}

/// The error and its causes: tonic hides what went wrong with a connection behind "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

/// Whether a key was to hang on a lease that is gone.
pub(super) fn is_lease_gone(error: &EtcdError) -> bool {
    matches!(error, EtcdError::GRpcStatus(status) if status.message().contains("requested lease not found"))
}
