//! The rule for each system call (x86-64 numbers, which never change) that does not come from the
//! interposer.

/// Treatment of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The kernel executes it: the result is the same on every replica, or the server cannot
    /// observe it.
    Free,
    /// The call fails with `ENOSYS`; programs manage without it.
    Refused,
    /// The interposer treats it like libc's function of that name.
    Caught,
    /// The rules do not know it: the server ends.
    Unknown,
}

/// Calls by their first and last number. What is not listed is [`Rule::Unknown`].
const RULES: &[(u32, u32, Rule)] = &[
    (0, 7, Rule::Caught),      // read write open close stat fstat lstat poll
    (8, 12, Rule::Free),       // lseek mmap mprotect munmap brk
    (13, 14, Rule::Caught),    // rt_sigaction rt_sigprocmask
    (15, 15, Rule::Free),      // rt_sigreturn
    (16, 16, Rule::Caught),    // ioctl
    (17, 18, Rule::Free),      // pread64 pwrite64
    (19, 20, Rule::Caught),    // readv writev
    (21, 21, Rule::Free),      // access
    (22, 24, Rule::Caught),    // pipe select sched_yield
    (25, 26, Rule::Free),      // mremap msync
    (27, 27, Rule::Refused),   // mincore: what is in memory is the machine's business
    (28, 28, Rule::Free),      // madvise
    (29, 31, Rule::Caught),    // shmget shmat shmctl
    (32, 57, Rule::Caught),    // dup dup2 pause nanosleep … sockets … clone fork
    (58, 63, Rule::Caught),    // vfork execve exit wait4 kill uname
    (64, 71, Rule::Caught),    // System V semaphores, shared memory, messages
    (72, 73, Rule::Caught),    // fcntl flock
    (74, 75, Rule::Caught),    // fsync fdatasync
    (76, 77, Rule::Free),      // truncate ftruncate
    (78, 79, Rule::Caught),    // getdents getcwd
    (80, 84, Rule::Free),      // chdir fchdir rename mkdir rmdir
    (85, 85, Rule::Caught),    // creat
    (86, 88, Rule::Free),      // link unlink symlink
    (89, 89, Rule::Caught),    // readlink
    (90, 95, Rule::Free),      // chmod fchmod chown fchown lchown umask
    (96, 96, Rule::Caught),    // gettimeofday
    (97, 97, Rule::Free),      // getrlimit
    (98, 100, Rule::Caught),   // getrusage sysinfo times
    (101, 101, Rule::Refused), // ptrace
    (102, 102, Rule::Free),    // getuid
    (103, 103, Rule::Refused), // syslog: the kernel's messages
    (104, 108, Rule::Free),    // getgid setuid setgid geteuid getegid
    (109, 112, Rule::Caught),  // setpgid getppid getpgrp setsid
    (113, 120, Rule::Free),    // users and groups
    (121, 121, Rule::Caught),  // getpgid
    (122, 123, Rule::Free),    // setfsuid setfsgid
    (124, 130, Rule::Caught),  // getsid capget capset rt_sigpending … rt_sigsuspend
    (131, 131, Rule::Free),    // sigaltstack
    (132, 132, Rule::Caught),  // utime
    (133, 133, Rule::Free),    // mknod
    (135, 135, Rule::Refused), // personality
    (137, 138, Rule::Caught),  // statfs fstatfs
    (140, 148, Rule::Caught),  // priorities and scheduling policies
    (149, 152, Rule::Free),    // mlock and its kin
    (157, 157, Rule::Caught),  // prctl
    (158, 158, Rule::Free),    // arch_prctl
    (159, 159, Rule::Refused), // adjtimex
    (160, 161, Rule::Free),    // setrlimit chroot
    (162, 162, Rule::Caught),  // sync
    (164, 164, Rule::Refused), // settimeofday
    (186, 186, Rule::Caught),  // gettid
    (187, 199, Rule::Free),    // readahead, extended attributes
    (200, 204, Rule::Caught),  // tkill time futex sched_setaffinity sched_getaffinity
    (206, 210, Rule::Refused), // kernel AIO
    (213, 213, Rule::Caught),  // epoll_create
    (216, 216, Rule::Free),    // remap_file_pages
    (217, 217, Rule::Caught),  // getdents64
    (218, 219, Rule::Free),    // set_tid_address restart_syscall
    (220, 220, Rule::Caught),  // semtimedop
    (221, 221, Rule::Free),    // fadvise64
    (222, 234, Rule::Caught),  // timers, clocks, exit_group, epoll_wait, epoll_ctl, tgkill
    (235, 235, Rule::Caught),  // utimes
    (237, 239, Rule::Free),    // memory policies
    (240, 245, Rule::Refused), // POSIX message queues
    (247, 247, Rule::Caught),  // waitid
    (248, 250, Rule::Refused), // keys
    (251, 255, Rule::Free),    // ioprio_set ioprio_get inotify
    (257, 257, Rule::Caught),  // openat
    (258, 260, Rule::Free),    // mkdirat mknodat fchownat
    (261, 262, Rule::Caught),  // futimesat newfstatat
    (263, 266, Rule::Free),    // unlinkat renameat linkat symlinkat
    (267, 267, Rule::Caught),  // readlinkat
    (268, 269, Rule::Free),    // fchmodat faccessat
    (270, 271, Rule::Caught),  // pselect6 ppoll
    (273, 274, Rule::Free),    // set_robust_list get_robust_list
    (275, 276, Rule::Caught),  // splice tee
    (277, 277, Rule::Free),    // sync_file_range
    (278, 278, Rule::Caught),  // vmsplice
    (280, 284, Rule::Caught),  // utimensat epoll_pwait signalfd timerfd_create eventfd
    (285, 285, Rule::Free),    // fallocate
    (286, 293, Rule::Caught),  // timerfd_settime … pipe2
    (294, 296, Rule::Free),    // inotify_init1 preadv pwritev
    (297, 297, Rule::Caught),  // rt_tgsigqueueinfo
    (298, 298, Rule::Refused), // perf_event_open
    (299, 299, Rule::Caught),  // recvmmsg
    (300, 301, Rule::Refused), // fanotify
    // prlimit64: asked by libc before the interposer is there, see the module's description.
    (302, 304, Rule::Free),
    (305, 305, Rule::Refused), // clock_adjtime
    (306, 307, Rule::Caught),  // syncfs sendmmsg
    (309, 309, Rule::Caught),  // getcpu
    (310, 313, Rule::Refused), // process_vm_readv process_vm_writev kcmp finit_module
    (314, 315, Rule::Refused), // sched_setattr sched_getattr
    (316, 316, Rule::Free),    // renameat2
    (317, 317, Rule::Refused), // seccomp
    (318, 318, Rule::Caught),  // getrandom
    (319, 319, Rule::Free),    // memfd_create
    (321, 321, Rule::Refused), // bpf
    (322, 322, Rule::Caught),  // execveat
    (323, 323, Rule::Refused), // userfaultfd
    (324, 325, Rule::Free),    // membarrier mlock2
    (326, 326, Rule::Free),    // copy_file_range
    (327, 331, Rule::Free),    // preadv2 pwritev2 and memory protection keys
    (332, 332, Rule::Caught),  // statx
    (333, 333, Rule::Refused), // io_pgetevents
    // rseq: threads that libc makes must have what the first one was given before there was a
    // filter.
    (334, 334, Rule::Free),
    (424, 424, Rule::Refused), // pidfd_send_signal
    (425, 427, Rule::Refused), // io_uring
    (428, 433, Rule::Refused), // new mount calls
    (434, 434, Rule::Caught),  // pidfd_open, which the interposer itself uses
    (435, 435, Rule::Refused), // clone3
    (436, 436, Rule::Caught),  // close_range
    (437, 438, Rule::Refused), // openat2 pidfd_getfd
    (439, 439, Rule::Free),    // faccessat2
    (440, 440, Rule::Refused), // process_madvise
    (441, 441, Rule::Caught),  // epoll_pwait2
    (442, 451, Rule::Refused), // mount_setattr … futex_waitv … cachestat
    (452, 452, Rule::Free),    // fchmodat2
    (453, 461, Rule::Refused), // map_shadow_stack futex_wake … lsm_list_modules
    (462, 462, Rule::Free),    // mseal
    (463, 469, Rule::Refused), // setxattrat … file_setattr
];

/// Numbers from here on have no rule.
pub const NUMBERS: u32 = 512;

/// The rule for a call.
#[must_use]
pub const fn rule(number: u32) -> Rule {
    let mut at = 0;
    while at < RULES.len() {
        let (first, last, rule) = RULES[at];
        if first <= number && number <= last {
            return rule;
        }
        at += 1;
    }
    Rule::Unknown
}
