//! The keys on disk: one redb database with one table, in a directory of its own.
//!
//! The directory is locked (`flock`) while the store has it open. A new database is created under
//! another name and renamed when it is complete, because a crash in between would otherwise leave a
//! file that cannot be opened.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::error::StoreError;
use crate::options::SyncMode;
use crate::view::{Blob, Writes};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");
const FILE_NAME: &str = "store.redb";
const NEW_FILE_NAME: &str = "store.redb.new";
/// Reads come from memory; redb caches only the pages that writes go through.
const CACHE_BYTES: usize = 64 << 20;

/// An open database.
pub(crate) struct Disk {
    database: Database,
    /// Holds the lock on the data directory.
    _directory: File,
}

impl Disk {
    /// Opens the database in `directory`, or creates one.
    pub(crate) fn open(directory: &Path, sync: SyncMode) -> Result<Self, StoreError> {
        let lock = lock_directory(directory)?;
        let path = directory.join(FILE_NAME);
        if !path.exists() {
            create(directory, &path, &lock, sync)?;
        }
        let database = open_database(&path, sync)?;
        Ok(Disk {
            database,
            _directory: lock,
        })
    }

    /// Reads all keys.
    pub(crate) fn load(&self) -> Result<BTreeMap<Blob, Blob>, redb::Error> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let mut keys = BTreeMap::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            keys.insert(Blob::from(key.value()), Blob::from(value.value()));
        }
        Ok(keys)
    }

    /// Writes a batch, all or nothing, and returns when it is durable (see [`SyncMode`]).
    pub(crate) fn commit(&self, writes: &Writes) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in writes {
                match value {
                    Some(value) => drop(table.insert(&key[..], &value[..])?),
                    None => drop(table.remove(&key[..])?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn lock_directory(directory: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::DataDir {
        path: directory.to_owned(),
        source,
    };
    fs::create_dir_all(directory).map_err(failed)?;
    let lock = File::open(directory).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::DataDirInUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn create(directory: &Path, path: &Path, lock: &File, sync: SyncMode) -> Result<(), StoreError> {
    let failed = |source| StoreError::DataDir {
        path: directory.to_owned(),
        source,
    };
    let new = directory.join(NEW_FILE_NAME);
    File::create(&new).map_err(failed)?; // truncates what a crash may have left
    let database = open_database(&new, sync)?;
    create_table(&database).map_err(|error| unusable(&new, error))?;
    drop(database);
    fs::rename(&new, path).map_err(failed)?;
    if sync == SyncMode::Full {
        lock.sync_all().map_err(failed)?;
        sync_parent(directory).map_err(failed)?;
    }
    Ok(())
}

/// Makes the name of the directory durable, which may be new in its parent.
fn sync_parent(directory: &Path) -> io::Result<()> {
    match directory.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn create_table(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(TABLE)?;
    transaction.commit()?;
    Ok(())
}

fn open_database(path: &Path, sync: SyncMode) -> Result<Database, StoreError> {
    let open = || -> Result<Database, redb::Error> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let backend = Backend {
            file: FileBackend::new(file)?,
            sync,
        };
        Ok(Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)?)
    };
    open().map_err(|error| unusable(path, error))
}

/// Wraps an error of the database about the file at `path`.
pub(crate) fn unusable(path: &Path, source: redb::Error) -> StoreError {
    StoreError::Database {
        path: path.to_owned(),
        source: Box::new(source),
    }
}

/// Returns the path of the database in a data directory.
pub(crate) fn database_path(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

/// A file that is synced or not. It does not support redb's byte-range locks: the directory is
/// locked.
#[derive(Debug)]
struct Backend {
    file: FileBackend,
    sync: SyncMode,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.sync {
            SyncMode::Full => self.file.sync_data(),
            SyncMode::None => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(writes: &[(&str, Option<&str>)]) -> Writes {
        let blob = |text: &str| Blob::from(text.as_bytes());
        writes
            .iter()
            .map(|(key, value)| (blob(key), value.map(blob)))
            .collect()
    }

    #[test]
    fn batches_are_there_after_opening_again() {
        for sync in [SyncMode::Full, SyncMode::None] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("made/on/the/way");
            let disk = Disk::open(&path, sync).unwrap();
            assert!(disk.load().unwrap().is_empty());
            disk.commit(&batch(&[("a", Some("1")), ("b", Some("2"))]))
                .unwrap();
            disk.commit(&batch(&[("a", None), ("b", Some("3")), ("none", None)]))
                .unwrap();
            drop(disk);
            let keys = Disk::open(&path, sync).unwrap().load().unwrap();
            assert_eq!(
                keys,
                BTreeMap::from([(Blob::from(*b"b"), Blob::from(*b"3"))])
            );
        }
    }

    #[test]
    fn a_directory_is_opened_once_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path(), SyncMode::Full).unwrap();
        let second = Disk::open(directory.path(), SyncMode::Full).map(drop);
        assert!(
            matches!(second, Err(StoreError::DataDirInUse(_))),
            "{second:?}"
        );
        drop(disk);
        Disk::open(directory.path(), SyncMode::Full)
            .map(drop)
            .unwrap();
    }

    #[test]
    fn a_half_made_database_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NEW_FILE_NAME), vec![7; 5000]).unwrap();
        Disk::open(directory.path(), SyncMode::Full)
            .map(drop)
            .unwrap();
    }

    #[test]
    fn what_is_no_database_is_refused_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = database_path(directory.path());
        fs::write(&path, vec![7; 5000]).unwrap();
        let opened = Disk::open(directory.path(), SyncMode::Full).map(drop);
        assert!(
            matches!(opened, Err(StoreError::Database { .. })),
            "{opened:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), vec![7; 5000]);
    }
}
