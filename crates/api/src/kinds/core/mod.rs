//! Kinds of the core group.

mod config_map;
