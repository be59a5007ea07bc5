//! Numbers of files, in the order in which the server first sees them.
//!
//! A file is known by the kernel's device and inode numbers and by its birth, since an inode number is
//! used again, at moments that differ between replicas. The table is bounded: what has not been
//! looked at for longest is forgotten first, which is a fact of the logical execution as well.
//!
//! The place of each file at the first look is kept beside, as far as there is room: on another machine
//! the kernel has other numbers for the same files, and they are found again by their places.

/// Files known at a time.
const FILES_MAX: usize = if cfg!(test) { 64 } else { 32 * 1024 };
const BUCKETS: usize = 2 * FILES_MAX;
/// Bytes of all places, a NUL after each.
const PLACES_BYTES: usize = if cfg!(test) { 256 } else { 2 << 20 };
/// Longer ones are not kept.
const PLACE_BYTES_MAX: usize = if cfg!(test) { 32 } else { 512 };

/// What tells a file from every other of the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Identity {
    /// The kernel's device number.
    pub device: u64,
    /// The kernel's inode number.
    pub inode: u64,
    /// When it was made, as the file system has it; 0 if it has not.
    pub born: crate::times::Time,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct File {
    identity: Identity,
    number: u64,
    /// Next in the same bucket.
    next: u32,
    /// Neighbours by the time of the last look.
    older: u32,
    newer: u32,
    /// Where its place begins and how long it is, without the NUL.
    place: u32,
    place_bytes: u32,
}

/// All numbers given so far. Indices count from 1; 0 is none.
#[repr(C)]
pub struct Numbers {
    /// Numbers given so far.
    given: u64,
    used: u32,
    oldest: u32,
    newest: u32,
    places_used: u32,
    buckets: [u32; BUCKETS],
    files: [File; FILES_MAX],
    places: [u8; PLACES_BYTES],
}

/// The first number: inode numbers below have a meaning to some programs.
const FIRST: u64 = 1000;

