//! Ancillary data of messages on UNIX sockets: descriptors (`SCM_RIGHTS`) and credentials.
//!
//! The kernel carries the descriptors. The objects that they name travel in a *manifest*, a memory
//! file that is passed as one more descriptor, so that the receiver's descriptors name the same
//! objects; the server never sees the manifest. While a message is in flight, it holds a reference
//! to each object. If the kernel drops an unread message, the references are not released: the
//! objects outlive it.

use super::unix::{KernelAddress, Shown};
use crate::hooks::fd::close::close_;
use crate::hooks::fd::real::on_stream;
use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::Turn;
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use libc::{cmsghdr, msghdr};

/// Control bytes that are looked at: the most descriptors that a message takes, and more.
const CONTROL_BYTES: usize = 2048;
/// As many as Linux lets through at once, the manifest included.
const FDS_MAX: usize = 253;
/// `"BROLGAFD"`, the first word of a manifest. A word for each descriptor follows.
const MAGIC: u64 = u64::from_le_bytes(*b"BROLGAFD");
const HEADER_BYTES: usize = size_of::<cmsghdr>();

/// Control messages, aligned as the kernel wants them.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL_BYTES],
    len: usize,
}

impl Control {
    const EMPTY: Self = Self {
        bytes: [0; CONTROL_BYTES],
        len: 0,
    };

    /// Appends a message. False: there is no room.
    fn push(&mut self, level: c_int, kind: c_int, payload: &[&[u8]]) -> bool {
        let len = HEADER_BYTES + payload.iter().map(|piece| piece.len()).sum::<usize>();
        let end = self.len + len.next_multiple_of(8);
        if end > CONTROL_BYTES {
            return false;
        }
        let header = &mut self.bytes[self.len..end];
        header.fill(0);
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset_of!(cmsghdr, cmsg_len), &len.to_ne_bytes());
        put(offset_of!(cmsghdr, cmsg_level), &level.to_ne_bytes());
        put(offset_of!(cmsghdr, cmsg_type), &kind.to_ne_bytes());
        let mut at = HEADER_BYTES;
        for piece in payload {
            put(at, piece);
            at += piece.len();
        }
        self.len = end;
        true
    }
}

/// The control messages in some bytes.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (c_int, c_int, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let int = |at: usize| -> Option<c_int> {
            let bytes = self.0.get(at..at + 4)?;
            Some(c_int::from_ne_bytes(bytes.try_into().ok()?))
        };
        let len = self.0.get(..8)?.try_into().ok()?;
        let len = usize::from_ne_bytes(len);
        let level = int(offset_of!(cmsghdr, cmsg_level))?;
        let kind = int(offset_of!(cmsghdr, cmsg_type))?;
        let payload = self.0.get(HEADER_BYTES..len)?;
        self.0 = self.0.get(len.next_multiple_of(8)..).unwrap_or_default();
        Some((level, kind, payload))
    }
}

fn fds_in(payload: &[u8]) -> impl Iterator<Item = c_int> + '_ {
    let fds = payload.chunks_exact(size_of::<c_int>());
    fds.filter_map(|bytes| Some(c_int::from_ne_bytes(bytes.try_into().ok()?)))
}

// ---- manifests ----

/// The objects that the descriptors of one message name.
struct Manifest {
    words: [u32; FDS_MAX],
    count: usize,
}

impl Manifest {
    const EMPTY: Self = Self {
        words: [0; FDS_MAX],
        count: 0,
    };

    fn words(&self) -> &[u32] {
        &self.words[..self.count]
    }

    /// Takes a reference to all that `fds` name. False: there are too many.
    fn take(&mut self, turn: &mut Turn, fds: &[u8]) -> bool {
        let process = turn.process();
        for fd in fds_in(fds) {
            if self.count + 1 == FDS_MAX {
                return false;
            }
            self.words[self.count] = turn.shared().net.send_object(process, fd);
            self.count += 1;
        }
        true
    }

    /// Gives the references back.
    fn drop(&self, turn: &mut Turn) {
        for word in self.words() {
            let (net, mut outside) = turn.net();
            net.drop_sent(*word, &mut outside);
        }
    }

    /// Writes it to a new file.
    fn file(&self) -> isize {
        let magic = MAGIC;
        // SAFETY: a NUL-terminated name, then pointers and lengths of our own.
        unsafe {
            let fd = sys!(
                sys::SYS_memfd_create,
                c"brolga-manifest".as_ptr(),
                libc::MFD_CLOEXEC
            );
            if fd >= 0 {
                sys!(sys::SYS_write, fd, &raw const magic, 8);
                sys!(sys::SYS_write, fd, self.words.as_ptr(), 4 * self.count);
            }
            fd
        }
    }

