//! The data plane: the loop, the fault policy, transforms, dead letters and metrics.
