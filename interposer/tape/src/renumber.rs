//! The table of renumbered files of a server that was restored from a checkpoint: the kernel's
//! numbers for its files have changed, and the interposer identifies files and shared memory by
//! these.
//!
//! ```text
//! [u64; 4]      how many of each follow
//! [u64; 2] …    devices: old, new; for files that are not listed
//! [u64; 8] …    files: old, new identity, four words each, sorted
//! [u64; 2] …    shared mappings: old, new; device and inode in one word, sorted
//! [u64; 4] …    files again: the new identities alone, sorted
//! ```
//!
//! All numbers are little-endian.

/// A file: device, inode, and time of birth in seconds and nanoseconds (0 when not known).
pub type FileWords = [u64; 4];

/// A shared mapping's device (as the kernel lists it, `major << 20 | minor`) and inode in one word
/// of 55 bits.
#[must_use]
pub const fn mapping_word(device: u32, inode: u64) -> u64 {
    const INODE_BITS: u64 = (1 << 39) - 1;
    (inode & INODE_BITS) << 16 | (device & 0xFFFF) as u64
}

const WORD: usize = 8;
const HEADER_WORDS: usize = 4;

/// The table as it was written.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    devices: &'a [u8],
    files: &'a [u8],
    mappings: &'a [u8],
    there: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at * WORD..(at + 1) * WORD)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

impl<'a> Table<'a> {
    /// Reads a table. `None` when the bytes are not one.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_WORDS * WORD)?;
        let part = |rest: &'a [u8], ix, words: usize| {
            let count = usize::try_from(word(header, ix)?).ok()?;
            rest.split_at_checked(count.checked_mul(words * WORD)?)
        };
        let (devices, rest) = part(rest, 0, 2)?;
        let (files, rest) = part(rest, 1, 8)?;
        let (mappings, rest) = part(rest, 2, 2)?;
        let (there, rest) = part(rest, 3, 4)?;
        rest.is_empty().then_some(Self {
            devices,
            files,
            mappings,
            there,
        })
    }

    /// The new identity of a file that is listed.
    #[must_use]
    pub fn listed(&self, old: FileWords) -> Option<FileWords> {
        let count = self.files.len() / (8 * WORD);
        let at = search(count, |ix| words(self.files, 8 * ix), &old)?;
        Some(words(self.files, 8 * at + 4))
    }

    /// True when a listed file has this identity now.
    #[must_use]
    pub fn is_there(&self, new: FileWords) -> bool {
        let count = self.there.len() / (4 * WORD);
        search(count, |ix| words(self.there, 4 * ix), &new).is_some()
    }

    /// The new identity of a file, listed or not.
    #[must_use]
    pub fn file(&self, old: FileWords) -> FileWords {
        if let Some(new) = self.listed(old) {
            return new;
        }
        let [device, rest @ ..] = old;
        let pairs = self.devices.chunks_exact(2 * WORD);
        let found = pairs.filter(|pair| word(pair, 0) == Some(device));
        let device = found
            .filter_map(|pair| word(pair, 1))
            .next_back()
            .unwrap_or(device);
        [device, rest[0], rest[1], rest[2]]
    }

    /// The new identity of a shared mapping.
    #[must_use]
    pub fn mapping(&self, old: u64) -> u64 {
        let count = self.mappings.len() / (2 * WORD);
        let key = |ix| word(self.mappings, 2 * ix).unwrap_or(0);
        let found = search(count, key, &old);
        found
            .and_then(|at| word(self.mappings, 2 * at + 1))
            .unwrap_or(old)
    }
}

fn words(bytes: &[u8], first: usize) -> FileWords {
    core::array::from_fn(|ix| word(bytes, first + ix).unwrap_or(0))
}

fn search<K: Ord>(count: usize, key: impl Fn(usize) -> K, wanted: &K) -> Option<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        match key(middle).cmp(wanted) {
            core::cmp::Ordering::Equal => return Some(middle),
            core::cmp::Ordering::Less => low = middle + 1,
            core::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

/// Encodes a table. Of several new values for an old one the first counts.
#[cfg(feature = "alloc")]
#[must_use]
pub fn encode(
    devices: &[(u64, u64)],
    mut files: alloc::vec::Vec<(FileWords, FileWords)>,
    mut mappings: alloc::vec::Vec<(u64, u64)>,
) -> alloc::vec::Vec<u8> {
    files.sort_by_key(|(old, _)| *old);
    files.dedup_by_key(|(old, _)| *old);
    mappings.sort_by_key(|(old, _)| *old);
    mappings.dedup_by_key(|(old, _)| *old);
    let mut there: alloc::vec::Vec<FileWords> = files.iter().map(|(_, new)| *new).collect();
    there.sort_unstable();
    there.dedup();
    let counts = [devices.len(), files.len(), mappings.len(), there.len()];
    let counts = counts.map(|count| count as u64);
    let devices = devices.iter().flat_map(|(old, new)| [*old, *new]);
    let files = files
        .iter()
        .flat_map(|(old, new)| [*old, *new].into_iter().flatten());
    let mappings = mappings.iter().flat_map(|(old, new)| [*old, *new]);
    let all = counts
        .into_iter()
        .chain(devices)
        .chain(files)
        .chain(mappings)
        .chain(there.into_iter().flatten());
    all.flat_map(u64::to_le_bytes).collect()
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn files_and_mappings_are_found_and_devices_stand_in() {
        let files = vec![([1, 9, 0, 0], [7, 90, 5, 5]), ([1, 3, 2, 2], [7, 30, 6, 6])];
        let bytes = encode(&[(1, 7), (2, 8)], files, vec![(50, 51), (40, 41)]);
        let table = Table::parse(&bytes).unwrap();
        assert_eq!(table.file([1, 9, 0, 0]), [7, 90, 5, 5]);
        assert_eq!(table.file([1, 3, 2, 2]), [7, 30, 6, 6]);
        assert_eq!(table.file([1, 3, 2, 1]), [7, 3, 2, 1]);
        assert_eq!(table.listed([1, 3, 2, 1]), None);
        assert!(table.is_there([7, 90, 5, 5]) && table.is_there([7, 30, 6, 6]));
        assert!(!table.is_there([1, 9, 0, 0]));
        assert_eq!(table.file([2, 3, 2, 1]), [8, 3, 2, 1]);
        assert_eq!(table.file([3, 3, 2, 1]), [3, 3, 2, 1]);
        assert_eq!(
            (table.mapping(40), table.mapping(50), table.mapping(45)),
            (41, 51, 45)
        );
        assert!(Table::parse(&bytes[..bytes.len() - 1]).is_none());
        assert!(Table::parse(&[&bytes[..], &[0]].concat()).is_none());
        let nothing = encode(&[], vec![], vec![]);
        assert_eq!(
            Table::parse(&nothing).unwrap().file([1, 2, 3, 4]),
            [1, 2, 3, 4]
        );
    }
}
