//! Traces of a process tree's operations and output, written to files in its working directory, to
//! compare replicas by hand. Only with the feature `trace`; slow.

use crate::sys::{self, sys};
use brolga_dmt::Scheduler;
use brolga_tape::handover::WORK_DIRECTORY_FD;
use core::ffi::CStr;

const LINE_BYTES: usize = 4096;

struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; LINE_BYTES],
            len: 0,
        }
    }

    fn push(&mut self, byte: u8) {
        if self.len < LINE_BYTES {
            self.bytes[self.len] = byte;
            self.len += 1;
        }
    }

    fn number(&mut self, number: u64) {
        for digit in sys::Decimal::new(number).bytes() {
            self.push(*digit);
        }
        self.push(b' ');
    }

    /// Printable characters as they are, others as two hexadecimal digits after a backslash.
    fn text(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for byte in bytes.iter().copied() {
            if byte.is_ascii_graphic() && byte != b'\\' {
                self.push(byte);
            } else {
                self.push(b'\\');
                self.push(DIGITS[usize::from(byte >> 4)]);
                self.push(DIGITS[usize::from(byte & 15)]);
            }
        }
    }

    fn append_to(&mut self, file: &CStr) {
        self.len = self.len.min(LINE_BYTES - 1);
        self.push(b'\n');
        let flags = libc::O_CREAT | libc::O_APPEND | libc::O_WRONLY;
        // SAFETY: a NUL-terminated path, then a valid slice.
        unsafe {
            let fd = sys!(
                sys::SYS_openat,
                WORK_DIRECTORY_FD,
                file.as_ptr(),
                flags,
                0o600
            );
            sys!(sys::SYS_write, fd, self.bytes.as_ptr(), self.len);
            sys!(sys::SYS_close, fd);
        }
    }
}

/// `schedule.trace`: slot, clock, thread, operation, hash, time.
pub fn operation(scheduler: &Scheduler, operation: u16) {
    let mut line = Line::new();
    line.number(scheduler.slot());
    line.number(scheduler.clock());
    line.number(u64::from(scheduler.current()));
    line.number(u64::from(operation));
    line.number(scheduler.schedule_hash());
    line.number(scheduler.now_ns());
    line.append_to(c"schedule.trace");
}

/// `output.trace`: slot, clock, thread, bytes (the first few thousand).
pub fn output(scheduler: &Scheduler, bytes: &[u8]) {
    let mut line = Line::new();
    line.number(scheduler.slot());
    line.number(scheduler.clock());
    line.number(u64::from(scheduler.current()));
    line.text(bytes);
    line.append_to(c"output.trace");
}
