//! Replicas are compared as they go, and the one that differs is found.
//!
//! * `monitor`: drives the comparison, and owns the state of this room;
//! * `agreement`: which replicas agree up to where; `messages`: what nodes tell each other;
//! * `report`: a divergence in words; `quarantine`: a replica that is faulty; `fallback`: the
//!   frontend that serves its clients meanwhile;
//! * `output_commit`: output that is held back until it is confirmed;
//! * `hash_log`: hashes of all slots on disk.

pub(crate) mod agreement;
pub(crate) mod fallback;
pub(crate) mod hash_log;
pub(crate) mod messages;
pub(crate) mod monitor;
pub(crate) mod output_commit;
pub(crate) mod quarantine;
pub(crate) mod report;
