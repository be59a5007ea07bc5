//! A server that is not wrapped, for wrapped ones to connect to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// It lives as long as the tests do; whoever is connected keeps its thread.
#[derive(Clone, Debug)]
pub struct Outside {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    /// Sends back what it receives.
    pub fn echo() -> Self {
        Self::start(|_, stream| {
            let mut to = stream.try_clone().unwrap();
            // That whoever connected is gone concerns nobody here.
            let _ = std::io::copy(&mut { stream }, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })
    }

    /// Sends back each line, and keeps it.
    pub fn lines() -> Self {
        Self::start(|outside, stream| {
            let mut to = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let answer = format!("{line}\n");
                outside.lines.lock().unwrap().push(line);
                if to.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        })
    }

    fn start(serve: fn(&Self, TcpStream)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let outside = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            lines: Arc::default(),
        };
        let server = outside.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                server.connections.fetch_add(1, Ordering::SeqCst);
                let server = server.clone();
                thread::spawn(move || serve(&server, stream));
            }
        });
        outside
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Lines received so far, in order of arrival.
    pub fn received(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// Everything up to the end of the stream.
pub fn all_of(mut stream: TcpStream) -> String {
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}
