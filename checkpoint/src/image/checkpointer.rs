//! The interface of whatever dumps and restores a server.

use crate::error::CheckpointError;
use crate::store::manifest::Position;
use std::path::Path;

/// Dumps and restores the server of one replica. Other files in the directory are the caller's.
pub trait Checkpointer {
    /// A server that was restored.
    type Server;

    /// Dumps the process tree of `server_pid` into `directory`, which exists and is empty; the tree
    /// continues to run afterwards. The caller has parked every thread.
    ///
    /// Regular files, directories and symbolic links may be written; they need not be synced. Only
    /// names and contents survive a transfer: owners, modes and times that matter have to be inside
    /// of a file.
    ///
    /// # Errors
    /// See [`CheckpointError`]. The server continues to run, except after
    /// [`CheckpointError::Interrupted`], when the caller has to kill it. The caller removes what is
    /// left in `directory`.
    fn dump(
        &mut self,
        server_pid: u32,
        position: Position,
        directory: &Path,
    ) -> Result<(), CheckpointError>;

    /// Restores the server from a directory that [`Checkpointer::dump`] wrote, parked as it was.
    /// The caller has verified the directory.
    ///
    /// # Errors
    /// See [`CheckpointError`]; no process is left then.
    fn restore(&mut self, directory: &Path) -> Result<Self::Server, CheckpointError>;
}
