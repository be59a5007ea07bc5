//! Files by name: opening, `stat`, directories, names of temporary files.
//!
//! * [`open`], [`sync`] (`fsync`), [`lock`] (`flock`, record locks), [`lockf`]
//! * [`stat`], [`statfs`]; [`inode`]: the numbers that the server is shown
//! * [`readdir`], and [`getdents`] for those who ask the kernel
//! * [`path`]: `getcwd`, `realpath`, `readlink`; [`mkstemp`]; [`shm`]

pub(crate) mod getdents;
pub(crate) mod inode;
pub(crate) mod lock;
pub(crate) mod lockf;
pub(crate) mod mkstemp;
pub(crate) mod open;
pub(crate) mod path;
pub(crate) mod readdir;
pub(crate) mod shm;
pub(crate) mod stat;
pub(crate) mod statfs;
pub(crate) mod sync;
