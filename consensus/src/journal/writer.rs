//! The writer: group commit, on its own thread or on the caller's.

use super::record::{HEADER_BYTES, RecordHeader, padding, payload_len};
use super::segment::Segments;
use super::{Planned, Wake};
use crate::core::{IoSeq, JournalOp, Value};
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Values from this size on are written from where they are; smaller ones are cheaper to copy next
/// to their headers than to hand to the kernel one by one.
const COPY_BYTES_MAX: usize = 16 << 10;

/// Pieces per system call, well below the kernel's limit of 1024.
const PIECES_MAX: usize = 512;

/// The point at which a writer begins.
pub(super) struct Start {
    pub segments: Segments,
    pub segment: u32,
    pub offset: u64,
    /// Header checksum of the last record.
    pub previous: u32,
    /// Last operation that is in the file.
    pub written: Arc<AtomicU64>,
    /// Last operation that is on the disk.
    pub durable: Arc<AtomicU64>,
}

/// A piece of what is to be written next.
enum Piece {
    Copied(Range<usize>),
    Value(Value),
}

pub(super) struct Writer {
    start: Start,
    salt: u32,
    file: File,
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
    /// Last operation in the file, if it is not durable.
    unflushed: Option<IoSeq>,
    /// The next segment, being made while this one fills.
    next: Option<JoinHandle<io::Result<File>>>,
}

/// The writer's thread: runs until the sender is dropped, or until a failure, which ends the
/// process.
pub(super) fn run(
    writer: &Mutex<Writer>,
    batch_rx: &Receiver<Vec<Planned>>,
    spare_tx: &Sender<Vec<Planned>>,
    wake: &Wake,
) {
    while let Ok(first) = batch_rx.recv() {
        let batches = std::iter::once(first).chain(batch_rx.try_iter());
        let flushed = Writer::lock(writer).commit(batches, |batch| {
            // Nobody may be there to take it back any more.
            let _ = spare_tx.send(batch);
        });
        if flushed {
            wake();
            Writer::lock(writer).prepare_next();
        }
    }
    Writer::lock(writer).finish();
}

impl Writer {
    pub fn new(start: Start) -> io::Result<Self> {
        let mut file = start.segments.open(start.segment)?;
        // What recovery read may have been in the page cache only, if just the process had crashed.
        file.sync_data()?;
        file.seek(SeekFrom::Start(start.offset))?;
        let salt = start.segments.header(start.segment).salt();
        Ok(Self {
            start,
            salt,
            file,
            buffer: Vec::new(),
            pieces: Vec::new(),
            unflushed: None,
            next: None,
        })
    }

    /// The writer, whoever has it at the moment; a failure in it has ended the process.
    pub fn lock(writer: &Mutex<Self>) -> MutexGuard<'_, Self> {
        writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes batches, and flushes them if anything in them needs it, which it then tells. Gives
    /// empty batches back. A failure ends the process.
    pub fn commit(
        &mut self,
        batches: impl Iterator<Item = Vec<Planned>>,
        give_back: impl FnMut(Vec<Planned>),
    ) -> bool {
        let flushed = self.try_commit(batches, give_back);
        flushed.unwrap_or_else(|error| fatal(&self.start.segments.dir, &error))
    }

    fn try_commit(
        &mut self,
        batches: impl Iterator<Item = Vec<Planned>>,
        mut give_back: impl FnMut(Vec<Planned>),
    ) -> io::Result<bool> {
        let mut flush = false;
        for mut batch in batches {
            for planned in batch.drain(..) {
                flush |= planned.op.needs_flush();
                self.unflushed = Some(planned.seq);
                self.encode(&planned)?;
            }
            give_back(batch);
        }
        self.write()?;
        if let Some(seq) = self.unflushed {
            self.start.written.store(seq.0, Ordering::Release);
        }
        if flush {
            self.flush()?;
        }
        Ok(flush)
    }

