//! Counting of trapped system calls by call site. The counters have no effect on anything but the
//! node's reports.
//!
//! A site is a place in a file, so it is the same in every process. Finding it takes reading
//! `/proc/self/maps`, so each process remembers the sites of its addresses.

use crate::output::report;
use crate::seccomp::call_sites::{NAME_BYTES, Site};
use crate::tsc::Mapping;
use crate::turn::Turn;
use core::sync::atomic::{AtomicU64, Ordering};
/// The node is told of counts that are powers of two, and then of each multiple of this.
const TOLD_EVERY: u64 = 1024;

/// An address that this process has looked up: with the call's number, and the site plus one.
struct Known {
    key: AtomicU64,
    site: AtomicU64,
}
const KNOWN_MAX: usize = 512;
static KNOWN: [Known; KNOWN_MAX] = [const {
    Known {
        key: AtomicU64::new(0),
        site: AtomicU64::new(0),
    }
}; KNOWN_MAX];

/// Which file the code before an address comes from, and where it is in it.
pub fn find(place: usize) -> Site {
    let mut site = Site {
        count: 0,
        offset: place as u64,
        number: 0,
        name_len: 0,
        name: [0; NAME_BYTES],
    };
    Mapping::look_up(place, |mapped, path| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let len = name.len().min(NAME_BYTES);
        site.name[..len].copy_from_slice(&name[..len]);
        site.name_len = len as u32;
        site.offset = mapped.place_in_file(place) as u64;
    });
    site
}

/// Counts a call.
pub fn count(turn: &mut Turn, place: usize, number: u32) {
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let key = place as u64 | u64::from(number) << 48;
    let known = &KNOWN[(key.wrapping_mul(MIX) >> 55) as usize % KNOWN_MAX];
    let at = if known.key.load(Ordering::Relaxed) == key {
        known.site.load(Ordering::Relaxed) as usize
    } else {
        let mut site = find(place);
        site.number = number;
        let at = turn.shared().sites.index(site);
        known.key.store(key, Ordering::Relaxed);
        known.site.store(at as u64, Ordering::Relaxed);
        at
    };
    let site = &mut turn.shared().sites.sites[at];
    site.count += 1;
    if site.count.is_power_of_two() || site.count.is_multiple_of(TOLD_EVERY) {
        report(&site.told());
    }
}

/// A number in hexadecimal, for messages without a heap.
pub struct Hexadecimal {
    digits: [u8; 16],
    from: usize,
}

impl Hexadecimal {
    /// Formats.
    pub fn new(mut value: u64) -> Self {
        let mut digits = [b'0'; 16];
        let mut from = 16;
        loop {
            from -= 1;
            digits[from] = b"0123456789abcdef"[(value % 16) as usize];
            value /= 16;
            if value == 0 {
                return Self { digits, from };
            }
        }
    }

    /// The digits.
    pub fn bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}