    /// Reads one for `count` descriptors. `None`: it is another kind of file.
    fn read(fd: c_int, count: usize) -> Option<Self> {
        let mut manifest = Self {
            count,
            ..Self::EMPTY
        };
        let mut magic = 0u64;
        // SAFETY: our own memory, as long as said.
        unsafe {
            let got = sys!(sys::SYS_pread64, fd, &raw mut magic, 8, 0);
            if count > FDS_MAX || got != 8 || magic != MAGIC {
                return None;
            }
            let to = manifest.words.as_mut_ptr();
            let got = sys!(sys::SYS_pread64, fd, to, 4 * count, 8);
            (got == 4 * count as isize).then_some(manifest)
        }
    }
}

// ---- sending ----

/// # Safety
/// `message` is valid.
unsafe fn control_of<'a>(message: &msghdr) -> &'a [u8] {
    if message.msg_control.is_null() {
        return &[];
    }
    // SAFETY: the caller promises as many bytes as the message says.
    unsafe { core::slice::from_raw_parts(message.msg_control.cast(), message.msg_controllen) }
}

/// Credentials with the number that the kernel knows a process by, or the one that the server does.
fn translated(
    payload: &[u8],
    translate: impl FnOnce(i32) -> i32,
) -> [u8; size_of::<libc::ucred>()] {
    let mut bytes = [0; size_of::<libc::ucred>()];
    let len = payload.len().min(bytes.len());
    bytes[..len].copy_from_slice(&payload[..len]);
    let mut pid = [0; 4];
    pid.copy_from_slice(&bytes[..4]);
    bytes[..4].copy_from_slice(&translate(i32::from_ne_bytes(pid)).to_ne_bytes());
    bytes
}

/// `sendmsg` on a real socket of the tree.
///
/// # Safety
/// `message` is valid.
pub(crate) unsafe fn send(
    turn: &mut Turn,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> isize {
    let send = |turn: &mut Turn, message: *const msghdr| {
        on_stream(turn, fd, libc::POLLOUT, || {
            // SAFETY: the caller's message, or one made from it.
            unsafe { sys!(sys::SYS_sendmsg, fd, message, flags) }
        })
    };
    // SAFETY: the caller promises that `message` is valid.
    let mut ours = unsafe { *message };
    // SAFETY: the same.
    let named = unsafe { KernelAddress::of(turn, ours.msg_name, ours.msg_namelen) };
    if let Some(to) = &named {
        ours.msg_name = to.as_ptr().cast_mut();
        ours.msg_namelen = to.len();
    }
    // SAFETY: the same.
    let asked = unsafe { control_of(&ours) };
    if asked.is_empty() {
        return send(turn, &raw const ours);
    }
    let (mut control, mut manifest) = (Control::EMPTY, Manifest::EMPTY);
    let mut fits = true;
    let mut fds: &[u8] = &[];
    for (level, kind, payload) in Messages(asked) {
        fits &= match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                fds = payload;
                manifest.take(turn, payload)
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                let payload = translated(payload, |pid| turn.shared().real_pid(pid));
                control.push(level, kind, &[&payload])
            }
            _ => control.push(level, kind, &[payload]),
        };
    }
    let file = if fds.is_empty() { -1 } else { manifest.file() };
    if file >= 0 {
        let last = (file as c_int).to_ne_bytes();
        fits &= control.push(libc::SOL_SOCKET, libc::SCM_RIGHTS, &[fds, &last]);
    }
    ours.msg_control = control.bytes.as_mut_ptr().cast();
    ours.msg_controllen = control.len;
    let sent = match fits {
        true if fds.is_empty() || file >= 0 => send(turn, &raw const ours),
        true => file,
        false => error(libc::EINVAL),
    };
    if file >= 0 {
        // SAFETY: our own descriptor.
        unsafe { sys!(sys::SYS_close, file) };
    }
    if sent < 0 {
        manifest.drop(turn);
    }
    sent
}

// ---- receiving ----

/// The caller's room for control messages.
struct Room {
    to: *mut u8,
    left: usize,
    used: usize,
    cut: bool,
}

impl Room {
    fn of(message: &msghdr) -> Self {
        Self {
            to: message.msg_control.cast(),
            left: if message.msg_control.is_null() {
                0
            } else {
                message.msg_controllen
            },
            used: 0,
            cut: false,
        }
    }

