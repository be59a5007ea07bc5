//! The interface of whatever dumps and restores a server.

use crate::error::CheckpointError;
use crate::store::manifest::Position;
use std::path::Path;

/// Takes and restores images of one replica's server. What is in the directory besides is its caller's.
pub trait Checkpointer {
    /// A server that was brought back.
    type Server;

    /// Dumps the process tree of `server_pid` into `directory`, which exists and is empty; the tree runs
    /// on afterwards. The caller has seen to it that every thread is parked. What is written may be
    /// regular files, directories and symbolic links; it need not be synced. Of these only names and
    /// contents survive a transfer: owners, modes and times that matter have to be inside a file.
    ///
    /// # Errors
    /// See [`CheckpointError`]; the server runs on all the same, unless it is
    /// [`CheckpointError::Interrupted`]: then the caller has to end it. What is left in `directory` is
    /// the caller's to remove.
    fn dump(
        &mut self,
        server_pid: u32,
        position: Position,
        directory: &Path,
    ) -> Result<(), CheckpointError>;

    /// Brings the server back from a directory that [`Checkpointer::dump`] wrote, parked as it was. The
    /// caller has verified it.
    ///
    /// # Errors
    /// See [`CheckpointError`]; no process is left then.
    fn restore(&mut self, directory: &Path) -> Result<Self::Server, CheckpointError>;
}
