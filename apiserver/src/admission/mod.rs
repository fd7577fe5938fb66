//! One file an admission step, one list.