    /// Nothing more will come.
    fn finish(&mut self) {
        if let Err(error) = self.flush() {
            fatal(&self.start.segments.dir, &error);
        }
        // Nobody needs the next segment any more, so whether it could be made does not matter.
        let _ = self.wait_for_next();
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(seq) = self.unflushed {
            self.file.sync_data()?;
            self.unflushed = None;
            self.start.durable.store(seq.0, Ordering::Release);
        }
        Ok(())
    }

    /// Puts a record behind what is to be written.
    fn encode(&mut self, planned: &Planned) -> io::Result<()> {
        if planned.segment != self.start.segment {
            self.roll(planned.segment)?;
        }
        assert_eq!(planned.offset, self.start.offset, "plan and log disagree");
        let durable = IoSeq(self.start.durable.load(Ordering::Relaxed));
        let header = RecordHeader::of(&planned.op, planned.seq, durable, self.start.previous);
        let (bytes, crc) = header.encode(self.salt);
        self.start.previous = crc;
        self.copy(&bytes);
        let length = payload_len(&planned.op);
        if let JournalOp::Accept { value, .. } = &planned.op {
            if length < COPY_BYTES_MAX {
                self.copy(value);
            } else {
                self.pieces.push(Piece::Value(value.clone()));
            }
        }
        self.copy(&[0; 8][..padding(length)]);
        self.start.offset += (HEADER_BYTES + length + padding(length)) as u64;
        Ok(())
    }

    fn copy(&mut self, bytes: &[u8]) {
        let begin = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        match self.pieces.last_mut() {
            Some(Piece::Copied(range)) => range.end = self.buffer.len(),
            _ => self.pieces.push(Piece::Copied(begin..self.buffer.len())),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        for pieces in self.pieces.chunks(PIECES_MAX) {
            let slices = pieces.iter().map(|piece| match piece {
                Piece::Copied(range) => IoSlice::new(&self.buffer[range.clone()]),
                Piece::Value(value) => IoSlice::new(value),
            });
            write_all(&mut self.file, &mut slices.collect::<Vec<_>>())?;
        }
        self.pieces.clear();
        self.buffer.clear();
        Ok(())
    }

    /// Goes on in the next segment, once this one is durable.
    fn roll(&mut self, segment: u32) -> io::Result<()> {
        assert_eq!(segment, self.start.segment + 1, "segments have no gaps");
        self.write()?;
        self.file.sync_data()?;
        self.file = match self.wait_for_next()? {
            Some(file) => file,
            None => open_or_create(&self.start.segments, segment)?,
        };
        self.start.segment = segment;
        self.start.offset = HEADER_BYTES as u64;
        self.salt = self.start.segments.header(segment).salt();
        self.file.seek(SeekFrom::Start(self.start.offset))?;
        Ok(())
    }

    /// Makes the next segment in the background once this one is half full.
    pub fn prepare_next(&mut self) {
        if self.next.is_some() || self.start.offset < self.start.segments.segment_bytes / 2 {
            return;
        }
        let segments = self.start.segments.clone();
        let number = self.start.segment + 1;
        self.next = std::thread::Builder::new()
            .name("journal-segment".to_owned())
            .spawn(move || open_or_create(&segments, number))
            // Without a thread the segment is made when it is needed.
            .ok();
    }

    fn wait_for_next(&mut self) -> io::Result<Option<File>> {
        let Some(thread) = self.next.take() else {
            return Ok(None);
        };
        match thread.join() {
            Ok(file) => file.map(Some),
            Err(_) => Err(io::Error::other("making a segment panicked")),
        }
    }
}

/// A segment made ahead of a crash is there already, and empty.
fn open_or_create(segments: &Segments, number: u32) -> io::Result<File> {
    match segments.open(number) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => segments.create(number),
        Err(error) => Err(error),
    }
}

fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// After a failed write or flush nobody knows what is on disk: only a restart can find out.
fn fatal(dir: &Path, error: &io::Error) -> ! {
    eprintln!(
        "brolga: cannot write the log in {}: {error}; giving up",
        dir.display()
    );
    std::process::abort()
}
