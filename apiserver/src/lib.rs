//! HTTP to store: authenticate, authorize, admit, act, answer.
//!
//! **Knows:** the REST protocol of Kubernetes, the registry of kinds, the watch cache, who may do what.
//! **Does not know:** how Pods run or are placed; controllers; any other program of the workspace.
//! **Invariants:** the only program that opens a store; no handler is written for a kind, only for a
//! subresource with behaviour of its own; every request is authenticated and authorized, also in process;
//! GET, LIST and WATCH never decode an object unless the client asked for another form (Table, another
//! version).
//! **Start reading at:** `server`, then `handler`, then `registry`.

pub mod admission;
pub mod allocation;
pub mod auth;
pub mod bootstrap;
pub mod cache;
pub mod call;
mod discovery;
mod handler;
mod health;
pub mod kinds;
mod metrics;
mod negotiate;
mod openapi;
pub mod options;
pub mod pki;
pub mod registry;
pub mod request;
pub mod respond;
pub mod server;
pub mod subresources;
mod table;
mod tls;
pub mod view;
pub mod warnings;

pub use server::{Config, Server};

#[cfg(test)]
mod tests;
