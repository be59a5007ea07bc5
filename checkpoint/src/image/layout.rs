//! Names within an image, and the encoding of its indexes.

/// CRIU's part of an image.
pub(super) const PROCESS: &str = "process";
/// What the kernel called the server's files.
pub(super) const INODE_MAP: &str = "known";
