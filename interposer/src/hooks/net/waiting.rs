//! Waiting for a virtual socket to change.

use crate::hooks::result::error;
use crate::turn::{Turn, key_of};
use brolga_dmt::Wakeup;
use brolga_vnet::{SocketIx, WaitOn};

/// Keeps a socket while its thread waits: another thread may close the descriptor meanwhile.
pub(crate) fn wait(turn: &mut Turn, ix: SocketIx, on: WaitOn, deadline_ns: Option<u64>) -> Wakeup {
    turn.shared().net.retain_socket(ix);
    let woken = turn.block(key_of(on), deadline_ns);
    let (net, mut outside) = turn.net();
    net.release_socket(ix, &mut outside);
    woken
}

/// The end of a timeout that begins now; 0 is none.
pub(crate) fn deadline(turn: &mut Turn, timeout_ns: u64) -> Option<u64> {
    (timeout_ns > 0).then(|| turn.now_ns().saturating_add(timeout_ns))
}

/// Waits as a call on a socket does. `Err` is the result of a call that ends here.
pub(crate) fn pause(
    turn: &mut Turn,
    ix: SocketIx,
    on: WaitOn,
    deadline_ns: Option<u64>,
) -> Result<(), isize> {
    match wait(turn, ix, on, deadline_ns) {
        Wakeup::TimedOut => Err(error(libc::EAGAIN)),
        Wakeup::Interrupted => Err(error(libc::EINTR)),
        _ => Ok(()),
    }
}
