//! The `splice` family and `sendfile`: between pipes, files and connections. Bytes of a virtual
//! connection are copied; bytes between real objects are moved by the kernel, but never so that it
//! blocks.

use super::iovec::Vectors;
use super::object::object;
use super::real::{is_nonblocking, is_ready, without_blocking};
use crate::hooks::net::recv_send;
use crate::hooks::net::waiting::wait;
use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::{REAL, Turn};
use brolga_dmt::Wakeup;
use brolga_tape::operation as op;
use brolga_vnet::{Object, ReadOutcome, SocketIx, WaitOn, WriteOutcome};
use core::ffi::{c_int, c_uint, c_void};
use libc::{iovec, off_t};

const PIECE_BYTES: usize = 16 * 1024;

/// The decision after waiting.
enum Patience {
    Again,
    Enough(isize),
}

/// Waits for something real, unless the caller does not want to.
fn await_real(turn: &mut Turn, waits: bool) -> Patience {
    if !waits {
        return Patience::Enough(error(libc::EAGAIN));
    }
    match turn.block(REAL, None) {
        Wakeup::Interrupted => Patience::Enough(error(libc::EINTR)),
        _ => Patience::Again,
    }
}

fn await_socket(turn: &mut Turn, ix: SocketIx, on: WaitOn) -> Patience {
    if turn.shared().net.socket(ix).nonblocking {
        return Patience::Enough(error(libc::EAGAIN));
    }
    match wait(turn, ix, on, None) {
        Wakeup::Interrupted => Patience::Enough(error(libc::EINTR)),
        _ => Patience::Again,
    }
}

/// Runs a call on real objects, again and again until it does not say that it would block.
fn on_real(turn: &mut Turn, ends: [c_int; 2], waits: bool, call: impl Fn() -> isize) -> isize {
    loop {
        let [one, other] = ends;
        let result = without_blocking(one, || without_blocking(other, &call));
        if result != error(libc::EAGAIN) {
            if result > 0 {
                turn.real_changed();
            }
            return result;
        }
        if let Patience::Enough(result) = await_real(turn, waits) {
            return result;
        }
    }
}

/// Returns whether a call on real objects may wait: files never make it.
fn may_wait(turn: &mut Turn, ends: [c_int; 2], flags: c_uint) -> bool {
    let mut refuses = |fd: c_int| object(turn, fd) == Some(Object::Stream) && is_nonblocking(fd);
    flags & libc::SPLICE_F_NONBLOCK == 0 && !ends.into_iter().any(&mut refuses)
}

fn is_pipe(fd: c_int) -> bool {
    // SAFETY: F_GETPIPE_SZ takes no pointer.
    unsafe { sys!(sys::SYS_fcntl, fd, libc::F_GETPIPE_SZ) > 0 }
}

/// Bytes that wait in a pipe.
fn bytes_in(pipe: c_int) -> usize {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD takes an int of ours.
    unsafe { sys!(sys::SYS_ioctl, pipe, libc::FIONREAD, &raw mut count) };
    usize::try_from(count).unwrap_or(0)
}

// ---- connections and pipes ----

