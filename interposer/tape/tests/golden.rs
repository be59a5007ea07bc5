//! The encodings of entries and records, byte by byte. A change here is a change of a format: see
//! the compatibility notes in the crate's description.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use brolga_tape::ConnId;
use brolga_tape::entry::{CloseHow, Entry, Event};
use brolga_tape::record::{Record, Transport, decode, encode_by, thread_of};

const CONN: ConnId = ConnId {
    frontend: 0x0102_0304_0506_0708,
    counter: 9,
};

/// Bytes from lines of hexadecimal digits; spaces are for the reader.
fn bytes_of(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let words = bytes
        .chunks(8)
        .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect());
    words.collect::<Vec<String>>().join(" ")
}

/// Every kind of event with its encoding. A table.
fn events() -> Vec<(Event<'static>, &'static str)> {
    vec![
        (
            Event::Open {
                conn: CONN,
                listener: 3,
                peer: "127.0.0.9:50000".parse().unwrap(),
                local: "[2001:db8::1]:6379".parse().unwrap(),
            },
            "0100000030000000 0807060504030201 0900000000000000 0300000000000000 \
             040050c300000000 7f00000900000000 0000000000000000 0600eb1800000000 \
             20010db800000000 0000000000000001",
        ),
        (
            Event::Data {
                conn: CONN,
                offset: 0x11,
                bytes: b"PING\r\n",
            },
            "0200000006000000 0807060504030201 0900000000000000 1100000000000000 \
             50494e470d0a0000",
        ),
        (
            Event::Close {
                conn: CONN,
                offset: 6,
                how: CloseHow::Fin,
            },
            "0300000000000000 0807060504030201 0900000000000000 0600000000000000",
        ),
        (
            Event::Close {
                conn: CONN,
                offset: 6,
                how: CloseHow::Reset,
            },
            "0301000000000000 0807060504030201 0900000000000000 0600000000000000",
        ),
        (
            Event::Credit {
                conn: CONN,
                upto: 77,
            },
            "0400000000000000 0807060504030201 0900000000000000 4d00000000000000",
        ),
        (
            Event::FrontendUp {
                node: 2,
                frontend: 7,
            },
            "0500000000000000 0700000000000000 0000000000000000 0200000000000000",
        ),
        (
            Event::FrontendGone { frontend: 7 },
            "0600000000000000 0700000000000000 0000000000000000 0000000000000000",
        ),
        (
            Event::Signal { signal: 15 },
            "0700000000000000 0000000000000000 0000000000000000 0f00000000000000",
        ),
        (
            Event::Datagram {
                frontend: 7,
                number: 12,
                peer: "[::1]:53".parse().unwrap(),
                local: "10.0.0.1:40000".parse().unwrap(),
                bytes: b"query",
            },
            "0800000035000000 0700000000000000 0c00000000000000 0000000000000000 \
             0600350000000000 0000000000000000 0000000000000001 0400409c00000000 \
             0a00000100000000 0000000000000000 7175657279000000",
        ),
        (
            Event::Connected {
                conn: CONN,
                owner: 11,
                outcome: Ok("10.0.0.1:40000".parse().unwrap()),
            },
            "0900000018000000 0807060504030201 0900000000000000 0b00000000000000 \
             0400409c00000000 0a00000100000000 0000000000000000",
        ),
        (
            Event::Connected {
                conn: CONN,
                owner: 12,
                outcome: Err(111),
            },
            "096f000000000000 0807060504030201 0900000000000000 0c00000000000000",
        ),
    ]
}

