//! Shared memory segments: files in the replica's own directory for temporary files, mapped.

use super::{REMOVE, SET, STAT, caller_of, kernel, objects, permissions, settable, take};
use crate::hooks::result::finish;
use crate::hooks::thread::sync::wrapped;
use crate::sys::{self, Decimal, sys};
use crate::turn::Turn;
use brolga_tape::handover::TEMPORARY_DIRECTORY_FD;
use brolga_vipc::memory::Made;
use brolga_vipc::names::READ;
use core::ffi::{c_int, c_void};

const LOCK: c_int = 11;
const UNLOCK: c_int = 12;
/// Marks in the mode that `IPC_STAT` shows.
const DOOMED: u32 = 0o1000;
const LOCKED: u32 = 0o2000;

const PAGE: usize = 4096;

/// The name of a segment's file, with a NUL at its end.
struct Name([u8; 32]);

impl Name {
    fn new(id: c_int) -> Self {
        const PREFIX: &[u8] = b".segment-";
        let digits = Decimal::new(u64::from(id.cast_unsigned()));
        let mut name = [0; 32];
        name[..PREFIX.len()].copy_from_slice(PREFIX);
        name[PREFIX.len()..][..digits.bytes().len()].copy_from_slice(digits.bytes());
        Self(name)
    }

    fn open(&self, flags: c_int) -> isize {
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // Permissions are looked at by us: users of the tree may differ.
        let (name, mode) = (self.0.as_ptr(), 0o600);
        // SAFETY: a NUL-terminated name.
        unsafe { sys!(sys::SYS_openat, TEMPORARY_DIRECTORY_FD, name, flags, mode) }
    }

    fn remove(&self) {
        // SAFETY: a NUL-terminated name.
        unsafe {
            sys!(
                libc::SYS_unlinkat,
                TEMPORARY_DIRECTORY_FD,
                self.0.as_ptr(),
                0
            )
        };
    }
}

/// Makes the file of a new segment.
fn make(id: c_int, bytes: usize) -> Result<(), c_int> {
    let name = Name::new(id);
    let fd = name.open(libc::O_RDWR | libc::O_CREAT | libc::O_EXCL);
    if fd < 0 {
        return Err(libc::ENOSPC);
    }
    // SAFETY: our own descriptor.
    let sized = unsafe {
        sys!(libc::SYS_fchmod, fd, 0o666);
        let sized = sys!(sys::SYS_ftruncate, fd, bytes);
        sys!(sys::SYS_close, fd);
        sized
    };
    if sized < 0 {
        name.remove();
        return Err(libc::ENOMEM);
    }
    Ok(())
}

fn get(key: libc::key_t, bytes: usize, flags: c_int) -> Result<isize, c_int> {
    let (mut turn, caller) = take().ok_or(libc::EINVAL)?;
    if flags & libc::SHM_HUGETLB != 0 {
        // Whether the machine has any differs.
        return Err(libc::ENOMEM);
    }
    let segments = &mut objects(&mut turn).segments;
    match segments.get(key, bytes, flags, &caller)? {
        Made::Known(id) => Ok(id as isize),
        Made::Fresh(id) => {
            if let Err(errno) = make(id, bytes) {
                let at = segments.find(id)?;
                segments.remove(at, &caller)?;
                return Err(errno);
            }
            Ok(id as isize)
        }
    }
}

/// The address and flags with which a segment is to be mapped.
fn place(address: usize, flags: c_int) -> Result<(usize, c_int), c_int> {
    let remap = flags & libc::SHM_REMAP != 0;
    if address == 0 {
        return if remap { Err(libc::EINVAL) } else { Ok((0, 0)) };
    }
    let rounded = address & !(PAGE - 1);
    if rounded != address && flags & libc::SHM_RND == 0 {
        return Err(libc::EINVAL);
    }
    let fixed = if remap {
        libc::MAP_FIXED
    } else {
        libc::MAP_FIXED_NOREPLACE
    };
    Ok((rounded, fixed))
}

