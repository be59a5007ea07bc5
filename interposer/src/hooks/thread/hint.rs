//! What programs that know of us may say (`include/brolga.h`): soft barriers and
//! performance-critical sections. In policy `serial`, and outside the schedule, none of it has an
//! effect.

use crate::tls;
use crate::turn::{Turn, fault};
use brolga_dmt::Arrival;
use brolga_tape::operation as op;
use core::ffi::{c_long, c_uint};

/// Proof, where hints have an effect.
fn take(operation: u16) -> Option<Turn> {
    Turn::is_parallel().then(|| Turn::take(operation)).flatten()
}

#[unsafe(no_mangle)]
pub extern "C" fn brolga_soba_init(name: c_long, count: c_uint, timeout_turns: c_uint) {
    if let Some(mut turn) = take(op::SOFT_BARRIER) {
        let process = turn.process();
        let timeout = u64::from(timeout_turns);
        turn.scheduler()
            .make_soft_barrier(process, name, count, timeout);
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn brolga_soba_destroy(name: c_long) {
    if let Some(mut turn) = take(op::SOFT_BARRIER) {
        let process = turn.process();
        turn.scheduler().remove_soft_barrier(process, name);
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn brolga_soba_wait(name: c_long) {
    let Some(mut turn) = take(op::SOFT_BARRIER) else {
        return;
    };
    let process = turn.process();
    let arrival = turn.scheduler().arrive_at_soft_barrier(process, name);
    if let Arrival::Wait(key) = arrival {
        turn.block_regardless(key, None);
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn brolga_pcs_enter() {
    if take(op::SECTION).is_some() && !tls::enter_section() {
        fault(&[b"performance-critical sections are nested too deeply"]);
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn brolga_pcs_exit() {
    if take(op::SECTION).is_some() {
        tls::leave_section();
    }
}
