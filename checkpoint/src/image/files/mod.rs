//! A snapshot of files: whole trees, as an index and numbered plain files.
//!
//! ```text
//! DIR/files.index      every name, its kind, owner, mode, times, attributes
//! DIR/files/000001 …   contents
//! ```
//!
//! The trees must not change meanwhile. A content is shared with the tree where the file system can
//! (reflink), else with the snapshot before it if the file has not changed since (hard link), else it is
//! copied without its holes. The snapshot before is therefore never written to again, by anybody.
//!
//! Contents may be compressed later (`compressed_file`); links are then to what is compressed.
//!
//! Whether a file has changed is told by its change time, as for any incremental backup. Two cases escape
//! it: changes within a tick of the kernel's clock after the last look, and writing through a mapping that
//! was written to before. The first is met by a margin, the second by the caller, who names such files.
//!
//! Deliberately absent: checksums (the manifest's), identities of files as the server sees them.

mod attributes;
mod content;
mod index;
mod restore;
mod take;

pub(crate) use index::own_contents;
pub use index::{CONTENTS, INDEX, Index, read_index};
pub use restore::bring_back;
pub use take::{Tree, take};

#[cfg(test)]
mod tests;
