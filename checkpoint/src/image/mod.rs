//! Images of a server: its processes, its files, and what the kernel called them.
//!
//! * [`imager`]: dumps a server and restores it;
//! * [`files`]: snapshots of its files; `inode_map`: what the kernel called them;
//! * [`compressed_file`]: files of an image that are kept compressed.

pub mod compressed_file;
pub mod files;
pub mod imager;
mod inode_map;

pub use compressed_file::{Compression, compress_image};
pub use imager::{Imager, Memory, RestoredServer};
