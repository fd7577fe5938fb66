//! HTTP to store: authenticate, authorize, admit, act, answer.
//!
//! **Knows:** the REST protocol of Kubernetes, the registry of kinds, the watch cache, who may do what.
//! **Does not know:** how Pods run or are placed; controllers; any other program of the workspace.
//! **Invariants:** the only program that opens a store; no handler is written for a kind, only for a
//! subresource with behaviour of its own; every request is authenticated and authorized, also in process;
//! GET, LIST and WATCH never decode an object unless the client asked for another form (Table, another
//! version).
//! **Start reading at:** `server`, then `registry`.

pub mod admission;
pub mod auth;
pub mod request;
pub mod subresources;
pub mod view;
