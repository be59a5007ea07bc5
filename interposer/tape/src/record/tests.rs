//! Records survive the round trip, and no bytes break the decoder.

use super::*;
use crate::DATAGRAM_BYTES_MAX;
use std::vec::Vec;

static LARGEST: [u8; DATAGRAM_BYTES_MAX] = [7; DATAGRAM_BYTES_MAX];

fn datagram(bytes: &[u8]) -> Record<'_> {
    Record::Datagram {
        frontend: 1,
        number: 3,
        local: "127.0.0.1:53".parse().unwrap(),
        peer: "[2001:db8::1]:40000".parse().unwrap(),
        bytes,
    }
}

/// Records of every kind, some in several forms. A table.
fn samples() -> Vec<Record<'static>> {
    let conn = ConnId {
        frontend: 1,
        counter: 2,
    };
    std::vec![
        Record::Data {
            conn,
            offset: 5,
            bytes: b"+PONG\r\n",
        },
        Record::Fin { conn, offset: 12 },
        Record::Closed {
            conn,
            offset: 12,
            reset: true,
        },
        Record::Consumed { conn, upto: 6 },
        Record::Listen {
            listener: 1,
            address: "0.0.0.0:6379".parse().unwrap(),
            transport: Transport::Stream,
            chosen: false,
        },
        Record::Listen {
            listener: 2,
            address: "[::]:53".parse().unwrap(),
            transport: Transport::Datagram,
            chosen: true,
        },
        datagram(b"answer"),
        datagram(b""),
        datagram(&LARGEST),
        Record::Connect {
            conn: ConnId {
                frontend: crate::OUTGOING,
                counter: 3,
            },
            address: "[2001:db8::1]:5432".parse().unwrap(),
        },
        Record::Unlisten { listener: 1 },
        Record::Lost { total: 4 },
        Record::Done {
            slot: 9,
            schedule_hash: 1,
            deadline_ns: 2,
            clock: 3,
            idle: true,
            operation: 4,
        },
        Record::Exit { status: -1 },
        Record::Fault { message: b"splice" },
        Record::SyscallFilter { errno: 22 },
        Record::Caught {
            number: 202,
            count: 1024,
            offset: 0x1234,
            object: b"libc.so.6",
        },
    ]
}

#[test]
fn records_survive_the_round_trip() {
    let records = samples();
    let mut bytes = Vec::new();
    for (thread, record) in (7..).zip(&records) {
        let before = bytes.len();
        encode_by(thread, record, |piece| bytes.extend_from_slice(piece));
        assert!(bytes.len() - before <= record.room(), "{record:?}");
    }
    let mut rest = &bytes[..];
    for (thread, record) in (7..).zip(&records) {
        let (read, used) = decode(rest).unwrap();
        assert_eq!((read, thread_of(rest)), (*record, thread));
        rest = &rest[used..];
    }
    assert!(rest.is_empty());
}

#[test]
fn every_truncation_is_an_error_and_no_byte_is_trusted() {
    let listen = Record::Listen {
        listener: 2,
        address: "[::]:53".parse().unwrap(),
        transport: Transport::Datagram,
        chosen: false,
    };
    for record in [listen, datagram(b"answer")] {
        let mut bytes = Vec::new();
        encode(&record, |piece| bytes.extend_from_slice(piece));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut to {cut}: {record:?}");
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] = 0xFF;
            // Any answer will do, but no panic.
            let _ = decode(&broken);
        }
    }
}