/// From a connection to a pipe: what the pipe does not take stays with the connection.
fn to_pipe(turn: &mut Turn, ix: SocketIx, pipe: c_int, len: usize, waits: bool) -> isize {
    let mut piece = [0u8; PIECE_BYTES];
    let mut moved = 0;
    while moved < len {
        let wanted = PIECE_BYTES.min(len - moved);
        let mut at = 0;
        let (net, mut outside) = turn.net();
        let outcome = net.read(ix, wanted, true, &mut outside, |bytes| {
            piece[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        });
        let patience = match outcome {
            ReadOutcome::Bytes(count) => match put_in(pipe, &piece[..count]) {
                put if put == error(libc::EAGAIN) && moved == 0 => await_real(turn, waits),
                put if put <= 0 => Patience::Enough(put),
                put => {
                    let put = put.cast_unsigned();
                    let (net, mut outside) = turn.net();
                    net.read(ix, put, false, &mut outside, |_| {});
                    turn.real_changed();
                    moved += put;
                    Patience::Again
                }
            },
            ReadOutcome::WouldBlock if moved > 0 => break,
            ReadOutcome::WouldBlock => await_socket(turn, ix, WaitOn::Readable(ix)),
            ReadOutcome::End => break,
            ReadOutcome::Failed(errno) => Patience::Enough(error(errno.into())),
            ReadOutcome::NotConnected => Patience::Enough(error(libc::ENOTCONN)),
        };
        if let Patience::Enough(result) = patience {
            return if moved > 0 { moved as isize } else { result };
        }
    }
    moved as isize
}

fn put_in(pipe: c_int, bytes: &[u8]) -> isize {
    without_blocking(pipe, || {
        // SAFETY: pointer and length of a valid slice.
        unsafe { sys!(sys::SYS_write, pipe, bytes.as_ptr(), bytes.len()) }
    })
}

/// From a pipe to a connection: nothing is taken out that the connection has no room for.
fn from_pipe(turn: &mut Turn, pipe: c_int, ix: SocketIx, len: usize, waits: bool) -> isize {
    let mut piece = [0u8; PIECE_BYTES];
    let mut moved = 0;
    while moved < len {
        let there = bytes_in(pipe);
        if there == 0 && (moved > 0 || is_ready(pipe, libc::POLLIN)) {
            break; // As much as wanted, or no writer is left.
        }
        if there == 0 {
            match await_real(turn, waits) {
                Patience::Again => continue,
                Patience::Enough(result) => return result,
            }
        }
        let wanted = there.min(len - moved).min(PIECE_BYTES);
        let patience = match turn.shared().net.write_room(ix, wanted) {
            WriteOutcome::Room(room) => {
                // SAFETY: our own buffer, which is longer.
                let got = unsafe { sys!(sys::SYS_read, pipe, piece.as_mut_ptr(), room) };
                let bytes = &piece[..got.max(0).cast_unsigned()];
                let (net, mut outside) = turn.net();
                net.write(ix, bytes, &mut outside);
                turn.real_changed();
                moved += bytes.len();
                Patience::Again
            }
            WriteOutcome::WouldBlock if moved > 0 => break,
            WriteOutcome::WouldBlock => await_socket(turn, ix, WaitOn::Writable(ix)),
            WriteOutcome::Failed(errno) => Patience::Enough(error(errno.into())),
            WriteOutcome::Broken | WriteOutcome::NotConnected => {
                turn.raise_sigpipe();
                Patience::Enough(error(libc::EPIPE))
            }
        };
        if let Patience::Enough(result) = patience {
            return if moved > 0 { moved as isize } else { result };
        }
    }
    moved as isize
}

/// Moves bytes between a pipe and another descriptor.
///
/// # Safety
/// As `splice`: the offsets are null or valid.
unsafe fn splice_(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    len: usize,
    flags: c_uint,
) -> isize {
    let raw = |flags: c_uint| {
        // SAFETY: the caller's pointers, passed on.
        unsafe { sys!(libc::SYS_splice, from, from_at, to, to_at, len, flags) }
    };
    let Some(mut turn) = Turn::take(op::WRITE) else {
        return raw(flags);
    };
    let asked = flags & libc::SPLICE_F_NONBLOCK == 0;
    let ends = (object(&mut turn, from), object(&mut turn, to));
    let stream = |turn: &mut Turn, end| match end {
        Some(Object::Socket(ix)) if turn.shared().net.is_stream(ix) => Some(ix),
        _ => None,
    };
    match (stream(&mut turn, ends.0), stream(&mut turn, ends.1)) {
        (None, None) => {
            let waits = may_wait(&mut turn, [from, to], flags);
            on_real(&mut turn, [from, to], waits, || {
                raw(flags | libc::SPLICE_F_NONBLOCK)
            })
        }
        (Some(_), _) if !from_at.is_null() => error(libc::ESPIPE),
        (_, Some(_)) if !to_at.is_null() => error(libc::ESPIPE),
        (Some(ix), None) if is_pipe(to) => {
            let waits = asked && !is_nonblocking(to);
            to_pipe(&mut turn, ix, to, len, waits)
        }
        (None, Some(ix)) if is_pipe(from) => {
            let waits = asked && !is_nonblocking(from);
            from_pipe(&mut turn, from, ix, len, waits)
        }
        _ => error(libc::EINVAL),
    }
}

/// Copies bytes from pipe to pipe.
///
/// # Safety
/// Nothing beyond what the hook asks for.
unsafe fn tee_(from: c_int, to: c_int, len: usize, flags: c_uint) -> isize {
    let raw = |flags: c_uint| {
        // SAFETY: plain integers.
        unsafe { sys!(libc::SYS_tee, from, to, len, flags) }
    };
    let Some(mut turn) = Turn::take(op::WRITE) else {
        return raw(flags);
    };
    let waits =
        flags & libc::SPLICE_F_NONBLOCK == 0 && !(is_nonblocking(from) && is_nonblocking(to));
    on_real(&mut turn, [from, to], waits, || {
        raw(flags | libc::SPLICE_F_NONBLOCK)
    })
}

/// Moves memory into a pipe, or a pipe's bytes into memory.
///
/// # Safety
/// As `vmsplice`: `vectors` points to `count` valid vectors.
unsafe fn vmsplice_(pipe: c_int, vectors: *const iovec, count: usize, flags: c_uint) -> isize {
    let raw = |flags: c_uint| {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(libc::SYS_vmsplice, pipe, vectors, count, flags) }
    };
    let Some(mut turn) = Turn::take(op::WRITE) else {
        return raw(flags);
    };
    let waits = may_wait(&mut turn, [pipe, pipe], flags);
    on_real(&mut turn, [pipe, pipe], waits, || {
        raw(flags | libc::SPLICE_F_NONBLOCK)
    })
}

