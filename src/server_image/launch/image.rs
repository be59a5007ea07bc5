//! The embedded interposer, as a memory file that servers preload.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// The shared library that `build.rs` built.
pub static IMAGE: &[u8] = include_bytes!(env!("BROLGA_INTERPOSER_IMAGE"));
static DESCRIPTOR: OnceLock<OwnedFd> = OnceLock::new();

/// The memory file, made at the first call and kept. All servers of this process share its pages.
pub fn descriptor() -> io::Result<BorrowedFd<'static>> {
    if let Some(made) = DESCRIPTOR.get() {
        return Ok(made.as_fd());
    }
    // Two threads may both get here; one memory file is dropped again.
    let made = make()?;
    Ok(DESCRIPTOR.get_or_init(|| made).as_fd())
}

fn make() -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"brolga-interposer", flags)?);
    file.write_all(IMAGE)?;
    // A server must not be able to change the code that another server is about to load.
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}
