//! The door to the operating system: what the node needs of it beyond the standard library and mio.
//!
//! * `memory`: shared memory objects and their mappings;
//! * `wakeup`: futexes, event counters, timers;
//! * `process`: ends of children, signals, priority;
//! * `datagram`, `stream`: sockets.

mod datagram;
mod memory;
mod process;
mod stream;
mod wakeup;

pub use datagram::{ReceivedDatagram, receive_datagram, report_local_addresses, send_datagram};
pub use memory::{Mapping, Window, memory_object};
pub use process::{
    allowed_processors, describe_status, kill, kill_and_reap, process_handle, reap, set_nice,
};
pub use stream::{connect_outcome, deliver_urgent_in_line, errno_of, reset_on_close};
pub use wakeup::{
    arm_timer, drain_counter, event_counter, futex_wait, futex_wake, ring_counter, timer,
};

use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// A random number that is not zero.
///
/// # Errors
/// The kernel has no random numbers.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    loop {
        let got = getrandom(&mut bytes, GetRandomFlags::empty())?;
        let number = u64::from_ne_bytes(bytes);
        if got == bytes.len() && number != 0 {
            return Ok(number);
        }
    }
}
