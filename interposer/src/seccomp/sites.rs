//! Call sites of caught system calls, and how often each was: in the tree's memory, so that all processes
//! count together. The counters have no effect on anything but what the node is told.
//!
//! A site is a place in a file, so that it is the same in every process. Finding that out takes reading
//! `/proc/self/maps`, so each process remembers which of its addresses is which site.

use crate::tsc::Mapping;
use crate::turn::{self, Turn};
use brolga_tape::record::Record;
use core::sync::atomic::{AtomicU64, Ordering};

const SITES_MAX: usize = 256;
const NAME_BYTES: usize = 40;
/// The node is told of counts that are powers of two, and then of each multiple of this.
const TOLD_EVERY: u64 = 1024;

/// One call site.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Site {
    count: u64,
    offset: u64,
    number: u32,
    name_len: u32,
    name: [u8; NAME_BYTES],
}

impl Site {
    /// The file's name, and the place in it.
    pub fn parts(&self) -> (&[u8], u64) {
        (&self.name[..self.name_len as usize], self.offset)
    }

    fn is(&self, other: &Self) -> bool {
        self.number == other.number && self.parts() == other.parts()
    }

    fn told(&self) -> Record<'_> {
        let (object, offset) = self.parts();
        Record::Caught {
            number: self.number,
            count: self.count,
            offset,
            object,
        }
    }
}

/// What is known of the filter: all of the tree; all zeros are a valid one.
#[repr(C)]
pub struct Sites {
    /// The kernel was given the filter, and has answered with an errno or 0.
    answered: bool,
    errno: i32,
    used: usize,
    sites: [Site; SITES_MAX],
}

impl Sites {
    /// The kernel has answered, with an errno or 0: the node is told.
    pub fn answered(&mut self, errno: i32) {
        self.answered = true;
        self.errno = errno;
        self.tell();
    }

    /// Tells a node that knows nothing yet.
    pub fn tell(&self) {
        if self.answered {
            let errno = self.errno;
            turn::report(&Record::Backstop { errno });
        }
        for site in &self.sites[..self.used] {
            turn::report(&site.told());
        }
    }

    /// The place of a site, which is added if it is new. The last one stands for all that there is no room
    /// for.
    fn index(&mut self, site: Site) -> usize {
        let known = self.sites[..self.used].iter().position(|it| it.is(&site));
        if let Some(at) = known {
            return at;
        }
        if self.used < SITES_MAX - 1 {
            self.sites[self.used] = site;
            self.used += 1;
            return self.used - 1;
        }
        SITES_MAX - 1
    }
}

/// What this process knows already: the address and the call's number, and the site plus one.
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

/// One more call.
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
        turn::report(&site.told());
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
