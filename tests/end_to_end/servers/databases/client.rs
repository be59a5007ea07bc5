//! A stock client that reads requests from its input, with one connection that it keeps.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running client program.
pub struct Client {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            requests: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub fn send(&mut self, request: &str) {
        self.requests.write_all(request.as_bytes()).unwrap();
    }

    /// The next line of its output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let bytes = self.answers.read_line(&mut line).unwrap();
        assert!(bytes > 0, "the client ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// Sends a statement of SQL, which answers one line.
    #[track_caller]
    pub fn ask(&mut self, statement: &str) -> String {
        self.send(statement);
        self.send(";\n");
        self.line()
    }

    /// Ends the program, which must say that all went well.
    #[track_caller]
    pub fn end(mut self) {
        drop(self.requests);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the client: {status}");
    }
}
