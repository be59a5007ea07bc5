//! Comparison of two traces: the first operation in which two runs of a server differ.

use crate::clients::connection_table::ConnectionTable;
use crate::divergence::report::{Location, locate};
use brolga_consensus::journal::LogReader;
use brolga_tape::ConnId;
use brolga_tape::entry::{Entry, Event};
use brolga_tape::operation;
use brolga_tape::record::{Record, decode, thread_of};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Reads records one by one.
#[derive(Debug)]
struct Reader {
    file: File,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            buffer: Vec::new(),
            at: 0,
            ended: false,
        })
    }

    /// The next record; `None` at the end, or where a record is torn.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            if let Ok((_, used)) = decode(&self.buffer[self.at..]) {
                let from = self.at;
                self.at += used;
                return Ok(Some(&self.buffer[from..self.at]));
            }
            if self.ended {
                return Ok(None);
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            let whole = self.buffer.len() + READ_BYTES;
            let rest = &mut self.file;
            rest.take(READ_BYTES as u64).read_to_end(&mut self.buffer)?;
            self.ended = self.buffer.len() < whole;
        }
    }
}

/// The first difference of two runs.
#[derive(Clone, Debug)]
pub struct Fork {
    /// The slot.
    pub slot: u64,
    /// Records before, the same in both.
    pub equal_records: u64,
    /// The location, and what each run did there.
    pub place: Option<Location>,
    /// The last ordered operation before, the same in both, and its thread.
    pub before: Option<(u16, u16)>,
    /// The input of the slot, in words.
    pub input: Option<String>,
}

/// The result of comparing two runs.
#[derive(Clone, Debug)]
pub enum Compared {
    /// One run is a beginning of the other.
    Alike {
        /// Both have done this slot.
        slot: u64,
        /// Records of the shorter one.
        records: u64,
    },
    /// The runs differ.
    Forked(Box<Fork>),
}

/// Compares two traces. The log tells what the slot was about; it may be missing.
///
/// # Errors
/// One of the files cannot be read.
pub fn compare(ours: &Path, theirs: &Path, log: Option<&mut LogReader>) -> io::Result<Compared> {
    let (mut one, mut other) = (Reader::open(ours)?, Reader::open(theirs)?);
    let (mut slot, mut equal_records, mut before) = (0, 0, None);
    loop {
        let (mine, their) = (one.next()?, other.next()?);
        let (Some(mine), Some(their)) = (mine, their) else {
            return Ok(Compared::Alike {
                slot,
                records: equal_records,
            });
        };
        if mine != their {
            // The slot under way is the one after the last that was done.
            let (conns, input) = match log {
                Some(log) => context(log, slot),
                None => (ConnectionTable::new(), None),
            };
            let (number, input) = input.unzip();
            return Ok(Compared::Forked(Box::new(Fork {
                slot: number.unwrap_or(slot + 1),
                equal_records,
                place: locate(mine, their, &conns),
                before,
                input,
            })));
        }
        equal_records += 1;
        match decode(mine) {
            Ok((Record::Done { slot: done, .. }, _)) => slot = done,
            Ok((Record::Step { operation, .. }, _)) => before = Some((thread_of(mine), operation)),
            _ => {}
        }
    }
}

/// Reads the log up to the first entry after `done`: the frontends, the number of that
/// entry, and what it brings.
fn context(log: &mut LogReader, done: u64) -> (ConnectionTable, Option<(u64, String)>) {
    let mut conns = ConnectionTable::new();
    for slot in 1..=log.accepted() {
        let Ok(value) = log.read(slot) else {
            break;
        };
        let Ok(entry) = Entry::parse(&value) else {
            continue; // an empty slot
        };
        for event in entry.events().flatten() {
            conns.apply(&event);
        }
        if slot > done {
            let input = describe(&entry, &conns);
            return (conns, Some((slot, input)));
        }
    }
    (conns, None)
}

