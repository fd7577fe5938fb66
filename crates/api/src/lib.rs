//! What Kubernetes objects mean.
//!
//! **Knows:** kinds (names, defaults, validation, columns), schemas, selectors, quantities, the patch
//! types, managed fields, `Status` errors.
//! **Does not know:** HTTP, storage, time of day, randomness, async. Whatever needs the time is given it.
//! **Invariants:** every function is pure; nothing panics on input; a kind is one file under `kinds/`
//! and one line in [`kinds::ALL`]; everything else about it is derived.
//! **Start reading at:** [`Kind`], then any file in `kinds/`.

pub mod apply;
pub mod devices;
pub mod encoding;
pub mod field;
pub mod kind;
pub mod kinds;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strict;
pub mod validation;
pub mod yaml;

pub use field::{Errors, Path};
pub use kind::{AnyKind, Column, Descriptor, Kind, NameRule, Scope};
pub use object::Object;
pub use status::Status;
