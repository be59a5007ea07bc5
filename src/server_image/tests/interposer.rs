//! The interposer as a library: what it exports, and that it does nothing where there is no tape.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};
use std::process::Command;

const IMAGE: &str = env!("BROLGA_INTERPOSER_IMAGE");

/// The functions that must not reach libc or the kernel unseen. A name missing here is a hole
/// in the replication; one that is here and not exported is one too.
const EXPORTS: &str = "
    socket socketpair bind listen accept accept4 connect shutdown send sendto sendmsg sendmmsg recv
    recvfrom recvmsg recvmmsg __recv_chk __recvfrom_chk __send getsockopt setsockopt getsockname
    getpeername sendfile sendfile64 splice tee vmsplice __connect sockatmark getaddrinfo
    gethostbyname gethostbyname2 gethostbyaddr gethostbyname_r gethostbyname2_r gethostbyaddr_r
    getnameinfo
    read readv write writev __read __write __read_chk close __close closefrom close_range dup dup2
    dup3 fcntl fcntl64 __fcntl ioctl pipe pipe2 eventfd eventfd_read eventfd_write
    open open64 openat openat64 __open __open64 __open_2 __open64_2 __openat_2 __openat64_2
    fopen fopen64 fdopen _IO_fdopen dprintf vdprintf __dprintf_chk __vdprintf_chk
    capget capset getpriority setpriority prlimit prlimit64 sched_setscheduler sched_getscheduler
    sched_setparam sched_getparam sched_rr_get_interval
    shm_open shm_unlink fsync fdatasync sync_file_range msync
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll __poll
    __poll_chk __ppoll_chk select pselect timerfd_create
    pthread_create pthread_join pthread_timedjoin_np pthread_tryjoin_np pthread_clockjoin_np
    pthread_detach pthread_cancel pthread_mutex_destroy pthread_mutex_consistent
    pthread_mutex_consistent_np __pthread_mutex_lock __pthread_mutex_trylock
    __pthread_mutex_unlock __pthread_mutex_destroy __pthread_rwlock_init __pthread_rwlock_destroy
    __pthread_rwlock_rdlock __pthread_rwlock_wrlock __pthread_rwlock_tryrdlock
    __pthread_rwlock_trywrlock __pthread_rwlock_unlock __pthread_once pthread_spin_destroy
    pthread_yield __sched_yield mtx_lock mtx_trylock mtx_timedlock mtx_unlock mtx_destroy cnd_wait
    cnd_timedwait cnd_signal cnd_broadcast cnd_destroy call_once thrd_create thrd_join thrd_detach
    thrd_yield thrd_sleep thrd_exit pthread_exit pthread_setcancelstate pthread_setcanceltype
    pthread_testcancel sched_setscheduler sched_setparam sched_getscheduler sched_getparam
    pthread_setschedparam pthread_setschedprio pthread_getschedparam pthread_getattr_np
    pthread_getcpuclockid clock_getcpuclockid pthread_mutex_lock pthread_mutex_trylock
    pthread_mutex_timedlock
    pthread_mutex_clocklock pthread_mutex_unlock pthread_cond_init pthread_cond_destroy
    pthread_cond_wait pthread_cond_timedwait pthread_cond_clockwait pthread_cond_signal
    pthread_cond_broadcast pthread_rwlock_init pthread_rwlock_destroy pthread_rwlock_rdlock
    pthread_rwlock_wrlock pthread_rwlock_tryrdlock pthread_rwlock_trywrlock
    pthread_rwlock_timedrdlock pthread_rwlock_timedwrlock pthread_rwlock_clockrdlock
    pthread_rwlock_clockwrlock pthread_rwlock_unlock pthread_barrier_init pthread_barrier_wait
    pthread_barrier_destroy pthread_spin_init pthread_spin_lock pthread_spin_trylock
    pthread_spin_unlock pthread_once sem_init sem_destroy sem_wait sem_trywait sem_timedwait
    sem_clockwait sem_post sem_getvalue sem_open sem_close sem_unlink sched_yield syscall
    clock_gettime __clock_gettime clock_getres clock_nanosleep gettimeofday time timespec_get clock
    times getrusage nanosleep usleep sleep getloadavg
    getrandom getentropy arc4random arc4random_buf arc4random_uniform
    execve execv execvp execvpe fexecve execveat execl execlp execle posix_spawn posix_spawnp system
    popen _IO_popen
    fork __fork _Fork vfork __vfork daemon _exit _Exit wait __wait wait3 wait4 waitpid __waitpid waitid
    pidfd_open pidfd_getfd pidfd_send_signal kill getpid getppid gettid
    getpgid __getpgid getpgrp setpgid __setpgid setpgrp getsid setsid tcgetpgrp tcsetpgrp tcgetsid
    gethostname uname sysconf get_nprocs get_nprocs_conf sched_getcpu sched_getaffinity
    sched_setaffinity pthread_getaffinity_np pthread_setaffinity_np sysinfo
    getcwd __getcwd_chk get_current_dir_name realpath __realpath_chk canonicalize_file_name readlink
    stat stat64 lstat lstat64 fstat fstat64 fstatat fstatat64 statx __xstat __xstat64 __lxstat
    __lxstat64 __fxstat __fxstat64 __fxstatat __fxstatat64 utimensat futimens utimes lutimes futimes
    futimesat utime statvfs statvfs64 fstatvfs fstatvfs64 statfs statfs64 fstatfs fstatfs64
    opendir fdopendir readdir readdir64 readdir_r readdir64_r closedir rewinddir telldir seekdir dirfd
    scandir scandir64 scandirat scandirat64
    mkstemp mkstemp64 mkostemp mkostemp64 mkstemps mkstemps64 mkostemps mkostemps64 mkdtemp mktemp
    readlinkat dlsym getifaddrs freeifaddrs if_nametoindex if_indextoname if_nameindex
    if_freenameindex
    sigaction __sigaction signal bsd_signal sysv_signal __sysv_signal siginterrupt sigprocmask
    pthread_sigmask sighold sigrelse sigpending siglongjmp longjmp _longjmp __longjmp_chk killpg
    sigqueue raise gsignal pthread_kill pthread_sigqueue tgkill sigsuspend pause sigwait
    sigtimedwait sigwaitinfo signalfd alarm ualarm setitimer getitimer timer_create timer_settime
    timer_gettime timer_getoverrun timer_delete timerfd_settime timerfd_gettime
    setuid seteuid setreuid setresuid setgid setegid setregid setresgid
