//! Snapshots of files: whole directory trees, as an index and numbered plain files.
//!
//! ```text
//! DIR/files.index      every name, its kind, owner, mode, times, attributes
//! DIR/files/000001 …   contents
//! ```
//!
//! The trees must not change while a snapshot is taken. The content of a file shares its blocks
//! with the file where the file system supports that (reflink). Otherwise, if the file has not
//! changed, it is a hard link to the content in the previous snapshot; if it has, it is a copy
//! without its holes. A snapshot is therefore never written to again.
//!
//! Contents may be compressed later (`compressed_file`); links are then to the compressed form.
//!
//! A file is considered changed if its change time differs, as in any incremental backup. Two kinds
//! of changes do not show there: those within a tick of the kernel's clock after the last snapshot,
//! and writes through a mapping that was written to before. A margin covers the first; the caller
//! names the files of the second.
//!
//! Deliberately absent: checksums (they are in the manifest), and inode numbers as the server sees
//! them.

mod attributes;
mod content;
mod index;
mod restore;
mod take;

pub(crate) use index::own_contents;
pub use index::{CONTENTS, INDEX, Index, read_index};
pub use restore::restore;
pub use take::{Tree, take};

#[cfg(test)]
mod tests;
