//! Readiness: `epoll`, `poll` and `select`.

pub(crate) mod epoll;
