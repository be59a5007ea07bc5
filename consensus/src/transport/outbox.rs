//! Bytes waiting to be written to one socket.

use super::wire::{Kind, PREFIX_BYTES};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

/// Values from this size on are written from where they are.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Pieces per system call.
const PIECES_MAX: usize = 64;

/// Frames in order; small ones gathered in one buffer, large values by reference.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Bytes>,
    gathering: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// Bytes not written yet.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, kind: Kind, head: &[u8], value: Option<&Bytes>) {
        let value_len = value.map_or(0, Bytes::len);
        let length = 1 + head.len() + value_len;
        let mut crc = crc32c::crc32c(&[kind as u8]);
        crc = crc32c::crc32c_append(crc, head);
        if let Some(value) = value {
            crc = crc32c::crc32c_append(crc, value);
        }
        self.bytes += PREFIX_BYTES + length;
        self.gathering
            .extend_from_slice(&(length as u32).to_le_bytes());
        self.gathering.extend_from_slice(&crc.to_le_bytes());
        self.gathering.extend_from_slice(&[kind as u8]);
        self.gathering.extend_from_slice(head);
        match value {
            Some(value) if value_len >= COPY_BYTES_MAX => {
                self.gather();
                self.pieces.push_back(value.clone());
            }
            Some(value) => self.gathering.extend_from_slice(value),
            None => {}
        }
    }

    fn gather(&mut self) {
        if !self.gathering.is_empty() {
            self.pieces.push_back(self.gathering.split().freeze());
        }
    }

    /// Writes as much as the socket takes. Whether anything was written.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        self.gather();
        let mut any = false;
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.pieces.len().min(PIECES_MAX);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            any = true;
        }
        Ok(any)
    }

    fn written(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else {
                return;
            };
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}
