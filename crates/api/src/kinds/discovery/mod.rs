//! Kinds of discovery.k8s.io.

mod endpoint_slice;
