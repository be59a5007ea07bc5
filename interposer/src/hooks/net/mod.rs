//! Sockets: the BSD socket calls, names of hosts and interfaces.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod datagram;
pub(crate) mod dns;
pub(crate) mod mmsg;
pub(crate) mod netif;
pub(crate) mod published;
pub(crate) mod recv_send;
pub(crate) mod scm_rights;
pub(crate) mod socket;
pub(crate) mod sockopt;
pub(crate) mod unix;
pub(crate) mod waiting;
