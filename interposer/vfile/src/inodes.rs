//! Inode numbers that the server sees: files are numbered in the order of their first look.
//!
//! A file is identified by the kernel's device and inode numbers and its time of birth, since the
//! kernel uses an inode number again, at moments that differ between replicas. The table is
//! bounded: the file that was not looked at for longest is forgotten first, which is a fact of the
//! logical execution too.
//!
//! The path of each file at the first look is kept as far as there is room: on another machine the
//! kernel has other numbers for the same files, and they are found again by their paths.

/// Most files in the table at a time.
const FILES_MAX: usize = if cfg!(test) { 64 } else { 32 * 1024 };
const BUCKETS: usize = 2 * FILES_MAX;
/// Bytes of all paths, a NUL after each.
const PATHS_BYTES: usize = if cfg!(test) { 256 } else { 2 << 20 };
/// Longer ones are not kept.
const PATH_BYTES_MAX: usize = if cfg!(test) { 32 } else { 512 };

/// The kernel's identity of a file, unique on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FileId {
    /// The kernel's device number.
    pub device: u64,
    /// The kernel's inode number.
    pub inode: u64,
    /// Time of birth as the file system keeps it; 0 if it keeps none.
    pub born: crate::times::Time,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct File {
    id: FileId,
    number: u64,
    /// Next in the same bucket.
    next: u32,
    /// Neighbours by the time of the last look.
    older: u32,
    newer: u32,
    /// Offset of its path in `paths`, and its length without the NUL.
    path: u32,
    path_bytes: u32,
}

/// The table of inode numbers. Indices count from 1; 0 is none.
#[repr(C)]
pub struct InodeNumbers {
    /// Numbers given so far.
    given: u64,
    used: u32,
    oldest: u32,
    newest: u32,
    paths_used: u32,
    buckets: [u32; BUCKETS],
    files: [File; FILES_MAX],
    paths: [u8; PATHS_BYTES],
}

/// The first number: inode numbers below have a meaning to some programs.
const FIRST: u64 = 1000;

