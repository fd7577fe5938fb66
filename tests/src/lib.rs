//! The whole cluster in one thread, under a seed and in virtual time, with faults between its parts.
//!
//! **Knows:** how the parts are put together, and what must hold of what they write.
//! **Does not know:** how any part does its work.
//! **Invariants:** no part reaches the API server but through [`faults`]; what is checked is checked past them;
//! nothing waits in real time.
//! **Start reading at:** `tests/simulation.rs`, then [`cluster::Cluster`].

pub mod cluster;
pub mod faults;
pub mod history;