// ---- sendfile ----

/// Like the kernel: as much as the file gives, as much as the connection takes.
///
/// # Safety
/// As `sendfile`: `offset` is null or valid.
unsafe fn sendfile_(to: c_int, from: c_int, offset: *mut off_t, count: usize) -> isize {
    let raw = |count: usize| {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(libc::SYS_sendfile, to, from, offset, count) }
    };
    let Some(mut turn) = Turn::take(op::WRITE) else {
        return raw(count);
    };
    match object(&mut turn, to) {
        // SAFETY: the caller promises that `offset` is null or valid.
        Some(Object::Socket(ix)) if turn.shared().net.is_stream(ix) => unsafe {
            send_to_connection(ix, from, offset, count)
        },
        Some(Object::Stream) => send_to_real(&mut turn, to, count, raw),
        _ => raw(count),
    }
}

/// A blocking descriptor takes all of it, but waits for room in the scheduler.
fn send_to_real(turn: &mut Turn, to: c_int, count: usize, send: impl Fn(usize) -> isize) -> isize {
    let waits = !is_nonblocking(to);
    let mut sent = 0;
    while sent < count {
        let put = on_real(turn, [to, to], waits, || send(count - sent));
        if put <= 0 {
            return if sent > 0 { sent as isize } else { put };
        }
        sent += put.cast_unsigned();
        if !waits {
            break;
        }
    }
    sent as isize
}

/// # Safety
/// `offset` is null or valid.
unsafe fn send_to_connection(ix: SocketIx, from: c_int, offset: *mut off_t, count: usize) -> isize {
    let mut piece = [0u8; PIECE_BYTES];
    // SAFETY: the caller promises null or a valid offset.
    let mut at = unsafe { offset.as_ref().copied() };
    let mut sent = 0;
    while sent < count {
        let want = PIECE_BYTES.min(count - sent);
        let to: *mut c_void = piece.as_mut_ptr().cast();
        // SAFETY: our own buffer.
        let got = unsafe {
            match at {
                Some(at) => sys!(sys::SYS_pread64, from, to, want, at),
                None => sys!(sys::SYS_read, from, to, want),
            }
        };
        if got <= 0 {
            return if sent > 0 { sent as isize } else { got };
        }
        let mut vector = iovec {
            iov_base: to,
            iov_len: got as usize,
        };
        let Some(turn) = Turn::have() else { break };
        // SAFETY: `got` bytes of our own buffer were just filled.
        let put = unsafe { recv_send::transmit(turn, ix, Vectors::one(&mut vector), 0) };
        let taken = put.max(0);
        if at.is_none() && taken < got {
            // SAFETY: plain integers; gives back what the connection did not take.
            unsafe { sys!(sys::SYS_lseek, from, taken - got, libc::SEEK_CUR) };
        }
        at = at.map(|at| at + taken as off_t);
        sent += taken as usize;
        // SAFETY: the caller promises null or a valid offset.
        if let (Some(offset), Some(at)) = (unsafe { offset.as_mut() }, at) {
            *offset = at;
        }
        if put < got {
            return if sent > 0 { sent as isize } else { put };
        }
    }
    sent as isize
}

hooks! {
    splice(from: c_int, from_at: *mut off_t, to: c_int, to_at: *mut off_t, len: usize, flags: c_uint)
        = splice_(from, from_at, to, to_at, len, flags);
    tee(from: c_int, to: c_int, len: usize, flags: c_uint) = tee_(from, to, len, flags);
    vmsplice(pipe: c_int, vectors: *const iovec, count: usize, flags: c_uint)
        = vmsplice_(pipe, vectors, count, flags);
    sendfile(to: c_int, from: c_int, offset: *mut off_t, count: usize)
        = sendfile_(to, from, offset, count);
    sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: usize)
        = sendfile_(to, from, offset, count);
}