fn bucket_of(id: &FileId) -> usize {
    let mixed = (id.inode ^ id.device.rotate_left(40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as usize % BUCKETS
}

impl InodeNumbers {
    /// Returns the number of a file, a new one if the table does not have it. For a new one
    /// `write_path` writes the file's path and returns its length in bytes; 0: the file has no
    /// path.
    pub fn number_of(&mut self, id: &FileId, write_path: impl FnOnce(&mut [u8]) -> usize) -> u64 {
        if let Some(ix) = self.find(id) {
            self.unlink(ix);
            self.link_newest(ix);
            return self.file(ix).number;
        }
        let ix = self.take_slot();
        let bucket = bucket_of(id);
        let number = FIRST + self.given;
        self.given += 1;
        let (path, path_bytes) = self.keep_path(write_path);
        let next = self.buckets[bucket];
        *self.file(ix) = File {
            id: *id,
            number,
            next,
            older: 0,
            newer: 0,
            path,
            path_bytes,
        };
        self.buckets[bucket] = ix;
        self.link_newest(ix);
        number
    }

    fn keep_path(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> (u32, u32) {
        let at = self.paths_used as usize;
        // The last byte is for the NUL.
        let end = (at + PATH_BYTES_MAX).min(PATHS_BYTES - 1);
        let Some(room) = self.paths.get_mut(at..end) else {
            return (0, 0);
        };
        let bytes = write(room);
        if bytes == 0 || bytes > room.len() {
            return (0, 0);
        }
        self.paths[at + bytes] = 0;
        self.paths_used = (at + bytes + 1) as u32;
        (at as u32, bytes as u32)
    }

    /// Replaces the identity of every file by what `new_id` returns for its old one and its path
    /// with the NUL (empty: not kept), after the kernel's numbers have changed. The numbers that
    /// the server sees stay.
    pub fn renumber(&mut self, new_id: impl Fn(&FileId, &[u8]) -> FileId) {
        self.buckets.fill(0);
        for ix in 1..=self.used {
            let file = &self.files[ix as usize - 1];
            let path = match file.path_bytes as usize {
                0 => &[][..],
                bytes => &self.paths[file.path as usize..][..=bytes],
            };
            let id = new_id(&file.id, path);
            let bucket = bucket_of(&id);
            let next = core::mem::replace(&mut self.buckets[bucket], ix);
            let file = self.file(ix);
            (file.id, file.next) = (id, next);
        }
    }

    fn file(&mut self, ix: u32) -> &mut File {
        &mut self.files[ix as usize - 1]
    }

    fn find(&self, id: &FileId) -> Option<u32> {
        let mut ix = self.buckets[bucket_of(id)];
        while ix != 0 {
            let file = &self.files[ix as usize - 1];
            if file.id == *id {
                return Some(ix);
            }
            ix = file.next;
        }
        None
    }

    fn take_slot(&mut self) -> u32 {
        if (self.used as usize) < FILES_MAX {
            self.used += 1;
            return self.used;
        }
        let ix = self.oldest;
        self.unlink(ix);
        self.leave_bucket(ix);
        ix
    }

    fn leave_bucket(&mut self, ix: u32) {
        let (id, next) = (self.file(ix).id, self.file(ix).next);
        let bucket = bucket_of(&id);
        if self.buckets[bucket] == ix {
            self.buckets[bucket] = next;
            return;
        }
        let mut at = self.buckets[bucket];
        while self.file(at).next != ix {
            at = self.file(at).next;
        }
        self.file(at).next = next;
    }

    fn unlink(&mut self, ix: u32) {
        let (older, newer) = (self.file(ix).older, self.file(ix).newer);
        match older {
            0 => self.oldest = newer,
            older => self.file(older).newer = newer,
        }
        match newer {
            0 => self.newest = older,
            newer => self.file(newer).older = older,
        }
    }

    fn link_newest(&mut self, ix: u32) {
        let older = self.newest;
        self.file(ix).older = older;
        self.file(ix).newer = 0;
        match older {
            0 => self.oldest = ix,
            older => self.file(older).newer = ix,
        }
        self.newest = ix;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::Time;
    use std::boxed::Box;

    fn numbers() -> Box<InodeNumbers> {
        let nothing = File {
            id: FileId::default(),
            number: 0,
            next: 0,
            older: 0,
            newer: 0,
            path: 0,
            path_bytes: 0,
        };
        Box::new(InodeNumbers {
            given: 0,
            used: 0,
            oldest: 0,
            newest: 0,
            paths_used: 0,
            buckets: [0; BUCKETS],
            files: [nothing; FILES_MAX],
            paths: [0; PATHS_BYTES],
        })
    }

    fn nowhere(_: &mut [u8]) -> usize {
        0
    }

    fn file(inode: u64) -> FileId {
        FileId {
            device: 5,
            inode,
            born: Time::default(),
        }
    }

    #[test]
    fn files_are_numbered_in_the_order_of_the_first_look() {
        let mut numbers = numbers();
        assert_eq!(numbers.number_of(&file(77), nowhere), FIRST);
        assert_eq!(numbers.number_of(&file(12), nowhere), FIRST + 1);
        assert_eq!(numbers.number_of(&file(77), nowhere), FIRST);
    }

    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let mut numbers = numbers();
        let mut reborn = file(77);
        reborn.born.seconds = 3;
        assert_eq!(numbers.number_of(&file(77), nowhere), FIRST);
        assert_eq!(numbers.number_of(&reborn, nowhere), FIRST + 1);
    }

    #[test]
    fn files_keep_their_numbers_when_the_kernel_gives_others() {
        let mut numbers = numbers();
        for inode in 0..50 {
            numbers.number_of(&file(inode), nowhere);
        }
        // They change paths, so that taking one after the other would not do.
        numbers.renumber(|old, _| file((old.inode + 1) % 50));
        for inode in 0..50 {
            assert_eq!(
                numbers.number_of(&file((inode + 1) % 50), nowhere),
                FIRST + inode
            );
        }
        assert_eq!(numbers.number_of(&file(50), nowhere), FIRST + 50);
    }

    #[test]
    fn files_are_found_again_by_their_paths_as_far_as_there_is_room() {
        let mut numbers = numbers();
        let long = [b'l'; 2 * PATH_BYTES_MAX];
        for inode in 0..40 {
            numbers.number_of(&file(inode), |room| {
                let name = std::format!("/paths/{inode}");
                let Some(to) = room.get_mut(..name.len()) else {
                    return 0;
                };
                to.copy_from_slice(name.as_bytes());
                name.len()
            });
        }
        // Too long is as good as none, and so is what finds no room.
        numbers.number_of(&file(40), |_| long.len());
        let known = core::cell::Cell::new(0);
        numbers.renumber(|old, path| {
            if path.is_empty() {
                return *old;
            }
            let name = std::format!("/paths/{}\0", old.inode);
            assert_eq!(path, name.as_bytes());
            known.set(known.get() + 1);
            file(old.inode + 1000)
        });
        // 10 of 9 bytes, with their NULs, then as many of 10 as there is room for.
        let known = known.get();
        assert!(
            (20..=10 + (PATHS_BYTES as u64 - 90) / 10).contains(&known),
            "{known}"
        );
        for inode in 0..40 {
            let now = if inode < known { inode + 1000 } else { inode };
            assert_eq!(numbers.number_of(&file(now), nowhere), FIRST + inode);
        }
    }

    #[test]
    fn what_was_not_looked_at_for_longest_is_forgotten_first() {
        let mut numbers = numbers();
        for inode in 0..FILES_MAX as u64 {
            assert_eq!(numbers.number_of(&file(inode), nowhere), FIRST + inode);
        }
        assert_eq!(numbers.number_of(&file(0), nowhere), FIRST);
        let next = FIRST + FILES_MAX as u64;
        assert_eq!(numbers.number_of(&file(1_000_000), nowhere), next);
        assert_eq!(numbers.number_of(&file(0), nowhere), FIRST);
        assert_eq!(numbers.number_of(&file(1), nowhere), next + 1);
    }
}
