//! Extended attributes: capabilities, access lists, and the marks of an overlay.

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::path::Path;

/// The kernel's limits for the list of names and for a value.
const BYTES_MAX: usize = 65_536;

/// Returns all attributes of a file, or of a symbolic link itself.
pub(super) fn read(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0u8; BYTES_MAX];
    let length = match llistxattr(path, &mut names[..]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let names = names[..length].split_inclusive(|byte| *byte == 0);
    let mut attributes = Vec::new();
    for name in names.filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        let mut value = vec![0u8; BYTES_MAX];
        let length = lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        attributes.push((name.to_bytes().to_vec(), value));
    }
    attributes.sort();
    Ok(attributes)
}

/// Sets an attribute of a file, or of a symbolic link itself.
pub(super) fn set(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(lsetxattr(path, name, value, XattrFlags::empty())?)
}