fn map(id: c_int, bytes: usize, at: (usize, c_int), flags: c_int) -> Result<usize, c_int> {
    let read_only = flags & libc::SHM_RDONLY != 0;
    let (access, mut protection) = if read_only {
        (libc::O_RDONLY, libc::PROT_READ)
    } else {
        (libc::O_RDWR, libc::PROT_READ | libc::PROT_WRITE)
    };
    if flags & libc::SHM_EXEC != 0 {
        protection |= libc::PROT_EXEC;
    }
    let fd = Name::new(id).open(access);
    if fd < 0 {
        return Err(libc::ENOMEM);
    }
    let (address, fixed) = at;
    // SAFETY: a mapping where the kernel likes, or where the program has asked for it.
    let mapped = unsafe {
        let flags = libc::MAP_SHARED | fixed;
        let mapped = sys!(sys::SYS_mmap, address, bytes, protection, flags, fd, 0);
        sys!(sys::SYS_close, fd);
        mapped
    };
    match usize::try_from(mapped) {
        Ok(mapped) => Ok(mapped),
        // Something is there already.
        Err(_) if mapped == -(libc::EEXIST as isize) => Err(libc::EINVAL),
        Err(_) => Err(libc::ENOMEM),
    }
}

fn attach(id: c_int, address: usize, flags: c_int) -> Result<isize, c_int> {
    let (mut turn, caller) = take().ok_or(libc::EINVAL)?;
    let segments = &mut objects(&mut turn).segments;
    let at = segments.find(id)?;
    let place = place(address, flags)?;
    segments.check_attach(at, flags & libc::SHM_RDONLY != 0, &caller)?;
    let mapped = map(id, segments.facts(at).bytes, place, flags)?;
    if flags & libc::SHM_REMAP != 0
        && let Ok(replaced) = segments.detach(mapped, &caller)
        && replaced.gone
    {
        Name::new(replaced.id).remove();
    }
    segments.attach(at, mapped, &caller);
    Ok(mapped.cast_signed())
}

fn detach(address: usize) -> Result<isize, c_int> {
    let (mut turn, caller) = take().ok_or(libc::EINVAL)?;
    let released = objects(&mut turn).segments.detach(address, &caller)?;
    // SAFETY: mapped by `map`; the program gives it back.
    unsafe { sys!(libc::SYS_munmap, address, released.bytes) };
    if released.gone {
        Name::new(released.id).remove();
    }
    Ok(0)
}

/// Detaches the segments of a process that has ended.
pub(super) fn process_gone(turn: &mut Turn, process: u16) {
    let caller = caller_of(turn, process);
    let segments = &mut objects(turn).segments;
    segments.process_gone(&caller, |id| Name::new(id).remove());
}

/// # Safety
/// `status` is valid for what the command reads or writes.
unsafe fn control(id: c_int, command: c_int, status: *mut libc::shmid_ds) -> Result<isize, c_int> {
    let (mut turn, caller) = take().ok_or(libc::EINVAL)?;
    let segments = &mut objects(&mut turn).segments;
    let at = segments.find(id)?;
    match command {
        STAT => {
            segments.names().check(at, &caller, READ)?;
            let facts = segments.facts(at);
            let marks = u32::from(facts.doomed) * DOOMED + u32::from(facts.locked) * LOCKED;
            // SAFETY: integers only.
            let mut filled: libc::shmid_ds = unsafe { core::mem::zeroed() };
            filled.shm_perm = permissions(segments.names().name(at), marks);
            filled.shm_segsz = facts.bytes;
            filled.shm_atime = facts.attached;
            filled.shm_dtime = facts.detached;
            filled.shm_ctime = facts.changed;
            (filled.shm_cpid, filled.shm_lpid) = (facts.maker, facts.last);
            filled.shm_nattch = facts.count as u64;
            // SAFETY: the caller promises that `status` is valid for what the command reads or
            // writes.
            unsafe { status.write(filled) };
        }
        SET => {
            // SAFETY: the caller promises that `status` is valid for what the command reads or
            // writes.
            let to = settable(unsafe { &(*status).shm_perm });
            segments.set(at, to, &caller)?;
        }
        LOCK | UNLOCK => segments.set_locked(at, command == LOCK, &caller)?,
        REMOVE => {
            if segments.remove(at, &caller)? {
                Name::new(id).remove();
            }
        }
        _ => return Err(libc::EINVAL),
    }
    Ok(0)
}

wrapped! {
    fn shmget(key: libc::key_t, bytes: usize, flags: c_int) -> c_int {
        finish(kernel(get(key, bytes, flags))) as c_int
    }

    fn shmat(id: c_int, address: *const c_void, flags: c_int) -> *mut c_void {
        let mapped = finish(kernel(attach(id, address.addr(), flags)));
        core::ptr::with_exposed_provenance_mut(mapped.cast_unsigned())
    }

    fn shmdt(address: *const c_void) -> c_int {
        finish(kernel(detach(address.addr()))) as c_int
    }

    fn shmctl(id: c_int, command: c_int, status: *mut libc::shmid_ds) -> c_int {
        // SAFETY: the caller's promise.
        finish(kernel(unsafe { control(id, command, status) })) as c_int
    }
}
