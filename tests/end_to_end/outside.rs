//! A server that is not wrapped, for wrapped ones to connect to.

use crate::harness::PATIENCE;
use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
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
        Self::start(Self::serve_lines)
    }

    pub fn lines_at(at: SocketAddr) -> Self {
        Self::start_at(at, Self::serve_lines)
    }

    /// Serves files over HTTP/1.1, head and body in one piece.
    pub fn pages_at(at: SocketAddr, files: Vec<(String, Vec<u8>)>) -> Self {
        Self::start_at(at, move |_, stream| {
            // That whoever connected is gone concerns nobody here.
            let _ = serve_pages(&files, stream);
        })
    }

    fn serve_lines(&self, stream: TcpStream) {
        let mut to = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let answer = format!("{line}\n");
            self.lines.lock().unwrap().push(line);
            if to.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn start(serve: impl Fn(&Self, TcpStream) + Clone + Send + 'static) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(any, serve)
    }

    fn start_at(at: SocketAddr, serve: impl Fn(&Self, TcpStream) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let outside = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            lines: Arc::default(),
        };
        let server = outside.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                server.connections.fetch_add(1, Ordering::SeqCst);
                let (server, serve) = (server.clone(), serve.clone());
                thread::spawn(move || serve(&server, stream));
            }
        });
        outside
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What was answered has arrived, and nothing has arrived twice.
    pub fn check_lines(&self, numberers: &[Numberer]) -> usize {
        let received = self.received();
        let once: HashSet<&String> = received.iter().collect();
        assert_eq!(once.len(), received.len(), "a line has arrived twice");
        let answered: Vec<&String> = numberers.iter().flat_map(|it| &it.answered).collect();
        for line in &answered {
            assert!(once.contains(line), "{line} was answered by nobody");
        }
        answered.len()
    }

    /// Lines received so far, in order of arrival.
    pub fn received(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// A client that sends lines, each with a new number, and counts the answers. A line whose connection
/// breaks before the answer may have arrived or not; it is not sent again.
#[derive(Debug)]
pub struct Numberer {
    pub name: &'static str,
    pub address: SocketAddr,
    pub stream: Option<BufReader<TcpStream>>,
    pub number: usize,
    pub answered: Vec<String>,
    pub breaks: usize,
}

impl Numberer {
    pub fn new(name: &'static str, address: SocketAddr) -> Self {
        Self {
            name,
            address,
            stream: None,
            number: 0,
            answered: Vec::new(),
            breaks: 0,
        }
    }

    /// One line and its answer. Panics at any other answer than the right one.
    pub fn ask(&mut self) {
        self.number += 1;
        let line = format!("{}-{}\n", self.name, self.number);
        match self.exchange(&line) {
            Ok(answer) => {
                assert_eq!(answer, line);
                self.answered.push(line.trim_end().to_owned());
            }
            Err(_) => {
                self.stream = None;
                self.breaks += 1;
            }
        }
    }

    fn exchange(&mut self, line: &str) -> io::Result<String> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                none.insert(BufReader::new(stream))
            }
        };
        stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        match stream.read_line(&mut answer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer),
        }
    }
}

/// Everything up to the end of the stream.
pub fn all_of(mut stream: TcpStream) -> String {
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

fn serve_pages(files: &[(String, Vec<u8>)], stream: TcpStream) -> io::Result<()> {
    let mut to = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(first) = lines.next() {
        let first = first?;
        for field in lines.by_ref() {
            if field?.is_empty() {
                break;
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let found = files.iter().find(|(name, _)| path[1..] == **name);
        let (status, body): (_, &[u8]) = match found {
            Some((_, body)) => ("200 OK", body),
            None => ("404 Not Found", b""),
        };
        let size = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n");
        to.write_all(&[head.as_bytes(), body].concat())?;
    }
    Ok(())
}
