//! An ordinary server on tokio's multi-threaded runtime: sends back what it receives.
//!
//! It knows nothing of replication; the end-to-end tests wrap it.

use std::env;
use std::io;
use tokio::net::{TcpListener, TcpStream};

const USAGE: &str = "usage: echo_server PORT";

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> io::Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse::<u16>().ok());
    let port = port.ok_or_else(|| io::Error::other(USAGE))?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that goes away is no concern of the others.
        tokio::spawn(async move { echo(stream).await.ok() });
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(())
}
