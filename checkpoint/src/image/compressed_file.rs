//! Parts of an image that are kept compressed: `NAME.zst`, a zstd frame, stands for `NAME`.
//!
//! Compressed is what is large and only this image's: CRIU's files, and contents that are copies. A
//! content that shares its blocks with the server's own file, or is a link to that of an earlier image,
//! stays what it is. Checksums are over what is stored, so whoever verifies, exports or fetches a
//! checkpoint need not know of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the names of compressed files end with.
const SUFFIX: &str = "zst";
/// Smaller files stay as they are.
const BYTES_MIN: u64 = 64 << 10;
/// Read, or left as a hole, at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// Replaces a file by its compressed form, unless it is small or has other names.
pub(super) fn compress(path: &Path, level: i32, seen: &mut dyn FnMut(u64)) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.nlink() > 1 || found.len() < BYTES_MIN {
        return Ok(());
    }
    let mut from = File::open(path)?;
    let to = stored(path);
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
        seen(count as u64);
    }
    encoder.finish()?;
    fs::remove_file(path)
}

/// The name under which a file lies there if it is compressed.
pub(crate) fn stored(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SUFFIX);
    name.into()
}

/// Puts what `path` stands for into a file of `mode` that is made, if it is compressed; false: it is not.
pub(crate) fn expand(path: &Path, to: &Path, mode: u32) -> io::Result<bool> {
    use std::os::unix::fs::OpenOptionsExt;
    let from = match File::open(stored(path)) {
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

/// As many bytes as there are, up to a whole block.
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

/// Makes all files of `directory` again in `to`, which is made, if any is compressed; false: none is, and
/// nothing is made.
pub(crate) fn expand_all(directory: &Path, to: &Path) -> io::Result<bool> {
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
            expand(&directory.join(&plain), &to.join(&plain), 0o600)?;
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
        assert!(!path.exists() && fs::metadata(stored(&path)).unwrap().len() < BYTES_MIN);
        assert!(expand(&path, &back, 0o640).unwrap());
        assert_eq!(fs::read(&back).unwrap(), content);
        let found = fs::metadata(&back).unwrap();
        assert_eq!(found.mode() & 0o777, 0o640);
        assert!(found.blocks() * 512 < content.len() as u64);
        // A cut is noticed.
        let bytes = fs::read(stored(&path)).unwrap();
        fs::write(stored(&path), &bytes[..bytes.len() - 3]).unwrap();
        assert!(expand(&path, &dir.path().join("cut"), 0o600).is_err());
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
            assert!(path.exists() && !stored(path).exists());
        }
        let plain = dir.path().join("plain");
        assert!(!expand_all(dir.path(), &plain).unwrap() && !plain.exists());
        let large = dir.path().join("large");
        fs::write(&large, vec![1; 1 << 20]).unwrap();
        compress(&large, 1, &mut |_| ()).unwrap();
        assert!(expand_all(dir.path(), &plain).unwrap());
        assert_eq!(fs::read(plain.join("large")).unwrap(), vec![1; 1 << 20]);
        assert_eq!(fs::read(plain.join("small")).unwrap(), vec![0; 1000]);
    }
}
