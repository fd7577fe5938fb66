//! Lease: who holds something, and since when; a node's heartbeat.

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use crate::{
    field::{Errors, Path},
    kind::{self, AGE_COLUMN, Column, Kind, NAME_COLUMN, column},
};

impl Kind for Lease {
    const CREATE_ON_UPDATE: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    /// Coordinated leader election is off, as upstream's default.
    fn prepare_for_create(&mut self) {
        let spec = self.spec.get_or_insert_default();
        (spec.strategy, spec.preferred_holder) = (None, None);
    }

    fn prepare_for_update(&mut self, _old: &Self) {
        self.prepare_for_create();
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
            errors.invalid(&path.child("leaseTransitions"), count, "must be greater than or equal to 0");
        }
    }

    fn columns() -> Vec<Column> {
        vec![NAME_COLUMN, column("Holder", "Who holds the lease."), AGE_COLUMN]
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Value> {
        let holder = self.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        vec![self.metadata.name.clone().into(), holder.into(), kind::age(&self.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check_new, check_row};

    #[test]
    fn durations() {
        check_new::<Lease>(
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            expect![[r#"
                spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
                spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"#]],
        );
        check_row::<Lease>(
            json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "n1"}}),
            expect!["a | n1 | <unknown>"],
        );
    }
}
