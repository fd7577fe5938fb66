//! The whole cluster in one process, and the tools of the person who owns it.
//!
//! **Knows:** how the programs are put together: certificates, identities, ports, the order of starting.
//! **Does not know:** any rule of Kubernetes; those are in the programs.
//! **Invariants:** each component acts as its own user, as it would over the network; ending this process
//! stops no container and no traffic (only `skiff down` does).
//! **Start reading at:** `up`, then `cluster`.

pub mod cluster;
pub mod daemon;
pub mod down;
pub mod machine;
pub mod progress;
pub mod up;
