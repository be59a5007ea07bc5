//! The door to the operating system for the node: memory objects, the double mapping of rings,
//! futex and descriptor wake-ups, and the death of a child. Nothing else in the node has `unsafe`.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Turns the usual "-1 and errno" into a `Result`.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Takes over a descriptor that a system call has just returned.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a descriptor it got from the kernel in the same expression, so
    // nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// From now on others of the machine come before the calling thread, as `nice` has it for processes.
///
/// # Errors
/// The kernel does not let us.
pub fn be_nice(by: i32) -> io::Result<()> {
    // SAFETY: plain system call; number 0 is the calling thread, which is what has a priority in Linux.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, by) }).map(drop)
}

/// A zeroed shared memory object of `bytes` bytes.
pub fn memory_object(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    // SAFETY: the name is a valid C string and the kernel copies it.
    let fd = checked(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    let fd = owned(fd);
    let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: plain system call on a descriptor that we own.
    checked(unsafe { libc::ftruncate(fd.as_raw_fd(), bytes) })?;
    Ok(fd)
}

/// One window of an object in a larger mapping.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where in the mapping.
    pub at: usize,
    /// Where in the object.
    pub from: u64,
    /// How long.
    pub bytes: usize,
}

/// An address range with windows of one shared memory object in it; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Reserves `bytes` of address space and maps the windows into it.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize, windows: &[Window]) -> io::Result<Self> {
        let mapping = Self::reserve(bytes)?;
        for window in windows {
            mapping.place(fd, window)?;
        }
        Ok(mapping)
    }

    /// Start of the range.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    fn reserve(bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice disturbs nothing.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            base: base.cast(),
            bytes,
        })
    }

    fn place(&self, fd: BorrowedFd<'_>, window: &Window) -> io::Result<()> {
        assert!(
            window.at + window.bytes <= self.bytes,
            "window outside of its mapping"
        );
        let from = i64::try_from(window.from).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the assertion keeps the fixed mapping inside the range that we have reserved, so
        // it replaces nothing but our own placeholder.
        let placed = unsafe {
            libc::mmap(
                self.base.add(window.at).cast(),
                window.bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                fd.as_raw_fd(),
                from,
            )
        };
        if placed == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `reserve`; whoever borrowed from it is gone by now.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// Wakes everyone who sleeps on a futex in shared memory.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE only uses the address, which is that of a live atomic.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE,
            i32::MAX,
            0,
            0,
            0,
        )
    };
}

/// Sleeps on a futex in shared memory while it is `value`: the server's part, which tests play.
pub fn futex_wait(word: &AtomicU32, value: u32, most: Duration) {
    let timeout = timespec(most);
    // SAFETY: both addresses are live for the duration of the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            &raw const timeout,
            0,
            0,
        )
    };
}

/// A nonblocking event counter, for the doorbell.
pub fn event_counter() -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    Ok(owned(checked(fd)?))
}

/// Resets an event counter, a timer or a FIFO after it has fired.
pub fn drain_counter(fd: BorrowedFd<'_>) {
    // A counter gives eight bytes whatever there is room for; a FIFO has that much for each time.
    let mut count = [0_u8; 4096];
    // SAFETY: the buffer is as long as said. An empty counter (EAGAIN) is as good as a drained one.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// Adds one to an event counter: the server's part, which tests play.
pub fn ring_counter(fd: BorrowedFd<'_>) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the buffer is as long as said.
    unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// A timer that makes its descriptor readable. `epoll_wait` alone counts in milliseconds, and the
/// bubble knobs count in microseconds.
pub fn timer() -> io::Result<OwnedFd> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: plain system call.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
    Ok(owned(checked(fd)?))
}

/// Sets a timer to fire once, `after` from now.
pub fn arm_timer(fd: BorrowedFd<'_>, after: Duration) -> io::Result<()> {
    // All zeros would disarm it.
    let after = after.max(Duration::from_nanos(1));
    let spec = libc::itimerspec {
        it_interval: timespec(Duration::ZERO),
        it_value: timespec(after),
    };
    // SAFETY: the structure is live for the call and the old value is not wanted.
    let set =
        unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) };
    checked(set).map(drop)
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// A descriptor that becomes readable when process `pid` ends.
pub fn process_handle(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(owned(checked(fd)?))
}

