//! The hash log: the hashes of every slot on disk, beside the log, so that a later replay can be
//! compared with them. One record of 24 bytes for each slot that had an entry: slot, output hash,
//! schedule hash.
//!
//! Records of slots that the log has dropped are given back to the file system: a hole takes their
//! place at the beginning of the file.
//!
//! The file is a help and not a part of the log: it is not synced, the last moments before a `kill
//! -9` are missing from it, and a node that cannot write it goes on without.

use crate::server::hashes::SlotHashes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of one record.
const RECORD_BYTES: usize = 24;
/// A record in a hole.
const FORGOTTEN: [u8; RECORD_BYTES] = [0; RECORD_BYTES];
/// Records that are written at once while there are many.
const BATCH_RECORDS: usize = 340;
/// The longest time that a record waits.
const WAIT_MOST: Duration = Duration::from_millis(50);

/// The path of the hash log in a data directory.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("hashes")
}

fn encode(hashes: &SlotHashes) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&hashes.slot.to_le_bytes());
    bytes[8..16].copy_from_slice(&hashes.output_hash.to_le_bytes());
    bytes[16..].copy_from_slice(&hashes.schedule_hash.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; RECORD_BYTES]) -> SlotHashes {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    SlotHashes {
        slot: word(0),
        output_hash: word(8),
        schedule_hash: word(16),
    }
}

/// Reads all records of a file in whose slots grow; what comes after is not looked at.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<SlotHashes>> {
    let (_, log) = read_whole(path)?;
    Ok(log)
}

/// Reads all records, and the byte at which the last of them ends.
fn read_whole(path: &Path) -> io::Result<(u64, Vec<SlotHashes>)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, Vec::new())),
        Err(error) => return Err(error),
    };
    let mut at = data_begins(&file)? / RECORD_BYTES as u64 * RECORD_BYTES as u64;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.read_to_end(&mut bytes)?;
    let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
    let forgotten = records.iter().take_while(|record| **record == FORGOTTEN);
    let records = &records[forgotten.count()..];
    at += (bytes.len() / RECORD_BYTES - records.len()) as u64 * RECORD_BYTES as u64;
    let mut log: Vec<SlotHashes> = Vec::with_capacity(records.len());
    for hashes in records.iter().map(decode) {
        let last = log.last().map_or(0, |last| last.slot);
        if hashes.slot <= last {
            break;
        }
        log.push(hashes);
    }
    let end = match log.len() {
        0 => 0,
        count => at + (count * RECORD_BYTES) as u64,
    };
    Ok((end, log))
}

/// The first byte that is not in a hole.
fn data_begins(file: &File) -> io::Result<u64> {
    match lseek(file, 0, Whence::SeekData) {
        Ok(at) => Ok(at.unsigned_abs()),
        Err(Errno::ENXIO) => Ok(file.metadata()?.len()),
        // A file system without holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The writing side. Hashes of slots that are there already are left out: a server that was started
/// again repeats them.
#[derive(Debug)]
pub struct HashLog {
    path: PathBuf,
    file: Option<File>,
    last: u64,
    batch: Vec<u8>,
    due: Option<Instant>,
}

impl HashLog {
    /// Opens the file and continues after its last record.
    pub fn open(data_dir: &Path) -> Self {
        let path = path(data_dir);
        let mut log = Self {
            path,
            file: None,
            last: 0,
            batch: Vec::new(),
            due: None,
        };
        if let Err(error) = log.resume() {
            log.give_up(&error);
        }
        log
    }

    fn resume(&mut self) -> io::Result<()> {
        let (end, known) = read_whole(&self.path)?;
        self.last = known.last().map_or(0, |last| last.slot);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true);
        let mut file = file.read(true).open(&self.path)?;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        self.file = Some(file);
        Ok(())
    }

    /// Notes the hashes of a slot.
    pub fn note(&mut self, hashes: &SlotHashes, now: Instant) {
        if hashes.slot <= self.last || self.file.is_none() {
            return;
        }
        self.last = hashes.slot;
        self.batch.extend_from_slice(&encode(hashes));
        self.due.get_or_insert(now + WAIT_MOST);
        if self.batch.len() >= BATCH_RECORDS * RECORD_BYTES {
            self.write();
        }
    }

    /// Drops all records: the server was faulty and begins again.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.due = None;
        self.last = 0;
        if let Some(file) = &mut self.file
            && let Err(error) = file.set_len(0).and_then(|()| file.rewind())
        {
            self.give_up(&error);
        }
    }

    /// Drops the records before slot `first`, where the log begins.
    pub fn forget(&mut self, first: u64) {
        self.write();
        let Some(file) = &self.file else { return };
        if let Err(error) = forget(file, first) {
            tracing::debug!(
                "hashes of slots before {first} stay in {:?}: {error}",
                self.path
            );
        }
    }

    /// The time to call [`HashLog::tick`].
    pub fn wakeup(&self) -> Option<Instant> {
        self.due
    }

    /// Writes what has waited long enough.
    pub fn tick(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.write();
        }
    }

    fn write(&mut self) {
        self.due = None;
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&self.batch)
        {
            self.give_up(&error);
        }
        self.batch.clear();
    }

    fn give_up(&mut self, error: &io::Error) {
        let path = self.path.display();
        tracing::warn!("hashes are not recorded any more in {path}: {error}");
        self.file = None;
    }
}

