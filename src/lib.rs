//! The `brolga` program as a library.
//!
//! Reading order: [`cli`] parses a command line; [`cluster`] is a local cluster on disk and its
//! supervision; [`admin`] is the socket at which a node is asked for its status; [`check`] perturbs a
//! cluster to find out whether its replicas diverge; [`demo`] shows a failure and a recovery. One replica
//! is `brolga_node`, its server `brolga_server_image`.

pub mod admin;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod demo;