    /// Writes a message as the kernel does: as much as there is room for.
    fn put(&mut self, level: c_int, kind: c_int, payload: &[u8]) {
        if self.left < HEADER_BYTES {
            self.cut = true;
            return;
        }
        let len = (HEADER_BYTES + payload.len()).min(self.left);
        self.cut |= len < HEADER_BYTES + payload.len();
        let mut control = Control::EMPTY;
        if !control.push(level, kind, &[&payload[..len - HEADER_BYTES]]) {
            self.cut = true;
            return;
        }
        let space = control.len.min(self.left);
        // SAFETY: the caller of `receive` promises this much room.
        unsafe {
            self.to
                .add(self.used)
                .copy_from_nonoverlapping(control.bytes.as_ptr(), len);
        }
        self.used += space;
        self.left -= space;
    }
}

/// Names descriptors that have come, and hands on as many as there is room for.
fn take_fds(turn: &mut Turn, payload: &[u8], room: &mut Room, peek: bool) {
    let count = payload.len() / size_of::<c_int>();
    let last = fds_in(payload).last().unwrap_or(-1);
    let manifest = Manifest::read(last, count.saturating_sub(1));
    let count = match &manifest {
        Some(manifest) => {
            // SAFETY: our own descriptor.
            unsafe { sys!(sys::SYS_close, last) };
            manifest.count
        }
        None => count,
    };
    let process = turn.process();
    let fitting = room.left.saturating_sub(HEADER_BYTES) / size_of::<c_int>();
    for (at, fd) in fds_in(payload).take(count).enumerate() {
        let word = manifest.as_ref().map_or(0, |manifest| manifest.words[at]);
        let named = turn.shared().net.name_sent(process, fd, word);
        if !peek {
            let (net, mut outside) = turn.net();
            net.drop_sent(word, &mut outside);
        }
        if at >= fitting || !named {
            room.cut = true;
            close_(fd);
        }
    }
    let kept = count.min(fitting) * size_of::<c_int>();
    if kept > 0 {
        room.put(libc::SOL_SOCKET, libc::SCM_RIGHTS, &payload[..kept]);
    }
}

/// Hands on the control messages that have come, as far as there is room.
fn take_controls(turn: &mut Turn, came: &[u8], room: &mut Room, peek: bool) {
    for (level, kind, payload) in Messages(came) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => take_fds(turn, payload, room, peek),
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                let payload = translated(payload, |pid| turn.shared().virtual_pid(pid));
                room.put(level, kind, &payload);
            }
            _ => room.put(level, kind, payload),
        }
    }
}

/// `recvmsg` on a real socket of the tree.
///
/// # Safety
/// `message` is valid.
pub(crate) unsafe fn receive(
    turn: &mut Turn,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> isize {
    // SAFETY: the caller promises a valid message.
    let mut ours = unsafe { *message };
    let mut room = Room::of(&ours);
    let mut control = Control::EMPTY;
    ours.msg_control = control.bytes.as_mut_ptr().cast::<c_void>();
    ours.msg_controllen = CONTROL_BYTES;
    let mut shown = Shown::new(ours.msg_name, ours.msg_namelen);
    let to = &raw mut ours;
    let mut call = || {
        let (name, name_len) = shown.place();
        // SAFETY: the caller's message with other control bytes and another place for the name; the
        // kernel writes what it came with.
        unsafe {
            (*to).msg_name = name;
            (*to).msg_namelen = name_len.as_ref().copied().unwrap_or(0);
            (*to).msg_controllen = CONTROL_BYTES;
            sys!(sys::SYS_recvmsg, fd, to, flags)
        }
    };
    let got = if flags & libc::MSG_DONTWAIT == 0 {
        on_stream(turn, fd, libc::POLLIN, call)
    } else {
        let got = call();
        if got >= 0 {
            turn.real_changed();
        }
        got
    };
    if got < 0 {
        return got;
    }
    let came = &control.bytes[..ours.msg_controllen.min(CONTROL_BYTES)];
    take_controls(turn, came, &mut room, flags & libc::MSG_PEEK != 0);
    // SAFETY: the caller promises a valid message.
    unsafe {
        if !(*message).msg_name.is_null() {
            shown.written(ours.msg_namelen);
            (*message).msg_namelen = shown.give(turn);
        }
        (*message).msg_controllen = room.used;
        (*message).msg_flags = ours.msg_flags;
        if room.cut {
            (*message).msg_flags |= libc::MSG_CTRUNC;
        }
    }
    got
}