/// Collects an ended child; `None` while it still runs.
pub fn reap(pid: i32) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: the status word is live for the call.
    let reaped = checked(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) })?;
    Ok((reaped == pid).then_some(status))
}

/// Kills a child, and its process group where it leads one, and collects it.
pub fn kill_and_reap(pid: i32) {
    assert!(pid > 1, "not the pid of a child: {pid}");
    let mut status = 0;
    // SAFETY: plain system calls; `pid` is a child that was not reaped yet, so it can't have been
    // given to another process.
    unsafe {
        if libc::getpgid(pid) == pid {
            libc::kill(-pid, libc::SIGKILL);
        }
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, &raw mut status, 0);
    }
}

/// Kills a child that was not reaped yet.
pub fn kill(pid: i32) {
    assert!(pid > 1, "not the pid of a child: {pid}");
    // SAFETY: a plain system call; `pid` is a child that was not reaped yet, so it can't have been
    // given to another process.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Says in a few words how a process ended.
pub fn describe_status(status: i32) -> String {
    if libc::WIFSIGNALED(status) {
        format!("killed by signal {}", libc::WTERMSIG(status))
    } else {
        format!("exit status {}", libc::WEXITSTATUS(status))
    }
}

/// A random number that is not zero.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    loop {
        // SAFETY: the buffer is as long as said.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let number = u64::from_ne_bytes(bytes);
        if got == 8 && number != 0 {
            return Ok(number);
        }
    }
}

/// Makes the next close of a TCP socket abortive: the peer sees a reset.
pub fn reset_on_close(stream: &mio::net::TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// A datagram that was read into a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GotDatagram {
    /// Its bytes.
    pub len: usize,
    /// Its sender.
    pub peer: SocketAddr,
    /// The address that it was sent to, if the socket tells.
    pub local: Option<IpAddr>,
}

/// Makes a socket that is bound to any address tell to which one a datagram was sent.
pub fn tell_local_addresses(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    let (level, name) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: libc::c_int = 1;
    let bytes = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is live for the call and as long as said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            bytes,
        )
    };
    checked(set).map(drop)
}

/// Room for one control message with an address, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; 64]);

/// Reads one datagram.
pub fn receive_datagram(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<GotDatagram> {
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all zeros are a message without parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: `try_init` gives room for any address and its length; the kernel fills both in, and
    // the other parts of the message are live for the call.
    let (len, peer) = unsafe {
        socket2::SockAddr::try_init(|storage, storage_len| {
            message.msg_name = storage.cast();
            message.msg_namelen = *storage_len;
            let len = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
            let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
            *storage_len = message.msg_namelen;
            Ok(len)
        })?
    };
    let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok(GotDatagram {
        len,
        peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
        local: local_address(&message),
    })
}

/// The control message that says to which address a datagram was sent.
fn local_address(message: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel has written whole control messages into the buffer that `message` still
    // points to; the payload of each kind is as long as its type, perhaps not aligned.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            match (header.cmsg_level, header.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    let ip = u32::from_be(info.ipi_addr.s_addr);
                    return Some(Ipv4Addr::from(ip).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => at = libc::CMSG_NXTHDR(message, at),
            }
        }
    }
    None
}

