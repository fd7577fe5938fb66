//! Kinds of policy.

mod pod_disruption_budget;
