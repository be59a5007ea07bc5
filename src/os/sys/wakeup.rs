//! Wake-ups between node and server: futexes in shared memory, event counters, timers.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use rustix::thread::futex;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Wakes all threads, also of other processes, that sleep on a futex in shared memory.
pub fn futex_wake(word: &AtomicU32) {
    // The only error is an address that is not one, which a reference cannot be.
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX.cast_unsigned());
}

/// Sleeps on a futex in shared memory while it is `value`, for `most` at most: the server's part, which
/// tests play. May return early.
pub fn futex_wait(word: &AtomicU32, value: u32, most: Duration) {
    // Another value, a signal or the end of the time are all a reason to look again.
    let _ = futex::wait(word, futex::Flags::empty(), value, Some(&timespec(most)));
}

/// Creates a nonblocking event counter, for the doorbell.
///
/// # Errors
/// No descriptor is left.
pub fn event_counter() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
}

/// Resets an event counter, a timer or a FIFO after it has fired.
pub fn drain_counter(fd: BorrowedFd<'_>) {
    // A counter gives eight bytes whatever there is room for; a FIFO has that much for each time.
    // An empty counter (EAGAIN) is as good as a drained one.
    let _ = read(fd, &mut [0_u8; 4096]);
}

/// Adds one to an event counter: the server's part, which tests play.
pub fn ring_counter(fd: BorrowedFd<'_>) {
    // A counter that is full has not been drained, so it still wakes.
    let _ = write(fd, &1_u64.to_ne_bytes());
}

/// Creates a timer that makes its descriptor readable. `epoll_wait` alone counts in milliseconds, and
/// time bubbles in microseconds.
///
/// # Errors
/// No descriptor is left.
pub fn timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    Ok(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Sets a timer to fire once, `after` from now.
///
/// # Errors
/// The descriptor is not a timer.
pub fn arm_timer(fd: BorrowedFd<'_>, after: Duration) -> io::Result<()> {
    // All zeros would disarm it.
    let after = after.max(Duration::from_nanos(1));
    let once = Itimerspec {
        it_interval: timespec(Duration::ZERO),
        it_value: timespec(after),
    };
    timerfd_settime(fd, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;
    use std::time::Instant;

    #[test]
    fn the_timer_fires_below_a_millisecond() {
        let fd = timer().unwrap();
        let start = Instant::now();
        arm_timer(fd.as_fd(), Duration::from_micros(100)).unwrap();
        let mut wait = [PollFd::new(&fd, PollFlags::IN)];
        assert_eq!(
            poll(&mut wait, Some(&timespec(Duration::from_secs(2)))).unwrap(),
            1
        );
        assert!(start.elapsed() >= Duration::from_micros(100));
        drain_counter(fd.as_fd());
    }

    #[test]
    fn a_counter_is_readable_until_it_is_drained() {
        let fd = event_counter().unwrap();
        let readable = || {
            let mut wait = [PollFd::new(&fd, PollFlags::IN)];
            poll(&mut wait, Some(&timespec(Duration::ZERO))).unwrap() == 1
        };
        assert!(!readable());
        ring_counter(fd.as_fd());
        ring_counter(fd.as_fd());
        assert!(readable());
        drain_counter(fd.as_fd());
        assert!(!readable());
    }
}
