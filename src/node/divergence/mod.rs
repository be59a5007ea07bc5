//! Replicas are compared as they go, and the one that differs is found.
//!
//! * `monitor`: drives the comparison; `agreement`: who agrees with whom; `messages`: what nodes
//!   tell each other;
//! * `report`: a divergence in words; `quarantine`: a replica that is wrong;
//! * `output_commit`: output that is held back until it is confirmed;
//! * `recent_outputs`: hashes of the last slots in memory; `hash_log`: all of them on disk.

pub(crate) mod agreement;
pub(crate) mod hash_log;
pub(crate) mod messages;
pub(crate) mod monitor;
pub(crate) mod output_commit;
pub(crate) mod quarantine;
pub(crate) mod recent_outputs;
pub(crate) mod report;
