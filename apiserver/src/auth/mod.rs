//! Who are you, may you. No file here writes to the store.
