//! Images of a server: its processes, its files, and what the kernel called them.
//!
//! * [`imager`]: dumps a server and restores it;
//! * [`files`]: snapshots of its files; `inode_map`: what the kernel called them;
//! * `processes`: its processes as `/proc` shows them;
//! * `compress`, `compressed_file`: files of an image that are kept compressed.

mod checkpointer;
mod compress;
mod compressed_file;
mod compression;
pub mod files;
pub mod imager;
mod inode_map;
mod layout;
mod processes;

pub use checkpointer::Checkpointer;
pub use compress::compress_image;
pub use compression::Compression;
pub use imager::{Imager, Memory, RestoredServer};
