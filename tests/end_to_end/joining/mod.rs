//! Nodes that join a running cluster.

mod learner;
mod time_to_join;
