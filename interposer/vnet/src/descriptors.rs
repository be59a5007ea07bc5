//! Which descriptor of which process names what.
//!
//! Descriptors that are not listed are the kernel's alone (files, the interposer's own).

use crate::{EpollIx, Net, SocketIx, World};

/// Descriptors per process that can be virtual.
pub const FDS_MAX: usize = 64 * 1024;
/// Processes of a tree at a time.
pub const PROCESSES_MAX: usize = 256;

/// The object that a descriptor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A virtual socket.
    Socket(SocketIx),
    /// An epoll instance.
    Epoll(EpollIx),
    /// A real object inside the tree that can block: pipe, eventfd, socketpair, UNIX socket …
    Stream,
    /// A random device.
    Random,
}

const SOCKET: u32 = 1 << 28;
const EPOLL: u32 = 2 << 28;
const STREAM: u32 = 3 << 28;
const RANDOM: u32 = 4 << 28;
const KIND: u32 = 0xF << 28;

/// A word for each descriptor; 0 for the kernel's.
#[repr(C)]
pub(crate) struct Descriptors {
    words: [[u32; FDS_MAX]; PROCESSES_MAX],
}

#[inline]
fn meaning(word: u32) -> Option<Object> {
    let ix = word & !KIND;
    match word & KIND {
        SOCKET => Some(Object::Socket(ix)),
        EPOLL => Some(Object::Epoll(ix)),
        STREAM => Some(Object::Stream),
        RANDOM => Some(Object::Random),
        _ => None,
    }
}

fn at(process: u16, fd: i32) -> Option<(usize, usize)> {
    let fd = usize::try_from(fd).ok()?;
    (fd < FDS_MAX).then_some((usize::from(process), fd))
}

impl Net {
    /// The object that a descriptor names; `None` for one that only the kernel knows.
    #[inline]
    #[must_use]
    pub fn object(&self, process: u16, fd: i32) -> Option<Object> {
        let (process, fd) = at(process, fd)?;
        meaning(self.descriptors.words[process][fd])
    }

    /// Names an object by a descriptor; takes a reference. False: the number is out of range.
    #[must_use]
    pub fn set_object(&mut self, process: u16, fd: i32, object: Object) -> bool {
        let Some((row, column)) = at(process, fd) else {
            return false;
        };
        let word = match object {
            Object::Socket(ix) => {
                self.retain_socket(ix);
                SOCKET | ix
            }
            Object::Epoll(ix) => {
                self.retain_epoll(ix);
                EPOLL | ix
            }
            Object::Stream => STREAM,
            Object::Random => RANDOM,
        };
        self.descriptors.words[row][column] = word;
        true
    }

    /// The descriptor was closed.
    pub fn clear_object(&mut self, process: u16, fd: i32, world: &mut impl World) {
        let Some(object) = self.object(process, fd) else {
            return;
        };
        if let Some((row, column)) = at(process, fd) {
            self.descriptors.words[row][column] = 0;
        }
        match object {
            Object::Socket(ix) => self.release_socket(ix, world),
            Object::Epoll(ix) => self.release_epoll(ix),
            Object::Stream | Object::Random => {}
        }
    }

    /// A descriptor is on its way to another process: what it names has one reference more until
    /// [`Net::drop_sent`]. The word stands for it; 0 for the kernel's.
    pub fn send_object(&mut self, process: u16, fd: i32) -> u32 {
        let Some((row, column)) = at(process, fd) else {
            return 0;
        };
        let word = self.descriptors.words[row][column];
        match meaning(word) {
            Some(Object::Socket(ix)) => self.retain_socket(ix),
            Some(Object::Epoll(ix)) => self.retain_epoll(ix),
            _ => {}
        }
        word
    }

    /// Names what a word stands for by a descriptor that has come. False: the number is out of
    /// range.
    #[must_use]
    pub fn name_sent(&mut self, process: u16, fd: i32, word: u32) -> bool {
        meaning(word).is_none_or(|object| self.set_object(process, fd, object))
    }

    /// The descriptor has come, or never will.
    pub fn drop_sent(&mut self, word: u32, world: &mut impl World) {
        match meaning(word) {
            Some(Object::Socket(ix)) => self.release_socket(ix, world),
            Some(Object::Epoll(ix)) => self.release_epoll(ix),
            _ => {}
        }
    }

    /// A fork: the child's descriptors name what the parent's do.
    pub fn copy_descriptors(&mut self, parent: u16, child: u16) {
        for fd in 0..FDS_MAX as i32 {
            if let Some(object) = self.object(parent, fd) {
                let copied = self.set_object(child, fd, object);
                assert!(copied, "the same number is in range for every process");
            }
        }
    }

    /// A process is gone: so are its descriptors.
    pub fn clear_process(&mut self, process: u16, world: &mut impl World) {
        for fd in 0..FDS_MAX as i32 {
            self.clear_object(process, fd, world);
        }
    }
}
