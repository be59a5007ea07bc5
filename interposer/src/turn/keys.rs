//! Keys that threads wait on in the scheduler.

use super::proof::Turn;
use crate::mapping;
use brolga_dmt::Key;
use brolga_tape::renumber::{Table, mapping_word};
use brolga_vnet::WaitOn;

/// Key spaces. Objects private to a process carry its slot in the upper bits.
pub mod space {
    pub const MUTEX: u64 = 1;
    pub const CONDITION: u64 = 2;
    pub const RWLOCK: u64 = 3;
    pub const SEMAPHORE: u64 = 4;
    pub const BARRIER: u64 = 5;
    pub const ONCE: u64 = 6;
    pub const FUTEX: u64 = 7;
    pub const JOIN: u64 = 8;
    pub const READABLE: u64 = 9;
    pub const WRITABLE: u64 = 10;
    pub const EPOLL: u64 = 11;
    pub const ANY_SOCKET: u64 = 12;
    pub const REAL: u64 = 13;
    pub const CHILD: u64 = 14;
    pub const SLEEP: u64 = 15;
    pub const SIGNAL: u64 = 16;
    pub const ROBUST: u64 = 17;
    pub const SPIN: u64 = 18;
    pub const SEMAPHORE_SET: u64 = 19;
    pub const MESSAGES: u64 = 20;
    pub const FILE_LOCK: u64 = 21;
}

/// Marks keys of objects that processes share.
const IS_SHARED: u64 = 1 << 63;
/// Such keys have the space in these bits and the mapping above.
const SPACE_BITS: u32 = 8;

/// The key that takes the place of `key` after a restore.
pub fn rekeyed(key: Key, table: &Table<'_>) -> Key {
    if key.space & IS_SHARED == 0 {
        return key;
    }
    let mapping = (key.space & !IS_SHARED) >> SPACE_BITS;
    let space = key.space & ((1 << SPACE_BITS) - 1);
    Key {
        space: IS_SHARED | table.mapping(mapping) << SPACE_BITS | space,
        id: key.id,
    }
}

/// Signalled when a process ends.
pub const CHILD: Key = Key {
    space: space::CHILD,
    id: 0,
};

/// Waits that end when something real may have changed.
pub const REAL: Key = Key {
    space: space::REAL,
    id: 0,
};

/// The scheduler's key for what a thread waits on.
#[inline]
pub fn key_of(on: WaitOn) -> Key {
    match on {
        WaitOn::Readable(ix) => Key {
            space: space::READABLE,
            id: u64::from(ix),
        },
        WaitOn::Writable(ix) => Key {
            space: space::WRITABLE,
            id: u64::from(ix),
        },
        WaitOn::Epoll(ix) => Key {
            space: space::EPOLL,
            id: u64::from(ix),
        },
        WaitOn::AnySocket => Key {
            space: space::ANY_SOCKET,
            id: 0,
        },
    }
}

impl Turn {
    /// A key for an object of this process at `address`.
    #[inline]
    pub fn private_key(&self, space: u64, address: usize) -> Key {
        Key {
            space: space | (u64::from(self.process()) + 1) << 32,
            id: address as u64,
        }
    }

    /// A key for an object at `address` that processes share, wherever each has mapped it.
    #[cold]
    pub fn shared_key(&self, space: u64, address: usize) -> Key {
        let Some(place) = mapping::place_of(address) else {
            return self.private_key(space, address);
        };
        Key {
            space: IS_SHARED | mapping_word(place.device, place.inode) << SPACE_BITS | space,
            id: place.offset,
        }
    }
}
