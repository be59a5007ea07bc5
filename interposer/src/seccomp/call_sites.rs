//! Call sites of caught system calls, and how often each was: in the tree's memory, so that all
//! processes count together.

use brolga_tape::record::Record;

const SITES_MAX: usize = 256;
pub(super) const NAME_BYTES: usize = 40;

/// A call site.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Site {
    pub(super) count: u64,
    pub(super) offset: u64,
    pub(super) number: u32,
    pub(super) name_len: u32,
    pub(super) name: [u8; NAME_BYTES],
}

impl Site {
    /// The file's name, and the place in it.
    pub fn parts(&self) -> (&[u8], u64) {
        (&self.name[..self.name_len as usize], self.offset)
    }

    fn is(&self, other: &Self) -> bool {
        self.number == other.number && self.parts() == other.parts()
    }

    /// The record that tells the node of the site.
    pub(super) fn told(&self) -> Record<'_> {
        let (object, offset) = self.parts();
        Record::Caught {
            number: self.number,
            count: self.count,
            offset,
            object,
        }
    }
}

/// All call sites of the tree, and whether the filter is there. All zeros are a valid value.
#[repr(C)]
pub struct Sites {
    /// The kernel was given the filter, and has answered with an errno or 0.
    pub(super) answered: bool,
    pub(super) errno: i32,
    pub(super) used: usize,
    pub(super) sites: [Site; SITES_MAX],
}

impl Sites {
    /// The place of a site, which is added if it is new. The last one stands for all that there is
    /// no room for.
    pub(super) fn index(&mut self, site: Site) -> usize {
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
