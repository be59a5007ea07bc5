//! The inode map: device and inode numbers of a server's files and shared mappings at the dump.
//!
//! After a restore the kernel gives them other numbers. They are looked up again, and the
//! interposer gets the pairs of old and new numbers ([`brolga_tape::renumber`]).
//!
//! The map contains all files of the snapshot by path, all open files by process and descriptor,
//! and all shared mappings by process and address. It does not contain files of the machine that
//! the server has only looked at: the interposer finds these by the path that it has recorded. A
//! file without a recorded path is identified by its device alone, which works on the same machine
//! only.
//!
//! All functions have to be called inside the container.

use super::processes::{maps_of, processes};
use brolga_tape::renumber::{self, FileWords, mapping_word};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Encodes the map. The map has no strings, so a damaged length allocates little before the end is
/// met.
const ENCODING: bincode::config::Configuration = bincode::config::standard();

/// The device and inode numbers of a server's files and mappings. Its encoding is part of the
/// image.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeMap {
    /// Mount points of file systems, and their devices.
    devices: Vec<(Vec<u8>, u64)>,
    /// Paths of files, and device, inode and birth time.
    files: Vec<(Vec<u8>, FileWords)>,
    /// Process, address, and identifier of the mapping.
    mappings: Vec<(u32, u64, u64)>,
}

impl InodeMap {
    /// Reads the current numbers of the files at `paths`, of all open files and mappings, and of
    /// the file systems mounted at `mount_points`.
    pub(crate) fn read(paths: Vec<PathBuf>, mount_points: &[PathBuf]) -> io::Result<Self> {
        let mut map = Self::default();
        for top in mount_points {
            if let Some(words) = words_of(top, AtFlags::empty())? {
                map.devices.push((bytes(top), words[0]));
            }
        }
        for path in paths {
            map.add(&path, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        for pid in processes()? {
            map.add_process(pid)?;
        }
        Ok(map)
    }

    /// Returns the map as it is stored in the image.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        bincode::serde::encode_to_vec(self, ENCODING).map_err(io::Error::other)
    }

    /// Reads a map from an image.
    ///
    /// # Errors
    /// It is damaged.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let decoded = bincode::serde::decode_from_slice(bytes, ENCODING);
        let (map, _): (Self, usize) =
            decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(map)
    }

    fn add_process(&mut self, pid: u32) -> io::Result<()> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        for entry in fs::read_dir(process.join("fd"))? {
            self.add(&entry?.path(), AtFlags::empty())?;
        }
        let maps = maps_of(pid)?;
        let shared = maps.lines().filter_map(shared_mapping);
        self.mappings
            .extend(shared.map(|(start, word)| (pid, start, word)));
        Ok(())
    }

    fn add(&mut self, path: &Path, flags: AtFlags) -> io::Result<()> {
        if let Some(words) = words_of(path, flags)? {
            self.files.push((bytes(path), words));
        }
        Ok(())
    }

    /// Returns the table for the interposer: the old and the current numbers.
    pub(crate) fn renumbering(&self) -> io::Result<Vec<u8>> {
        let mut devices = Vec::new();
        for (top, old) in &self.devices {
            if let Some(words) = words_of(path(top), AtFlags::empty())? {
                devices.push((*old, words[0]));
            }
        }
        let mut files = Vec::new();
        for (name, old) in &self.files {
            let name = path(name);
            let open = name.starts_with("/proc");
            let flags = if open {
                AtFlags::empty()
            } else {
                AtFlags::SYMLINK_NOFOLLOW
            };
            if let Some(new) = words_of(name, flags)? {
                files.push((*old, new));
            }
        }
        Ok(renumber::encode(&devices, files, self.current_mappings()?))
    }

    /// Returns the old and the current identifier of each mapping that still exists.
    fn current_mappings(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut now = HashMap::new();
        for pid in processes()? {
            let maps = maps_of(pid)?;
            let shared = maps.lines().filter_map(shared_mapping);
            now.extend(shared.map(|(start, word)| ((pid, start), word)));
        }
        let pair = |(pid, start, old): &(u32, u64, u64)| Some((*old, *now.get(&(*pid, *start))?));
        Ok(self.mappings.iter().filter_map(pair).collect())
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Parses a line of `/proc/PID/maps`; returns start and identifier of a shared mapping:
/// `start-end rwxs offset major:minor inode …`.
fn shared_mapping(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let start = u64::from_str_radix(fields.next()?.split('-').next()?, 16).ok()?;
    if !fields.next()?.ends_with('s') {
        return None;
    }
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    let device = number(major)? << 20 | number(minor)?;
    let inode = fields.next()?.parse().ok()?;
    Some((start, mapping_word(device, inode)))
}

/// Returns device, inode and birth time of a file; `None` if it does not exist.
fn words_of(path: &Path, flags: AtFlags) -> io::Result<Option<FileWords>> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let file = match statx(CWD, path, flags, mask) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other?,
    };
    let born = if StatxFlags::from_bits_retain(file.stx_mask).contains(StatxFlags::BTIME) {
        let born = file.stx_btime;
        [born.tv_sec.cast_unsigned(), born.tv_nsec.into()]
    } else {
        [0, 0]
    };
    let device = u64::from(file.stx_dev_major) << 32 | u64::from(file.stx_dev_minor);
    Ok(Some([device, file.stx_ino, born[0], born[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_are_read_as_the_interposer_does() {
        let line = "7f00aa000000-7f00ab000000 rw-s 00001000 fe:01 1234 /memfd:x (deleted)";
        let word = mapping_word(0xfe << 20 | 1, 1234);
        assert_eq!(shared_mapping(line), Some((0x7f00_aa00_0000, word)));
        let private = "555555554000-555555555000 r--p 00000000 fe:00 77 /bin/true";
        assert_eq!(shared_mapping(private), None);
        assert_eq!(shared_mapping("garbage"), None);
    }

    #[test]
    fn a_file_that_takes_the_place_of_another_is_paired_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let mut map = InodeMap::default();
        map.add(&file, AtFlags::empty()).unwrap();
        map.add(&dir.path().join("missing"), AtFlags::empty())
            .unwrap();
        let old = map.files[0].1;
        fs::rename(&file, dir.path().join("kept")).unwrap();
        fs::write(&file, "").unwrap();
        let new = words_of(&file, AtFlags::empty()).unwrap().unwrap();
        assert_ne!(old, new);
        let table = map.renumbering().unwrap();
        assert_eq!(renumber::Table::parse(&table).unwrap().file(old), new);
    }

    #[test]
    fn the_map_is_read_and_written_as_format_1() {
        let golden = include_bytes!("../../tests/golden/1/known");
        let map = InodeMap {
            devices: vec![(b"/".to_vec(), 0xfe_0000_0001)],
            files: vec![(b"/.brolga/work/f".to_vec(), [1, 2, 3, 4])],
            mappings: vec![(1000, 0x7f00_aa00_0000, 77)],
        };
        assert_eq!(map.encode().unwrap(), golden);
        assert_eq!(InodeMap::decode(golden).unwrap(), map);
    }
}
