//! Names of objects: keys, ids, owners and permissions.

use crate::{Caller, errno, flag};

/// `IPC_PRIVATE`: a key that nobody else can name.
pub const PRIVATE: i32 = 0;
/// An id is its slot plus this times how often the slot was used before, as Linux has it.
const SLOTS: i32 = 1 << 15;
const SEQUENCES: i32 = 1 << 16;
/// Permission bits.
const MODE: u32 = 0o777;
/// The user whom permissions do not bind.
const ROOT: u32 = 0;

/// Reading, for [`Names::check`].
pub const READ: u32 = 0o444;
/// Altering.
pub const WRITE: u32 = 0o222;

/// An object's `ipc_perm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Name {
    there: bool,
    sequence: i32,
    /// The key, [`PRIVATE`] for none.
    pub key: i32,
    /// Owner.
    pub user: u32,
    /// Owner's group.
    pub group: u32,
    /// Who has made it.
    pub maker: u32,
    /// The maker's group.
    pub maker_group: u32,
    /// Permission bits.
    pub mode: u32,
}

/// What [`Names::get`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// An object with that key.
    Known(usize),
    /// None; this slot is free for it.
    Free(usize),
}

/// The names of up to `N` objects of a kind, by slot.
#[derive(Debug)]
#[repr(C)]
pub struct Names<const N: usize> {
    names: [Name; N],
}

impl<const N: usize> Names<N> {
    /// What `semget` and its kin look for. Permissions of a known object are not looked at yet.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST` by the flags; `ENOSPC` if there are too many.
    pub fn get(&self, key: i32, flags: i32) -> Result<Got, i32> {
        if key != PRIVATE {
            let is_it = |name: &Name| name.there && name.key == key;
            if let Some(at) = self.names.iter().position(is_it) {
                let exclusive = flag::CREAT | flag::EXCL;
                return if flags & exclusive == exclusive {
                    Err(errno::EEXIST)
                } else {
                    Ok(Got::Known(at))
                };
            }
            if flags & flag::CREAT == 0 {
                return Err(errno::ENOENT);
            }
        }
        let free = self.names.iter().position(|name| !name.there);
        free.map(Got::Free).ok_or(errno::ENOSPC)
    }

    /// Names a new object; gives its id.
    pub fn add(&mut self, at: usize, key: i32, flags: i32, caller: &Caller) -> i32 {
        let sequence = self.names[at].sequence;
        self.names[at] = Name {
            there: true,
            sequence,
            key,
            user: caller.user,
            group: caller.group,
            maker: caller.user,
            maker_group: caller.group,
            mode: flags.cast_unsigned() & MODE,
        };
        self.id(at)
    }

    /// An object is gone, and its id with it.
    pub fn remove(&mut self, at: usize) {
        let sequence = (self.names[at].sequence + 1) % SEQUENCES;
        self.names[at] = Name {
            sequence,
            ..Name::default()
        };
    }

    /// The id of what is in a slot.
    #[must_use]
    pub fn id(&self, at: usize) -> i32 {
        self.names[at].sequence * SLOTS + at as i32
    }

    /// The slot of an id.
    ///
    /// # Errors
    /// `EINVAL` if there is no such object, or not any more.
    pub fn find(&self, id: i32) -> Result<usize, i32> {
        let at = usize::try_from(id % SLOTS).map_err(|_| errno::EINVAL)?;
        let there = self.names.get(at).is_some_and(|name| name.there);
        if there && self.id(at) == id {
            Ok(at)
        } else {
            Err(errno::EINVAL)
        }
    }

    /// What is known of the object in a slot.
    #[must_use]
    pub fn name(&self, at: usize) -> &Name {
        &self.names[at]
    }

    /// The same.
    pub fn name_mut(&mut self, at: usize) -> &mut Name {
        &mut self.names[at]
    }

    /// Whether the caller may do what `wanted` says, in the permission bits of anybody.
    ///
    /// # Errors
    /// `EACCES`.
    pub fn check(&self, at: usize, caller: &Caller, wanted: u32) -> Result<(), i32> {
        let name = &self.names[at];
        let granted = if [name.user, name.maker].contains(&caller.user) {
            name.mode >> 6
        } else if [name.group, name.maker_group].contains(&caller.group) {
            name.mode >> 3
        } else {
            name.mode
        };
        let wanted = (wanted >> 6) | (wanted >> 3) | wanted;
        if wanted & !granted & 0o7 == 0 || caller.user == ROOT {
            Ok(())
        } else {
            Err(errno::EACCES)
        }
    }

    /// Whether the caller may change the owner or remove the object.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn check_owner(&self, at: usize, caller: &Caller) -> Result<(), i32> {
        let name = &self.names[at];
        if [name.user, name.maker, ROOT].contains(&caller.user) {
            Ok(())
        } else {
            Err(errno::EPERM)
        }
    }

    /// Changes owner and permissions (`IPC_SET`).
    pub fn set(&mut self, at: usize, user: u32, group: u32, mode: u32) {
        let name = &mut self.names[at];
        (name.user, name.group, name.mode) = (user, group, mode & MODE);
    }
}

#[cfg(test)]
impl<const N: usize> Names<N> {
    /// No names.
    pub(crate) fn none() -> Self {
        Self {
            names: [Name::default(); N],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Caller = Caller {
        user: 10,
        group: 20,
        process: 0,
        pid: 1000,
        now: 0,
    };

    #[test]
    fn keys_and_ids_name_objects() {
        let mut names = Names::<2>::none();
        assert_eq!(names.get(7, 0o600), Err(errno::ENOENT));
        let Ok(Got::Free(at)) = names.get(7, flag::CREAT) else {
            panic!("no room");
        };
        let id = names.add(at, 7, 0o600 | flag::CREAT, &OWNER);
        assert_eq!(names.get(7, 0), Ok(Got::Known(at)));
        assert_eq!(names.get(7, flag::CREAT | flag::EXCL), Err(errno::EEXIST));
        assert_eq!(names.find(id), Ok(at));
        names.remove(at);
        assert_eq!(names.find(id), Err(errno::EINVAL));
        let again = names.add(at, PRIVATE, 0, &OWNER);
        assert_ne!(again, id);
        assert_eq!(names.get(PRIVATE, 0), Ok(Got::Free(1)));
        names.add(1, PRIVATE, 0, &OWNER);
        assert_eq!(names.get(PRIVATE, 0), Err(errno::ENOSPC));
        assert_eq!(names.find(-1), Err(errno::EINVAL));
    }

    #[test]
    fn permissions_are_those_of_files() {
        let mut names = Names::<1>::none();
        names.add(0, PRIVATE, 0o640, &OWNER);
        let friend = Caller { user: 11, ..OWNER };
        let stranger = Caller {
            group: 21,
            ..friend
        };
        let root = Caller {
            user: 0,
            ..stranger
        };
        assert_eq!(names.check(0, &OWNER, READ | WRITE), Ok(()));
        assert_eq!(names.check(0, &friend, READ), Ok(()));
        assert_eq!(names.check(0, &friend, WRITE), Err(errno::EACCES));
        assert_eq!(names.check(0, &stranger, READ), Err(errno::EACCES));
        assert_eq!(names.check(0, &root, WRITE), Ok(()));
        assert_eq!(names.check_owner(0, &friend), Err(errno::EPERM));
        names.set(0, 11, 20, 0o1600);
        assert_eq!(names.check_owner(0, &friend), Ok(()));
        assert_eq!(names.name(0).mode, 0o600);
    }
}
