//! The control plane: configuration, supervision.