/// Sends one datagram, from the address `source` if one is given.
pub fn send_datagram(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    source: Option<IpAddr>,
    peer: SocketAddr,
) -> io::Result<()> {
    let v6 = socket2::SockRef::from(&socket).domain()? == socket2::Domain::IPV6;
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if v6 => ip.to_ipv6_mapped().into(),
        ip => ip,
    };
    let peer = socket2::SockAddr::from(SocketAddr::new(mapped(peer.ip()), peer.port()));
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeros are a message without parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = peer.as_ptr().cast_mut().cast();
    message.msg_namelen = peer.len();
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    if let Some(source) = source {
        put_source(&mut message, &mut control, mapped(source));
    }
    // SAFETY: all parts of the message are live for the call, and the kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    match usize::try_from(sent) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn put_source(message: &mut libc::msghdr, control: &mut Control, source: IpAddr) {
    // SAFETY: all zeros are a value of either type.
    let (mut four, mut six): (libc::in_pktinfo, libc::in6_pktinfo) = unsafe { std::mem::zeroed() };
    let (level, kind, data, len): (_, _, *const u8, _) = match source {
        IpAddr::V4(ip) => {
            four.ipi_spec_dst.s_addr = u32::from(ip).to_be();
            let len = size_of_val(&four);
            (
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                (&raw const four).cast(),
                len,
            )
        }
        IpAddr::V6(ip) => {
            six.ipi6_addr.s6_addr = ip.octets();
            let len = size_of_val(&six);
            (
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                (&raw const six).cast(),
                len,
            )
        }
    };
    // SAFETY: the buffer has 64 bytes, more than CMSG_SPACE of either type, and is aligned for a
    // header; `data` points to `len` live bytes.
    unsafe {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(len as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(len as u32) as usize;
        libc::CMSG_DATA(header).copy_from_nonoverlapping(data, len);
    }
}

/// Bytes that are sent out of band come in line.
pub fn take_urgent_in_line(stream: &mio::net::TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_out_of_band_inline(true)
}

/// What came of connecting `stream`, which the poll has told something about: its own address. `None`
/// while nobody has answered.
pub fn dial_answer(stream: &mio::net::TcpStream) -> Option<io::Result<SocketAddr>> {
    match stream.take_error() {
        Ok(Some(error)) | Err(error) => return Some(Err(error)),
        Ok(None) => {}
    }
    match stream.peer_addr() {
        Ok(_) => Some(stream.local_addr()),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
        Err(error) => Some(Err(error)),
    }
}

/// The number of a system call's error.
pub fn errno_of(error: &io::Error) -> u8 {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    u8::try_from(errno).unwrap_or(libc::EIO as u8)
}

/// The processors that this process may use.
#[must_use]
pub fn allowed_processors() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_window_mapped_twice_shows_the_same_bytes() {
        let fd = memory_object(c"brolga-test", 8192).unwrap();
        let window = |at, from| Window {
            at,
            from,
            bytes: 4096,
        };
        let windows = [window(0, 4096), window(4096, 4096)];
        let mapping = Mapping::new(fd.as_fd(), 8192, &windows).unwrap();
        // SAFETY: both addresses are inside the 8192 mapped bytes.
        unsafe {
            mapping.base().add(5).write(77);
            assert_eq!(mapping.base().add(4096 + 5).read(), 77);
        }
    }

    #[test]
    fn the_timer_fires_below_a_millisecond() {
        let fd = timer().unwrap();
        let start = std::time::Instant::now();
        arm_timer(fd.as_fd(), Duration::from_micros(100)).unwrap();
        let mut wait = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live element.
        assert_eq!(unsafe { libc::poll(&raw mut wait, 1, 2000) }, 1);
        assert!(start.elapsed() >= Duration::from_micros(100));
        drain_counter(fd.as_fd());
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is collected by number")]
    fn the_end_of_a_child_is_told_and_collected() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let handle = process_handle(pid).unwrap();
        let mut wait = libc::pollfd {
            fd: handle.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live element.
        assert_eq!(unsafe { libc::poll(&raw mut wait, 1, 5000) }, 1);
        assert_eq!(reap(pid).unwrap(), Some(0));
        assert_eq!(describe_status(0), "exit status 0");
    }
}