";

#[test]
fn every_promised_name_is_exported() {
    // SAFETY: its constructor does nothing where there is no tape, and its names stay local.
    let library = unsafe { Library::open(Some(IMAGE), RTLD_LAZY | RTLD_LOCAL) }.unwrap();
    let base = own_base(&library);
    let missing: Vec<&str> = EXPORTS
        .split_whitespace()
        // SAFETY: the address is only looked at.
        .filter(|name| unsafe {
            let symbol = library.get::<*const ()>(name.as_bytes());
            symbol.is_err() || library_base(symbol.unwrap().into_raw()) != base
        })
        .collect();
    assert!(
        missing.is_empty(),
        "not exported by the interposer: {missing:?}"
    );
}

/// A look-up falls through to libc, which the interposer needs: where a symbol lies tells.
fn own_base(library: &Library) -> usize {
    // SAFETY: the address is only looked at.
    let symbol = unsafe { library.get::<*const ()>(b"dlsym") }.unwrap();
    library_base(symbol.into_raw())
}

fn library_base(address: *mut libc::c_void) -> usize {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: any address may be asked for, and there is room for the answer.
    unsafe { libc::dladdr(address, &raw mut info) };
    info.dli_fbase.addr()
}

#[test]
fn without_a_tape_every_call_passes_through() {
    let program = "import os, threading, time, socket, select\n\
        a, b = socket.socketpair()\n\
        t = threading.Thread(target=lambda: (time.sleep(0.01), a.send(b'x')))\n\
        t.start(); select.select([b], [], []); t.join()\n\
        assert b.recv(1) == b'x' and len(os.urandom(9)) == 9\n\
        pid = os.fork()\n\
        pid or os._exit(3)\n\
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3\n\
        assert abs(time.time() - START) < 100";
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let output = Command::new("/usr/bin/python3")
        .args(["-c", &format!("START = {now}\n{program}")])
        .env("LD_PRELOAD", IMAGE)
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: no python3 (tests/setup.sh installs it)");
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
