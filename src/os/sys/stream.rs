//! Options of TCP connections that mio does not have.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Makes the next close of a TCP socket abortive: the peer sees a reset.
///
/// # Errors
/// The socket is closed already.
pub fn reset_on_close(stream: &mio::net::TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Has bytes that are sent out of band delivered in line.
///
/// # Errors
/// The socket is closed already.
pub fn deliver_urgent_in_line(stream: &mio::net::TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_out_of_band_inline(true)
}

/// The outcome of connecting `stream`, after an event of the poll: the local address. `None` while the
/// connection is still being made.
#[must_use]
pub fn connect_outcome(stream: &mio::net::TcpStream) -> Option<io::Result<SocketAddr>> {
    match stream.take_error() {
        Ok(Some(error)) | Err(error) => return Some(Err(error)),
        Ok(None) => {}
    }
    match stream.peer_addr() {
        Ok(_) => Some(stream.local_addr()),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
        Err(error) => Some(Err(error)),
    }
}

/// The error number of a failed system call; EIO where there is none.
#[must_use]
pub fn errno_of(error: &io::Error) -> u8 {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    u8::try_from(errno).unwrap_or(libc::EIO as u8)
}
