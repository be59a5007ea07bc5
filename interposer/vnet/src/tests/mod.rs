//! Unit tests, and what they share: a net, a world that records, a connection.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use crate::{
    CounterKind, EpollError, Net, Object, ReadOutcome, SocketIx, WaitOn, World, WriteOutcome, ready,
};
use brolga_tape::entry::{CloseHow, Event};
use brolga_tape::record::{Record, decode, encode};
use brolga_tape::{CONSUMED_REPORT_BYTES, ConnId, OUTPUT_WINDOW_BYTES};
use std::boxed::Box;
use std::vec::Vec;

mod connect;
mod datagram;
mod descriptors;
mod epoll;
mod streams;

const EDGE: u32 = 1 << 31;
const ONESHOT: u32 = 1 << 30;
/// What reading a connection tells whose other end is gone.
pub(crate) const RESET: ReadOutcome = ReadOutcome::Failed(crate::errno::RESET);

/// A zeroed Net, as the interposer has it; its pages are touched only when used.
pub(crate) fn net() -> Box<Net> {
    let layout = std::alloc::Layout::new::<Net>();
    // SAFETY: all-zero bytes are a valid empty Net: integers, false, None niches aside, which
    // `make_socket` writes before use; Box owns memory of the right layout.
    unsafe { Box::from_raw(std::alloc::alloc_zeroed(layout).cast()) }
}

/// Records what the sockets do to the outside.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) woken: Vec<WaitOn>,
    /// How many threads each wake finds.
    waiting: usize,
    records: Vec<u8>,
    alarms_gone: Vec<u16>,
}

impl World for Log {
    fn wake(&mut self, on: WaitOn, _count: usize) -> usize {
        self.woken.push(on);
        self.waiting
    }

    fn emit(&mut self, record: &Record<'_>) {
        encode(record, |piece| self.records.extend_from_slice(piece));
    }

    fn alarm_gone(&mut self, alarm: u16) {
        self.alarms_gone.push(alarm);
    }
}

impl Log {
    pub(crate) fn take(&mut self) -> Vec<std::string::String> {
        let bytes = std::mem::take(&mut self.records);
        let mut rest = &bytes[..];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (record, used) = decode(rest).unwrap();
            seen.push(std::format!("{record:?}"));
            rest = &rest[used..];
        }
        seen
    }
}

const CONN: ConnId = ConnId {
    frontend: 5,
    counter: 1,
};

fn open(conn: ConnId) -> Event<'static> {
    Event::Open {
        conn,
        listener: 1,
        peer: "127.0.0.1:40000".parse().unwrap(),
        local: "127.0.0.2:7000".parse().unwrap(),
    }
}

fn data(offset: u64, bytes: &[u8]) -> Event<'_> {
    Event::Data {
        conn: CONN,
        offset,
        bytes,
    }
}

/// A net with a listener (socket, descriptor 3 of process 0) and a world.
fn listening() -> (Box<Net>, Log, SocketIx) {
    let (mut net, mut log) = (net(), Log::default());
    let on = net.make_socket(false).unwrap();
    assert!(net.set_object(0, 3, Object::Socket(on)));
    assert!(net.bind(on, "0.0.0.0:7000".parse().unwrap()));
    assert!(net.listen(on, &mut log));
    (net, log, on)
}

/// The same with one accepted connection, descriptor 4.
fn connected() -> (Box<Net>, Log, SocketIx) {
    let (mut net, mut log, on) = listening();
    net.apply(&open(CONN), &mut log);
    assert_eq!(net.readiness(on), ready::IN);
    let ix = net.accept(on).unwrap();
    assert!(net.set_object(0, 4, Object::Socket(ix)));
    assert_eq!(net.readiness(on), 0);
    log.take();
    log.woken.clear();
    (net, log, ix)
}

pub(crate) fn read(
    net: &mut Net,
    log: &mut Log,
    ix: SocketIx,
    max: usize,
) -> (ReadOutcome, Vec<u8>) {
    let mut got = Vec::new();
    let outcome = net.read(ix, max, false, log, |piece| got.extend_from_slice(piece));
    (outcome, got)
}
