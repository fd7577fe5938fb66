//! How every program but the API server sees the cluster.
//!
//! **Knows:** the API over the network or in process, informers, the work queue, the controller harness,
//! the freshness gate, leader election, event recording.
//! **Does not know:** the store; what any controller decides.
//! **Invariants:** a cache is complete before anyone acts on it; one key is never processed twice at once;
//! nobody decides on a cache older than their own last write; destructive requests name the uid they mean.
//! **Start reading at:** [`informer::Informer`], then [`controller::Controller`].

pub mod config;
pub mod controller;
pub mod events;
pub mod freshness;
pub mod informer;
mod key;
pub mod leader;
mod metrics;
pub mod queue;

pub use key::Key;
