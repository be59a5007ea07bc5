//! UNIX sockets of the server that clients may use, published in a directory of the node.
//!
//! The server's own file leads nowhere: nobody listens behind it, or clients would go round the
//! log. A client of a published socket is one like any other for the frontend; its address is the
//! one that stands for the path ([`brolga_tape::unix`]).

use brolga_os::files::short_name;
use brolga_tape::unix::Paths;
use mio::net::{TcpStream, UnixListener};
use mio::{Interest, Registry, Token};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The last part of a server's path, which is its published name. `None`: it has none.
pub(crate) fn published_name(path: &str) -> Option<&str> {
    Path::new(path).file_name()?.to_str()
}

/// The published UNIX sockets of a server, and their directory.
#[derive(Debug)]
pub(crate) struct UnixSockets {
    directory: PathBuf,
    paths: Paths,
}

impl UnixSockets {
    /// Publishes the sockets of a configuration; the directory is made when there are any.
    pub(crate) fn new(directory: PathBuf, paths: Paths) -> Self {
        Self { directory, paths }
    }

    /// The file for a listener; `None` if it has no path.
    pub(crate) fn file(&self, listener: IpAddr) -> Option<PathBuf> {
        let path = self.paths.get(self.paths.of(listener)?);
        let name = published_name(str::from_utf8(path).ok()?)?;
        Some(self.directory.join(name))
    }
}

/// A listening socket with its file, which goes with it.
#[derive(Debug)]
pub(crate) struct Published {
    listener: UnixListener,
    file: PathBuf,
}

impl Published {
    /// Listens. A file that is there is replaced: it is of an earlier run, since a node locks its
    /// directory.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn open(file: PathBuf, registry: &Registry, token: Token) -> io::Result<Self> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_directory, short) = short_name(&file)?;
        let mut listener = UnixListener::bind(short)?;
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self { listener, file })
    }

    /// The next client, as a stream: reading, writing and shutting down are the same for both
    /// kinds.
    ///
    /// # Errors
    /// As of `accept`.
    pub(crate) fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept()?;
        let stream = std::net::TcpStream::from(OwnedFd::from(stream));
        Ok(TcpStream::from_std(stream))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // If it stays, the next one replaces it.
        let _ = fs::remove_file(&self.file);
    }
}
