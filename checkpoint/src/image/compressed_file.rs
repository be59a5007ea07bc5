//! Files of an image that are stored compressed: `NAME.zst`, a zstd frame, replaces `NAME`.
//!
//! Large files that belong to this image alone are compressed: CRIU's files, and contents that are
//! copies. A content that shares its blocks with the server's own file, or that is a link to an
//! earlier image, is not. Checksums cover the stored form, so that verification, export and
//! transfer of a checkpoint need not know about compression.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Extension of compressed files.
const SUFFIX: &str = "zst";
/// Smaller files are not compressed.
const BYTES_MIN: u64 = 64 << 10;
/// Unit of reading, and of detecting holes.
const BLOCK_BYTES: usize = 64 << 10;

/// Replaces a file by its compressed form, unless it is small or has other names. `progress` is
/// called with the number of bytes of each read.
pub(super) fn compress(path: &Path, level: i32, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.nlink() > 1 || found.len() < BYTES_MIN {
        return Ok(());
    }
    let mut from = File::open(path)?;
    let to = compressed_name(path);
    let mut encoder = zstd::Encoder::new(File::create_new(&to)?, level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(found.len()))?;
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let count = from.read(&mut block)?;
        if count == 0 {
            break;
        }
        encoder.write_all(&block[..count])?;
        progress(count as u64);
    }
    encoder.finish()?;
    fs::remove_file(path)
}

/// Returns the name of the compressed form of `path`.
pub(crate) fn compressed_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SUFFIX);
    name.into()
}

/// Creates the file `to` with `mode` from the compressed form of `path`. Returns false if there is
/// none.
pub(crate) fn decompress(path: &Path, to: &Path, mode: u32) -> io::Result<bool> {
    use std::os::unix::fs::OpenOptionsExt;
    let from = match File::open(compressed_name(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let mut options = File::options();
    let mut to = options.write(true).create_new(true).mode(mode).open(to)?;
    let mut decoder = zstd::Decoder::new(from)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut length = 0;
    loop {
        let count = fill(&mut decoder, &mut block)?;
        if count == 0 {
            break;
        }
        length += count as u64;
        if block[..count].iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Start(length))?;
        } else {
            to.write_all(&block[..count])?;
        }
    }
    to.set_len(length)?;
    Ok(true)
}

/// Reads a whole block, or what is left.
fn fill(from: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < block.len() {
        match from.read(&mut block[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Creates the directory `to` with all files of `directory`, decompressed. Returns false, and
/// creates nothing, if none is compressed.
///
/// # Errors
/// A file cannot be read or created, or is damaged; `to` is incomplete then.
pub fn decompress_all(directory: &Path, to: &Path) -> io::Result<bool> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(PathBuf::from(entry?.file_name()));
    }
    let is_compressed = |name: &PathBuf| name.extension() == Some(OsStr::new(SUFFIX));
    if !names.iter().any(is_compressed) {
        return Ok(false);
    }
    fs::create_dir_all(to)?;
    for name in names {
        if is_compressed(&name) {
            let plain = name.with_extension("");
            decompress(&directory.join(&plain), &to.join(&plain), 0o600)?;
        } else {
            fs::copy(directory.join(&name), to.join(&name))?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_with_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, back) = (dir.path().join("pages"), dir.path().join("back"));
        let mut content = vec![7; 3 * BLOCK_BYTES];
        content[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0);
        content.extend(vec![0; BLOCK_BYTES + 5]);
        fs::write(&path, &content).unwrap();
        let mut read = 0;
        compress(&path, 1, &mut |more| read += more).unwrap();
        assert_eq!(read, content.len() as u64);
        assert!(!path.exists() && fs::metadata(compressed_name(&path)).unwrap().len() < BYTES_MIN);
        assert!(decompress(&path, &back, 0o640).unwrap());
        assert_eq!(fs::read(&back).unwrap(), content);
        let found = fs::metadata(&back).unwrap();
        assert_eq!(found.mode() & 0o777, 0o640);
        assert!(found.blocks() * 512 < content.len() as u64);
        // A cut is noticed.
        let bytes = fs::read(compressed_name(&path)).unwrap();
        fs::write(compressed_name(&path), &bytes[..bytes.len() - 3]).unwrap();
        assert!(decompress(&path, &dir.path().join("cut"), 0o600).is_err());
    }

    #[test]
    fn what_is_small_or_shared_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (small, shared) = (dir.path().join("small"), dir.path().join("shared"));
        fs::write(&small, vec![0; 1000]).unwrap();
        fs::write(&shared, vec![0; 1 << 20]).unwrap();
        fs::hard_link(&shared, dir.path().join("again")).unwrap();
        for path in [&small, &shared] {
            compress(path, 1, &mut |_| ()).unwrap();
            assert!(path.exists() && !compressed_name(path).exists());
        }
        let plain = dir.path().join("plain");
        assert!(!decompress_all(dir.path(), &plain).unwrap() && !plain.exists());
        let large = dir.path().join("large");
        fs::write(&large, vec![1; 1 << 20]).unwrap();
        compress(&large, 1, &mut |_| ()).unwrap();
        assert!(decompress_all(dir.path(), &plain).unwrap());
        assert_eq!(fs::read(plain.join("large")).unwrap(), vec![1; 1 << 20]);
        assert_eq!(fs::read(plain.join("small")).unwrap(), vec![0; 1000]);
    }
}
