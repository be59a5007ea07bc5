//! Ordered operations: their numbers in the schedule hash, and their names for people.

/// Defines a constant for each operation, and [`name`].
macro_rules! operations {
    ($($constant:ident = $number:literal $name:literal,)*) => {
        $(
            #[doc = $name]
            pub const $constant: u16 = $number;
        )*

        /// The name of an operation; `None` for a number that this version does not know.
        #[must_use]
        pub const fn name(operation: u16) -> Option<&'static str> {
            match operation {
                $($number => Some($name),)*
                _ => None,
            }
        }
    };
}

operations! {
    SOCKET = 1 "socket",
    BIND = 2 "bind",
    LISTEN = 3 "listen",
    ACCEPT = 4 "accept",
    READ = 5 "read",
    WRITE = 6 "write",
    SHUTDOWN = 7 "shutdown",
    CLOSE = 8 "close",
    DUP = 9 "dup",
    OPTION = 10 "socket option",
    EPOLL = 11 "epoll_ctl",
    EPOLL_WAIT = 12 "epoll_wait",
    POLL = 13 "poll",
    CREATE = 14 "thread creation",
    EXIT = 15 "exit",
    JOIN = 16 "join",
    LOCK = 17 "lock",
    UNLOCK = 18 "unlock",
    WAIT = 19 "wait",
    SIGNAL = 20 "signal of a condition",
    FUTEX = 21 "futex",
    CLOCK = 22 "clock reading",
    SLEEP = 23 "sleep",
    RANDOM = 24 "random bytes",
    FORK = 25 "fork",
    REAP = 26 "wait for a child",
    KILL = 27 "kill",
    YIELD = 28 "yield",
    FILE = 29 "file",
    PIPE = 30 "pipe",
    SIGACTION = 31 "sigaction",
    SIGMASK = 32 "signal mask",
    SIGWAIT = 33 "sigwait",
    TIMER = 34 "timer",
    BARRIER = 36 "barrier",
    GROUP = 40 "process group",
    CONNECT = 50 "connect",
    SYSTEM_V = 51 "System V IPC",
    FILE_LOCK = 52 "file lock",
    SOFT_BARRIER = 60 "soft barrier",
    SECTION = 61 "performance-critical section",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_names() {
        assert_eq!(name(READ), Some("read"));
        assert_eq!(name(0), None);
    }
}
