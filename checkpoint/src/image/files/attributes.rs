//! Extended attributes: capabilities, access lists, and the marks of an overlay.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The kernel's limits for the list of names and for a value.
const BYTES_MAX: usize = 65_536;

/// Returns all attributes of a file, or of a symbolic link itself.
pub(super) fn read(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = c_path(path)?;
    let mut names = vec![0u8; BYTES_MAX];
    // SAFETY: a NUL-terminated path, and room for as many bytes as said.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let length = match checked(length) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let names = names[..length].split_inclusive(|byte| *byte == 0);
    let mut attributes = Vec::new();
    for name in names.filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        let mut value = vec![0u8; BYTES_MAX];
        // SAFETY: NUL-terminated strings, and room for as many bytes as said.
        let length = unsafe {
            libc::lgetxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        value.truncate(checked(length)?);
        attributes.push((name.to_bytes().to_vec(), value));
    }
    attributes.sort();
    Ok(attributes)
}

/// Sets an attribute of a file, or of a symbolic link itself.
pub(super) fn set(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_path(path)?, CString::new(name)?);
    // SAFETY: NUL-terminated strings, and a value as long as said.
    let done = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    checked(done as isize).map(drop)
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