/// Every kind of record with its encoding. A table.
fn records() -> Vec<(Record<'static>, &'static str)> {
    vec![
        (
            Record::Data {
                conn: CONN,
                offset: 5,
                bytes: b"+PONG\r\n",
            },
            "0100727107000000 0807060504030201 0900000000000000 0500000000000000 \
             2b504f4e470d0a00",
        ),
        (
            Record::Fin {
                conn: CONN,
                offset: 12,
            },
            "0200727100000000 0807060504030201 0900000000000000 0c00000000000000",
        ),
        (
            Record::Closed {
                conn: CONN,
                offset: 12,
                reset: true,
            },
            "0300727108000000 0807060504030201 0900000000000000 0c00000000000000 \
             0100000000000000",
        ),
        (
            Record::Consumed {
                conn: CONN,
                upto: 6,
            },
            "0400727100000000 0807060504030201 0900000000000000 0600000000000000",
        ),
        (
            Record::Listen {
                listener: 2,
                address: "[::]:53".parse().unwrap(),
                transport: Transport::Datagram,
                chosen: true,
            },
            "0500727120000000 0000000000000000 0000000000000000 0200000000000000 \
             0600350000000000 0000000000000000 0000000000000000 0101000000000000",
        ),
        (
            Record::Unlisten { listener: 1 },
            "0600727100000000 0000000000000000 0000000000000000 0100000000000000",
        ),
        (
            Record::Done {
                slot: 9,
                schedule_hash: 0x2122_2324_2526_2728,
                deadline_ns: 0x3132_3334_3536_3738,
                clock: 3,
                idle: true,
                operation: 0x4142,
            },
            "0700727120000000 0000000000000000 0000000000000000 0900000000000000 \
             2827262524232221 3837363534333231 0300000000000000 0100424100000000",
        ),
        (
            Record::Exit { status: -1 },
            "0800727100000000 0000000000000000 0000000000000000 ffffffff00000000",
        ),
        (
            Record::Fault { message: b"splice" },
            "0900727106000000 0000000000000000 0000000000000000 0000000000000000 \
             73706c6963650000",
        ),
        (
            Record::Datagram {
                frontend: 1,
                number: 3,
                local: "127.0.0.1:53".parse().unwrap(),
                peer: "[2001:db8::1]:40000".parse().unwrap(),
                bytes: b"answer",
            },
            "0a00727136000000 0100000000000000 0300000000000000 0000000000000000 \
             0400350000000000 7f00000100000000 0000000000000000 0600409c00000000 \
             20010db800000000 0000000000000001 616e737765720000",
        ),
        (
            Record::Lost { total: 4 },
            "0b00727100000000 0000000000000000 0000000000000000 0400000000000000",
        ),
        (
            Record::Connect {
                conn: CONN,
                address: "[2001:db8::1]:5432".parse().unwrap(),
            },
            "0c00727118000000 0807060504030201 0900000000000000 0000000000000000 \
             0600381500000000 20010db800000000 0000000000000001",
        ),
        (
            Record::Step {
                operation: 0x5152,
                clock: 8,
                schedule_hash: 0x2122_2324_2526_2728,
                noted: 0x6162_6364_6566_6768,
            },
            "0d00727118000000 0000000000000000 0000000000000000 0800000000000000 \
             2827262524232221 6867666564636261 5251000000000000",
        ),
        (
            Record::SyscallFilter { errno: 22 },
            "0e00727100000000 0000000000000000 0000000000000000 1600000000000000",
        ),
        (
            Record::Caught {
                number: 202,
                count: 1024,
                offset: 0x1234,
                object: b"libc.so.6",
            },
            "0f00727109000000 3412000000000000 0004000000000000 ca00000000000000 \
             6c6962632e736f2e 3600000000000000",
        ),
    ]
}

#[test]
fn records_have_the_bytes_that_they_always_had() {
    for (record, golden) in records() {
        let mut bytes = Vec::new();
        encode_by(0x7172, &record, |piece| bytes.extend_from_slice(piece));
        assert_eq!(
            hexadecimal(&bytes),
            hexadecimal(&bytes_of(golden)),
            "{record:?}"
        );
        assert_eq!(decode(&bytes), Ok((record, bytes.len())));
        assert_eq!(thread_of(&bytes), 0x7172);
    }
}

#[test]
fn entries_have_the_bytes_that_they_always_had() {
    let mut entry = bytes_of("0807060504030201 88130000 0b000000");
    for (_, golden) in events() {
        entry.extend(bytes_of(golden));
    }
    let read = Entry::parse(&entry).unwrap();
    assert_eq!((read.time_ns, read.clocks), (0x0102_0304_0506_0708, 5000));
    let expected: Vec<_> = events().into_iter().map(|(event, _)| Ok(event)).collect();
    assert_eq!(read.events().collect::<Vec<_>>(), expected);
}

#[cfg(feature = "alloc")]
#[test]
fn events_are_written_as_the_bytes_that_they_always_had() {
    use brolga_tape::entry::EntryBuilder;
    for (event, golden) in events() {
        let mut builder = EntryBuilder::new();
        builder.push(&event);
        let bytes = builder.encoded_events();
        assert_eq!(
            hexadecimal(bytes),
            hexadecimal(&bytes_of(golden)),
            "{event:?}"
        );
    }
    let entry = EntryBuilder::new().finish(0x0102_0304_0506_0708, 5000);
    assert_eq!(hexadecimal(&entry), "0807060504030201 8813000000000000");
}