/// Makes a hole of the records before slot `first`.
fn forget(file: &File, first: u64) -> io::Result<()> {
    let slot_of = |record: u64| -> io::Result<u64> {
        let mut bytes = [0; RECORD_BYTES];
        file.read_exact_at(&mut bytes, record * RECORD_BYTES as u64)?;
        Ok(decode(&bytes).slot)
    };
    // Slots grow, and in a hole they are 0.
    let (mut low, mut high) = (0, file.metadata()?.len() / RECORD_BYTES as u64);
    while low < high {
        let middle = low.midpoint(high);
        match slot_of(middle)? < first {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    if low == 0 {
        return Ok(());
    }
    let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let bytes = i64::try_from(low * RECORD_BYTES as u64).map_err(io::Error::other)?;
    Ok(fallocate(file, how, 0, bytes)?)
}

impl Drop for HashLog {
    fn drop(&mut self) {
        self.write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(slot: u64) -> SlotHashes {
        SlotHashes {
            slot,
            output_hash: slot * 3,
            schedule_hash: !slot,
        }
    }

    fn slots(dir: &Path) -> Vec<u64> {
        let known = read(&path(dir)).unwrap();
        assert!(known.iter().all(|it| *it == hashes(it.slot)));
        known.iter().map(|it| it.slot).collect()
    }

    #[test]
    fn slots_are_recorded_once_over_many_runs() {
        let dir = tempfile::tempdir().unwrap();
        let now = Instant::now();
        for last in [3, 1000, 1001] {
            let mut log = HashLog::open(dir.path());
            for slot in (1..=last).filter(|slot| slot % 5 != 0) {
                log.note(&hashes(slot), now);
            }
        }
        let expected: Vec<u64> = (1..=1001).filter(|slot| slot % 5 != 0).collect();
        assert_eq!(slots(dir.path()), expected);
    }

    #[test]
    fn a_record_does_not_wait_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut log = HashLog::open(dir.path());
        log.note(&hashes(1), now);
        log.tick(now);
        assert_eq!(slots(dir.path()), [0; 0]);
        let due = log.wakeup().unwrap();
        log.tick(due);
        assert_eq!((slots(dir.path()), log.wakeup()), (vec![1], None));
    }

    #[test]
    fn what_the_log_has_dropped_takes_no_room() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let used = || std::fs::metadata(path(dir.path())).unwrap().blocks();
        let mut log = HashLog::open(dir.path());
        log.forget(7);
        for slot in 1..=100_000 {
            log.note(&hashes(2 * slot), now);
        }
        log.forget(1);
        let before = used();
        for first in [50_000, 30_000, 180_001] {
            log.forget(first);
        }
        let expected = |last: u64| (90_001..=last).map(|slot| 2 * slot).collect::<Vec<_>>();
        assert_eq!(slots(dir.path()), expected(100_000));
        // Unless the file system has no holes.
        let holes = used() < before;
        assert!(!holes || used() <= before / 9, "{before} {}", used());
        log.note(&hashes(200_002), now);
        drop(log);
        assert_eq!(slots(dir.path()), expected(100_001));
        let mut log = HashLog::open(dir.path());
        log.note(&hashes(200_002), now);
        log.note(&hashes(200_004), now);
        drop(log);
        assert_eq!(slots(dir.path()), expected(100_002));
        let mut log = HashLog::open(dir.path());
        log.forget(1_000_000);
        assert_eq!(slots(dir.path()), [0; 0]);
        drop(log);
        let mut log = HashLog::open(dir.path());
        log.note(&hashes(3), now);
        drop(log);
        assert_eq!(slots(dir.path()), [3]);
    }

    #[test]
    fn a_torn_or_senseless_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = [encode(&hashes(1)), encode(&hashes(2)), [0; 24]].concat();
        bytes.extend_from_slice(b"torn");
        std::fs::write(path(dir.path()), bytes).unwrap();
        let mut log = HashLog::open(dir.path());
        log.note(&hashes(2), Instant::now());
        log.note(&hashes(7), Instant::now());
        drop(log);
        assert_eq!(slots(dir.path()), [1, 2, 7]);
        HashLog::open(dir.path()).clear();
        assert_eq!(slots(dir.path()), [0; 0]);
    }
}
