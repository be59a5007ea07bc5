//! POSIX message queues, which are refused.

use crate::hooks::result::{error, finish};
use crate::hooks::thread::sync::wrapped;
use core::ffi::{c_char, c_int};

wrapped! {
    /// POSIX message queues are the machine's: replicas would meet in them, and waiting for one
    /// would hold up the tree. So there are none, and programs use something else or say so.
    fn mq_open(
        name: *const c_char,
        flags: c_int,
        mode: libc::mode_t,
        attributes: *const libc::mq_attr,
    ) -> c_int {
        let _ = (name, flags, mode, attributes);
        finish(error(libc::ENOSYS)) as c_int
    }
}
