//! Compresses the files of an image after the dump.

use super::compressed_file::compress;
use super::compression::Compression;
use super::files;
use super::layout::PROCESS;
use crate::error::with_path;
use std::fs;
use std::io;
use std::path::Path;

/// Compresses the image in `directory`, which nothing uses yet. `progress` is called with the
/// number of bytes of each read.
///
/// # Errors
/// A file cannot be read or written; the image is unusable then.
pub fn compress_image(
    directory: &Path,
    compression: Compression,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let Compression::Zstd(level) = compression else {
        return Ok(());
    };
    let process = directory.join(PROCESS);
    for entry in fs::read_dir(&process).map_err(with_path(&process))? {
        let path = entry?.path();
        compress(&path, level, progress).map_err(with_path(&path))?;
    }
    for path in files::own_contents(directory)? {
        compress(&path, level, progress).map_err(with_path(&path))?;
    }
    Ok(())
}
