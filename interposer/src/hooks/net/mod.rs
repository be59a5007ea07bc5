//! Sockets: the BSD socket calls, names of hosts and interfaces.
//!
//! * [`socket`] (also `bind`, `listen`, `shutdown`), [`accept`], [`connect`], [`sockopt`] (also
//!   `getsockname`)
//! * [`recv_send`], [`mmsg`]: bytes and messages; [`datagram`]: those of UDP sockets;
//!   [`scm_rights`]: descriptors in messages; [`waiting`]: for a virtual socket
//! * [`unix`]: names of UNIX sockets; [`published`]: those that clients outside of the tree use
//! * [`dns`]: names of hosts; [`netif`]: interfaces

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
