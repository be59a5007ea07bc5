//! Handles of threads.

use crate::turn::Turn;
use brolga_dmt::ThreadIx;

/// The thread of this process with a handle.
pub(crate) fn by_handle(turn: &mut Turn, handle: u64) -> Option<ThreadIx> {
    let process = turn.process();
    let shared = turn.shared();
    let (scheduler, threads) = (&shared.scheduler, &shared.threads);
    scheduler.living().find(|ix| {
        scheduler.thread(*ix).process == process && threads[usize::from(*ix) - 1].handle == handle
    })
}
