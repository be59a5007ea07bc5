//! The first steps of a server that was restored from a checkpoint.
//!
//! It wakes up in the middle of its sleep for the next entry, on another tape that begins anew. The
//! kernel has lost some settings (the time stamp counter's, of each thread), and has other numbers
//! for files. The first thread to wake renews the state of the tree; each thread renews its own
//! when it gets the turn.

use crate::output::fault;
use crate::shared::Shared;
use crate::sys::{self, sys};
use crate::tsc::control;
use crate::turn::keys::rekeyed;
use crate::{statx, tls};
use brolga_tape::handover::RENUMBERED_PATH;
use brolga_tape::renumber::{FileWords, Table};
use brolga_tape::ring::Tape;
use brolga_vfile::inodes::FileId;
use brolga_vfile::times::Time;
use core::sync::atomic::Ordering;

/// Goes on from the new tape, once the node has prepared it. The calling thread has the turn.
#[cold]
pub fn come_back(tape: &Tape, shared: &mut Shared) {
    let ready = tape.ready_futex();
    while ready.load(Ordering::Acquire) == 0 {
        sys::futex_wait(ready, 0);
    }
    shared.generation = tape.generation();
    shared.input_cursor = 0;
    // On a machine whose clock is behind that of the one where it was started, what the server
    // changes from now on looks older than the server.
    shared.launched = statx::just_now().min(shared.launched);
    attend(shared);
    renumber(shared);
    shared.sites.tell();
}

/// Renews what the kernel keeps for the calling thread, if it has forgotten that.
#[inline]
pub fn attend(shared: &Shared) {
    if tls::generation() != shared.generation {
        control::arm();
        tls::set_generation(shared.generation);
    }
}

/// Takes over the kernel's new numbers.
fn renumber(shared: &mut Shared) {
    let Some(bytes) = Mapped::open() else {
        fault(&[b"the restored server's files are not listed"])
    };
    let Some(table) = Table::parse(bytes.all()) else {
        fault(&[b"the list of the restored server's files makes no sense"])
    };
    shared
        .inodes
        .renumber(|old, path| new_id(&table, old, path));
    shared.scheduler.rekey(|key| rekeyed(key, &table));
}

/// The present identity of a file. Files that are not listed are the machine's, and on another
/// machine only the path is the same; or it is gone, and then the path may be another's.
fn new_id(table: &Table<'_>, old: &FileId, path: &[u8]) -> FileId {
    if statx::is_identified_by_path(old) {
        return *old;
    }
    if let Some(listed) = table.listed(words(old)) {
        return file_id(listed);
    }
    statx::id_at(path)
        .filter(|found| !table.is_there(words(found)))
        .unwrap_or_else(|| file_id(table.file(words(old))))
}

fn words(id: &FileId) -> FileWords {
    [
        id.device,
        id.inode,
        id.born.seconds.cast_unsigned(),
        id.born.nanoseconds.into(),
    ]
}

fn file_id([device, inode, seconds, nanoseconds]: FileWords) -> FileId {
    FileId {
        device,
        inode,
        born: Time {
            seconds: seconds.cast_signed(),
            nanoseconds: nanoseconds as u32,
        },
    }
}

/// The table's file, in memory.
struct Mapped {
    at: *const u8,
    bytes: usize,
}

impl Mapped {
    fn open() -> Option<Self> {
        let path = RENUMBERED_PATH.as_ptr();
        // SAFETY: a NUL-terminated path.
        let fd = unsafe { sys!(sys::SYS_openat, libc::AT_FDCWD, path, libc::O_CLOEXEC, 0) };
        if fd < 0 {
            return None;
        }
        // SAFETY: our own descriptor; the mapping is at an address of the kernel's choice, and
        // stays as long as the value.
        unsafe {
            let bytes = sys!(sys::SYS_lseek, fd, 0, libc::SEEK_END);
            let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
            let at = sys!(sys::SYS_mmap, 0, bytes, protection, flags, fd, 0);
            sys!(sys::SYS_close, fd);
            let bytes = usize::try_from(bytes).ok()?;
            (at > 0).then_some(Self {
                at: at as *const u8,
                bytes,
            })
        }
    }

    fn all(&self) -> &[u8] {
        // SAFETY: mapped by `open`, and nobody writes to the file once the tape is ready.
        unsafe { core::slice::from_raw_parts(self.at, self.bytes) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and nothing borrows it any more.
        unsafe { sys!(libc::SYS_munmap, self.at, self.bytes) };
    }
}
