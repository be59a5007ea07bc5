//! Descriptors that only count: eventfd, timerfd, signalfd.
//!
//! They share slots, descriptors and readiness with sockets, so that `poll` and epoll order their
//! events among those of connections, whichever process of the tree makes them happen.

use crate::{Net, SocketIx, State, World, ready};

/// Signal descriptors that a tree may have at a time.
const SIGNAL_FILES_MAX: usize = 1024;
/// An eventfd counts up to here.
const EVENT_MAX: u64 = u64::MAX - 1;

/// The kinds of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum CounterKind {
    /// `eventfd`: what was written and not yet read.
    Event {
        /// A read takes one (`EFD_SEMAPHORE`).
        semaphore: bool,
    },
    /// `timerfd`: expirations since the last read.
    Timer {
        /// The scheduler's alarm that makes it count.
        alarm: u16,
        /// The clock that its times are of.
        clock: i32,
    },
    /// `signalfd`: 1 while a signal of the mask is pending.
    Signals {
        /// The process whose signals it shows.
        process: u16,
        /// Signals, bit `n - 1` for signal `n`.
        mask: u64,
    },
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Counter {
    kind: CounterKind,
    count: u64,
}

impl Counter {
    pub(crate) const NONE: Self = Self {
        kind: CounterKind::Event { semaphore: false },
        count: 0,
    };

    pub(crate) fn readiness(&self) -> u32 {
        let some = if self.count > 0 { ready::IN } else { 0 };
        match self.kind {
            CounterKind::Event { .. } if self.count < EVENT_MAX => some | ready::OUT,
            _ => some,
        }
    }
}

/// All signal descriptors.
#[repr(C)]
pub(crate) struct SignalFiles {
    len: u32,
    files: [SocketIx; SIGNAL_FILES_MAX],
}

impl Net {
    /// A fresh counter, to be named by a descriptor at once. `None`: there are too many.
    pub fn make_counter(&mut self, kind: CounterKind, count: u64) -> Option<SocketIx> {
        let watches = matches!(kind, CounterKind::Signals { .. });
        if watches && self.signal_files.len as usize == SIGNAL_FILES_MAX {
            return None;
        }
        let ix = self.make_socket(false)?;
        let socket = self.socket_mut(ix);
        socket.state = State::Counter;
        socket.counter = Counter { kind, count };
        if watches {
            let at = self.signal_files.len as usize;
            self.signal_files.files[at] = ix;
            self.signal_files.len += 1;
        }
        Some(ix)
    }

    /// The kind of a counter; `None` for a socket.
    #[inline]
    #[must_use]
    pub fn counter_kind(&self, ix: SocketIx) -> Option<CounterKind> {
        let socket = self.socket(ix);
        (socket.state == State::Counter).then_some(socket.counter.kind)
    }

    /// Changes which signals a signal descriptor shows.
    pub fn set_counter_kind(&mut self, ix: SocketIx, kind: CounterKind) {
        self.socket_mut(ix).counter.kind = kind;
    }

    /// Counts. False: it would exceed the maximum, nothing was added.
    pub fn counter_add(&mut self, ix: SocketIx, amount: u64, world: &mut impl World) -> bool {
        let counter = &mut self.socket_mut(ix).counter;
        let Some(sum) = counter.count.checked_add(amount) else {
            return false;
        };
        if sum > EVENT_MAX {
            return false;
        }
        counter.count = sum;
        self.notify(ix, ready::IN, world);
        true
    }

    /// Takes what a read returns: the count, which is reset, or one of it. `None` when it is 0.
    pub fn counter_take(&mut self, ix: SocketIx, world: &mut impl World) -> Option<u64> {
        let counter = &mut self.socket_mut(ix).counter;
        let taken = match counter.kind {
            _ if counter.count == 0 => return None,
            CounterKind::Event { semaphore: true } => 1,
            _ => counter.count,
        };
        counter.count -= taken;
        self.notify(ix, ready::OUT, world);
        Some(taken)
    }

    /// Forgets what was counted (a timer that is set anew).
    pub fn counter_clear(&mut self, ix: SocketIx) {
        self.socket_mut(ix).counter.count = 0;
    }

    /// The pending signals of a process have changed.
    pub fn refresh_signal_files(&mut self, process: u16, pending: u64, world: &mut impl World) {
        for at in 0..self.signal_files.len as usize {
            let ix = self.signal_files.files[at];
            let counter = &mut self.socket_mut(ix).counter;
            let CounterKind::Signals { process: of, mask } = counter.kind else {
                continue;
            };
            if of != process {
                continue;
            }
            let fresh = pending & mask != 0;
            let was = counter.count != 0;
            counter.count = u64::from(fresh);
            if fresh && !was {
                self.notify(ix, ready::IN, world);
            }
        }
    }

    pub(crate) fn close_counter(&mut self, ix: SocketIx, world: &mut impl World) {
        if let CounterKind::Timer { alarm, .. } = self.socket(ix).counter.kind {
            world.alarm_gone(alarm);
        }
        let len = self.signal_files.len as usize;
        let files = &mut self.signal_files.files[..len];
        if let Some(at) = files.iter().position(|file| *file == ix) {
            files[at] = files[len - 1];
            self.signal_files.len -= 1;
        }
    }
}
