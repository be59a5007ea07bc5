//! The lifeline of a server's process tree: a socket pair that ties it to its node. The kernel
//! kills every process
//! of the tree when the node's end closes, so also when the node is killed, and the node sees its end
//! hang up when the last process of the tree is gone.
//!
//! The death signal of a parent (`PR_SET_PDEATHSIG`) would not do: a daemon's parent ends on purpose.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Processes that were killed and are not gone after this long hang in the kernel.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Which signal a descriptor sends when it can be read (`<fcntl.h>`).
const F_SETSIG: i32 = 10;

/// The node's end. The tree is killed when it is dropped.
#[derive(Debug)]
pub struct Lifeline(UnixStream);

impl Lifeline {
    /// The node's end and the tree's.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), theirs.into()))
    }

    /// Kills all processes of the tree, and says whether they are gone.
    #[must_use]
    pub fn cut(mut self) -> bool {
        // Nobody is left to be told: the end of the stream comes at once.
        let _ = self.0.shutdown(Shutdown::Write);
        let _ = self.0.set_read_timeout(Some(END_PATIENCE));
        loop {
            match self.0.read(&mut [0]) {
                // A handler has run on this thread; with a timeout the kernel does not go on by itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return matches!(outcome, Ok(0)),
            }
        }
    }
}

/// In the new process, which leads its own group: from now on the group dies with the other end. No
/// allocation, no locks.
pub(super) fn tie_group(theirs: BorrowedFd<'_>) -> io::Result<()> {
    let group = -nix::unistd::getpid().as_raw();
    let fd = theirs.as_raw_fd();
    // SAFETY: plain integers.
    let owned = unsafe { libc::fcntl(fd, libc::F_SETOWN, group) } >= 0
        // SAFETY: the same.
        && unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGKILL) } >= 0;
    if !owned {
        return Err(io::Error::last_os_error());
    }
    let flags = OFlag::from_bits_retain(fcntl(theirs, FcntlArg::F_GETFL)?);
    fcntl(theirs, FcntlArg::F_SETFL(flags | OFlag::O_ASYNC))?;
    Ok(())
}
