//! Names within an image.

/// The directory of CRIU's images.
pub(super) const PROCESS: &str = "process";
/// The file of the inode map.
pub(super) const INODE_MAP: &str = "known";