fn describe(entry: &Entry<'_>, conns: &ConnectionTable) -> String {
    let words: Vec<String> = entry
        .events()
        .flatten()
        .take(4)
        .map(|event| match event {
            Event::Open { conn, .. } => format!("opening of {}", named(conn, conns)),
            Event::Data { conn, bytes, .. } => {
                format!("{} bytes of {}", bytes.len(), named(conn, conns))
            }
            Event::Close { conn, .. } => format!("end of {}", named(conn, conns)),
            Event::Credit { conn, .. } => format!("credit for {}", named(conn, conns)),
            Event::Connected { conn, .. } => format!("answer to {}", named(conn, conns)),
            Event::Datagram { bytes, peer, .. } => {
                format!("a datagram of {} bytes from {peer}", bytes.len())
            }
            Event::FrontendUp { node, .. } => format!("start of replica {node}"),
            Event::FrontendGone { frontend } => format!("end of frontend {frontend:016x}"),
            Event::Signal { signal } => format!("signal {signal}"),
        })
        .collect();
    let more = (entry.event_count as usize).saturating_sub(words.len());
    match (words.is_empty(), more) {
        (true, _) => "nothing but time".into(),
        (false, 0) => words.join(", "),
        (false, more) => format!("{}, and {more} more", words.join(", ")),
    }
}

fn named(conn: ConnId, conns: &ConnectionTable) -> String {
    crate::divergence::report::connection(conn, conns).to_string()
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((thread, operation)) = self.before {
            let name = operation::name(operation).unwrap_or("operation");
            write!(f, "after the same {name} of thread {thread}")?;
        } else {
            write!(f, "before its first ordered operation")?;
        }
        match &self.input {
            Some(input) => write!(f, "; the slot brought: {input}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::traces::{TraceFile, traces};
    use brolga_tape::record::encode_by;
    use std::path::PathBuf;

    fn step(thread: u16, operation: u16, clock: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let record = Record::Step {
            operation,
            clock,
            schedule_hash: clock * 7,
            noted: 0,
        };
        encode_by(thread, &record, |piece| out.extend_from_slice(piece));
        out
    }

    fn done(slot: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let record = Record::Done {
            slot,
            schedule_hash: 1,
            deadline_ns: 0,
            clock: 0,
            idle: true,
            operation: 0,
        };
        encode_by(1, &record, |piece| out.extend_from_slice(piece));
        out
    }

    fn write(dir: &Path, records: &[Vec<u8>]) -> PathBuf {
        let mut file = TraceFile::create(dir).unwrap();
        for record in records {
            file.append(record);
        }
        traces(dir).pop().unwrap()
    }

    #[test]
    fn a_beginning_is_alike_even_when_it_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let mut records: Vec<Vec<u8>> = (1..=50_000).map(|at| step(1, 5, at)).collect();
        records.insert(40_000, done(1));
        records.push(done(2));
        let whole = write(dir.path(), &records);
        let mut torn = records[..45_000].to_vec();
        torn.push(records[45_000][..20].to_vec());
        let torn = write(dir.path(), &torn);
        let compared = compare(&whole, &torn, None).unwrap();
        assert!(
            matches!(compared, Compared::Alike { slot: 1, .. }),
            "{compared:?}"
        );
        let compared = compare(&whole, &whole, None).unwrap();
        assert!(
            matches!(compared, Compared::Alike { slot: 2, .. }),
            "{compared:?}"
        );
        assert_eq!(traces(dir.path()).len(), 2);
    }

    #[test]
    fn the_first_operation_that_differs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let start = [step(1, operation::READ, 1), done(1)];
        let one = [&start[..], &[step(1, operation::LOCK, 2)]].concat();
        let other = [&start[..], &[step(2, operation::WRITE, 2)]].concat();
        let (one, other) = (write(dir.path(), &one), write(dir.path(), &other));
        let Compared::Forked(fork) = compare(&one, &other, None).unwrap() else {
            panic!("they differ");
        };
        assert_eq!((fork.slot, fork.equal_records), (2, 2));
        assert_eq!(fork.before, Some((1, operation::READ)));
        let place = fork.place.unwrap();
        assert_eq!((place.thread, place.their_thread), (1, 2));
        assert!(place.ours.starts_with("goes on with a lock, operation 2"));
        assert!(
            place
                .theirs
                .starts_with("goes on with a write, operation 2")
        );
    }

    #[test]
    fn another_result_of_the_same_call_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let noted = |noted| {
            let mut out = Vec::new();
            let record = Record::Step {
                operation: operation::LOCK,
                clock: 9,
                schedule_hash: noted,
                noted,
            };
            encode_by(3, &record, |piece| out.extend_from_slice(piece));
            write(dir.path(), &[step(3, operation::READ, 8), out])
        };
        let (one, other) = (noted(100), noted(7));
        let Compared::Forked(fork) = compare(&one, &other, None).unwrap() else {
            panic!("they differ");
        };
        let place = fork.place.unwrap();
        assert!(place.ours.contains("the last result was 100"), "{place:?}");
        assert!(place.theirs.contains("the last result was 7"), "{place:?}");
    }
}
