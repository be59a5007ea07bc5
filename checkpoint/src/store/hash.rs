//! Length and checksum of a file's content.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

const READ_BYTES: usize = 256 << 10;

/// Returns length and XXH3 hash (128 bits) of a file's content. `progress` is called with the
/// number of bytes of each read.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<(u64, u128)> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((length, hash.digest128())),
            Ok(count) => {
                hash.update(&buffer[..count]);
                length += count as u64;
                progress(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
