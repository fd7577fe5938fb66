//! One file a subresource that has behaviour of its own.