fn bucket_of(identity: &Identity) -> usize {
    let mixed =
        (identity.inode ^ identity.device.rotate_left(40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as usize % BUCKETS
}

impl Numbers {
    /// The number of a file, a new one if it was never seen (or not for very long). Then `place` is asked
    /// to write where it is, and tells how many bytes that took; 0: nowhere.
    pub fn of(&mut self, identity: &Identity, place: impl FnOnce(&mut [u8]) -> usize) -> u64 {
        if let Some(ix) = self.find(identity) {
            self.unlink(ix);
            self.link_newest(ix);
            return self.file(ix).number;
        }
        let ix = self.take_slot();
        let bucket = bucket_of(identity);
        let number = FIRST + self.given;
        self.given += 1;
        let (place, place_bytes) = self.keep_place(place);
        let next = self.buckets[bucket];
        *self.file(ix) = File {
            identity: *identity,
            number,
            next,
            older: 0,
            newer: 0,
            place,
            place_bytes,
        };
        self.buckets[bucket] = ix;
        self.link_newest(ix);
        number
    }

    fn keep_place(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> (u32, u32) {
        let at = self.places_used as usize;
        // The last byte is for the NUL.
        let end = (at + PLACE_BYTES_MAX).min(PLACES_BYTES - 1);
        let Some(room) = self.places.get_mut(at..end) else {
            return (0, 0);
        };
        let bytes = write(room);
        if bytes == 0 || bytes > room.len() {
            return (0, 0);
        }
        self.places[at + bytes] = 0;
        self.places_used = (at + bytes + 1) as u32;
        (at as u32, bytes as u32)
    }

    /// The kernel's numbers have changed: what each file is now, given its old identity and its place with
    /// the NUL (empty: it is not known). The numbers that were given stay.
    pub fn renumber(&mut self, now: impl Fn(&Identity, &[u8]) -> Identity) {
        self.buckets.fill(0);
        for ix in 1..=self.used {
            let file = &self.files[ix as usize - 1];
            let place = match file.place_bytes as usize {
                0 => &[][..],
                bytes => &self.places[file.place as usize..][..=bytes],
            };
            let identity = now(&file.identity, place);
            let bucket = bucket_of(&identity);
            let next = core::mem::replace(&mut self.buckets[bucket], ix);
            let file = self.file(ix);
            (file.identity, file.next) = (identity, next);
        }
    }

    fn file(&mut self, ix: u32) -> &mut File {
        &mut self.files[ix as usize - 1]
    }

    fn find(&self, identity: &Identity) -> Option<u32> {
        let mut ix = self.buckets[bucket_of(identity)];
        while ix != 0 {
            let file = &self.files[ix as usize - 1];
            if file.identity == *identity {
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
        let (identity, next) = (self.file(ix).identity, self.file(ix).next);
        let bucket = bucket_of(&identity);
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

    fn numbers() -> Box<Numbers> {
        let nothing = File {
            identity: Identity::default(),
            number: 0,
            next: 0,
            older: 0,
            newer: 0,
            place: 0,
            place_bytes: 0,
        };
        Box::new(Numbers {
            given: 0,
            used: 0,
            oldest: 0,
            newest: 0,
            places_used: 0,
            buckets: [0; BUCKETS],
            files: [nothing; FILES_MAX],
            places: [0; PLACES_BYTES],
        })
    }

    fn nowhere(_: &mut [u8]) -> usize {
        0
    }

    fn file(inode: u64) -> Identity {
        Identity {
            device: 5,
            inode,
            born: Time::default(),
        }
    }

    #[test]
    fn files_are_numbered_in_the_order_of_the_first_look() {
        let mut numbers = numbers();
        assert_eq!(numbers.of(&file(77), nowhere), FIRST);
        assert_eq!(numbers.of(&file(12), nowhere), FIRST + 1);
        assert_eq!(numbers.of(&file(77), nowhere), FIRST);
    }

    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let mut numbers = numbers();
        let mut reborn = file(77);
        reborn.born.seconds = 3;
        assert_eq!(numbers.of(&file(77), nowhere), FIRST);
        assert_eq!(numbers.of(&reborn, nowhere), FIRST + 1);
    }

    #[test]
    fn files_keep_their_numbers_when_the_kernel_gives_others() {
        let mut numbers = numbers();
        for inode in 0..50 {
            numbers.of(&file(inode), nowhere);
        }
        // They change places, so that taking one after the other would not do.
        numbers.renumber(|old, _| file((old.inode + 1) % 50));
        for inode in 0..50 {
            assert_eq!(numbers.of(&file((inode + 1) % 50), nowhere), FIRST + inode);
        }
        assert_eq!(numbers.of(&file(50), nowhere), FIRST + 50);
    }

    #[test]
    fn files_are_found_again_by_their_places_as_far_as_there_is_room() {
        let mut numbers = numbers();
        let long = [b'l'; 2 * PLACE_BYTES_MAX];
        for inode in 0..40 {
            numbers.of(&file(inode), |room| {
                let name = std::format!("/place/{inode}");
                let Some(to) = room.get_mut(..name.len()) else {
                    return 0;
                };
                to.copy_from_slice(name.as_bytes());
                name.len()
            });
        }
        // Too long is as good as none, and so is what finds no room.
        numbers.of(&file(40), |_| long.len());
        let known = core::cell::Cell::new(0);
        numbers.renumber(|old, place| {
            if place.is_empty() {
                return *old;
            }
            let name = std::format!("/place/{}\0", old.inode);
            assert_eq!(place, name.as_bytes());
            known.set(known.get() + 1);
            file(old.inode + 1000)
        });
        // 10 of 9 bytes, with their NULs, then as many of 10 as there is room for.
        let known = known.get();
        assert!(
            (20..=10 + (PLACES_BYTES as u64 - 90) / 10).contains(&known),
            "{known}"
        );
        for inode in 0..40 {
            let now = if inode < known { inode + 1000 } else { inode };
            assert_eq!(numbers.of(&file(now), nowhere), FIRST + inode);
        }
    }

    #[test]
    fn what_was_not_looked_at_for_longest_is_forgotten_first() {
        let mut numbers = numbers();
        for inode in 0..FILES_MAX as u64 {
            assert_eq!(numbers.of(&file(inode), nowhere), FIRST + inode);
        }
        assert_eq!(numbers.of(&file(0), nowhere), FIRST);
        let next = FIRST + FILES_MAX as u64;
        assert_eq!(numbers.of(&file(1_000_000), nowhere), next);
        assert_eq!(numbers.of(&file(0), nowhere), FIRST);
        assert_eq!(numbers.of(&file(1), nowhere), next + 1);
    }
}
