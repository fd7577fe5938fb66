//! Kinds of the core group.

mod binding;
mod config_map;
mod endpoints;
pub mod event;
pub mod namespace;
pub mod node;
pub mod pod;
mod pod_template;
pub mod secret;
pub mod service;
mod service_account;
