//! Images of a server: its processes, its files, and the inodes that the kernel gave them.
//!
//! * `checkpointer`: the interface of whatever dumps and restores a server;
//! * `imager`: does both with CRIU, in containers;
//! * `processes`: the server's processes as `/proc` shows them;
//! * [`files`]: snapshots of the server's files; `inode_map`: their inodes and devices;
//! * `compression`, `compress`, `compressed_file`: files of an image that are stored compressed;
//! * `layout`: names within an image.

mod checkpointer;
mod compress;
mod compressed_file;
mod compression;
pub mod files;
mod imager;
mod inode_map;
mod layout;
mod processes;

pub use checkpointer::Checkpointer;
pub use compress::compress_image;
pub use compressed_file::decompress_all;
pub use compression::Compression;
pub use imager::{Imager, LastSnapshot, RestoredServer};
pub use inode_map::InodeMap;
