//! Entries survive the round trip, and what is no entry is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use std::vec::Vec;

const CONN: ConnId = ConnId {
    frontend: 7,
    counter: 9,
};

fn sample() -> Vec<Event<'static>> {
    std::vec![
        Event::FrontendUp {
            node: 2,
            frontend: 7
        },
        Event::Open {
            conn: CONN,
            listener: 3,
            peer: "127.0.0.9:50000".parse().unwrap(),
            local: "[::1]:6379".parse().unwrap(),
        },
        Event::Data {
            conn: CONN,
            offset: 0,
            bytes: b"PING\r\n"
        },
        Event::Data {
            conn: CONN,
            offset: 6,
            bytes: b""
        },
        Event::Credit {
            conn: CONN,
            upto: 77
        },
        Event::Close {
            conn: CONN,
            offset: 6,
            how: CloseHow::Fin
        },
        Event::Close {
            conn: CONN,
            offset: 6,
            how: CloseHow::Reset
        },
        Event::Datagram {
            frontend: 7,
            number: 12,
            peer: "127.0.0.9:50000".parse().unwrap(),
            local: "[::1]:53".parse().unwrap(),
            bytes: b"query",
        },
        Event::Datagram {
            frontend: 7,
            number: 14,
            peer: "[2001:db8::1]:1".parse().unwrap(),
            local: "10.0.0.1:53".parse().unwrap(),
            bytes: b"",
        },
        Event::Connected {
            conn: CONN,
            owner: 11,
            outcome: Ok("10.0.0.1:40000".parse().unwrap()),
        },
        Event::Connected {
            conn: CONN,
            owner: 12,
            outcome: Err(111),
        },
        Event::FrontendGone { frontend: 7 },
        Event::Signal { signal: 15 },
    ]
}

fn encoded() -> Vec<u8> {
    let mut builder = EntryBuilder::new();
    for event in sample() {
        builder.push(&event);
    }
    builder.finish(123, 456)
}

#[test]
fn what_is_built_is_read_back() {
    let bytes = encoded();
    let entry = Entry::parse(&bytes).unwrap();
    assert_eq!(
        (entry.time_ns, entry.clocks, entry.event_count),
        (123, 456, 13)
    );
    let events: Result<Vec<_>, _> = entry.events().collect();
    assert_eq!(events.unwrap(), sample());
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = encoded();
    for cut in 0..bytes.len() {
        let whole = Entry::parse(&bytes[..cut])
            .is_ok_and(|entry| entry.events().all(|event| event.is_ok()));
        assert!(!whole, "an entry cut to {cut} bytes was taken for whole");
    }
}

#[test]
fn trailing_bytes_and_unknown_kinds_are_errors() {
    let mut bytes = encoded();
    bytes.extend_from_slice(&[0; 8]);
    let last = Entry::parse(&bytes).unwrap().events().last();
    assert_eq!(last, Some(Err(EntryError::Trailing)));
    let mut bytes = encoded();
    bytes[ENTRY_HEADER_BYTES] = 200;
    let first = Entry::parse(&bytes).unwrap().events().next();
    assert_eq!(first, Some(Err(EntryError::UnknownKind(200))));
}

#[test]
fn the_largest_datagram_fits_an_entry() {
    let bytes = std::vec![9; crate::DATAGRAM_BYTES_MAX];
    let event = Event::Datagram {
        frontend: 1,
        number: 1,
        peer: "[::1]:1".parse().unwrap(),
        local: "[::1]:2".parse().unwrap(),
        bytes: &bytes,
    };
    let mut builder = EntryBuilder::new();
    builder.push(&event);
    let entry = builder.finish(1, 1);
    assert!(entry.len() < crate::ENTRY_BYTES_MAX);
    let read = Entry::parse(&entry).unwrap().events().next();
    assert_eq!(read, Some(Ok(event)));
}
