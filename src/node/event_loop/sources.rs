//! Sources of events: their poll tokens, and those that belong to no room.

use crate::status::Query;
use brolga_os::timer::Timer;
use mio::{Poll, Token};
use std::sync::mpsc::Receiver;

pub(super) const WAKER: Token = Token(0);
pub(super) const TIMER: Token = Token(1);
pub(super) const DOORBELL: Token = Token(2);
pub(super) const PROCESS: Token = Token(3);
pub(super) const PROXY_LISTENER: Token = Token(4);
/// Tokens of the links between nodes start here.
pub(super) const FIRST_REPLICA_TOKEN: usize = 1 << 10;
/// Tokens of the connections of stand-alone frontends start here.
pub(super) const FIRST_PROXY_TOKEN: usize = 1 << 19;
/// Tokens of the ports that the server can listen on start here, one for each.
pub(super) const FIRST_LISTENER_TOKEN: usize = 1 << 20;
/// Tokens of the ports at which the server can take datagrams start here, one for each and some
/// more.
pub(super) const FIRST_DATAGRAM_TOKEN: usize = FIRST_LISTENER_TOKEN + (1 << 16);
/// Tokens of clients start here and have no end.
pub(super) const FIRST_CLIENT_TOKEN: usize = 1 << 21;

/// The sources of events that belong to no room.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) poll: Poll,
    pub(super) timer: Timer,
    pub(super) queries: Receiver<Query>,
}
