//! Random bytes for the decoders of the tape. Half of the time whole entries and records with a few
//! bytes changed, so that the inner parts are reached too.
//!
//! `BROLGA_FUZZ` says how many inputs (20000 if not set), `BROLGA_FUZZ_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use brolga_tape::ConnId;
use brolga_tape::entry::{ENTRY_HEADER_BYTES, EVENT_HEADER_BYTES, Entry};
use brolga_tape::record::{Record, decode, encode_by, thread_of};
use fastrand::Rng;

/// A generator whose seed is shown.
fn shown(name: &str) -> Rng {
    let given = std::env::var("BROLGA_FUZZ_SEED");
    let seed = given.map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("{name}: BROLGA_FUZZ_SEED={seed}");
    Rng::with_seed(seed)
}

fn some_bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let len = rng.usize(..=most);
    (0..len).map(|_| rng.u8(..)).collect()
}

/// Changes, cuts or lengthens.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.usize(..4) {
        match rng.usize(..4) {
            0 => bytes.truncate(rng.usize(..=bytes.len())),
            1 => bytes.extend(some_bytes(rng, 40)),
            _ if bytes.is_empty() => {}
            _ => {
                let at = rng.usize(..bytes.len());
                bytes[at] = match rng.usize(..3) {
                    0 => 0xFF,
                    1 => bytes[at] ^ (1 << rng.usize(..8)),
                    _ => rng.u8(..),
                };
            }
        }
    }
}

fn iterations() -> usize {
    let given = std::env::var("BROLGA_FUZZ").ok();
    given.map_or(20_000, |text| text.parse().unwrap())
}

/// As an entry is written, with events of any kind and payloads of any length.
fn entry(rng: &mut Rng) -> Vec<u8> {
    let count = rng.usize(..5);
    let mut out = vec![0; ENTRY_HEADER_BYTES];
    out[..8].copy_from_slice(&rng.u64(..).to_le_bytes());
    out[12] = count as u8;
    for _ in 0..count {
        let mut payload = some_bytes(rng, 96);
        if rng.usize(..2) == 0 {
            // Two addresses of a known family.
            payload.resize(48, 0);
            payload[0] = 4 + 2 * rng.u8(..2);
            payload[24] = payload[0];
        }
        let mut header = [0; EVENT_HEADER_BYTES];
        header[0] = rng.usize(..11) as u8;
        header[1] = rng.usize(..3) as u8;
        header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        for at in [8, 16, 24] {
            let word = rng.u64(..) >> rng.usize(..64);
            header[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&header);
        payload.resize(payload.len().next_multiple_of(8), 0);
        out.extend_from_slice(&payload);
    }
    out
}

#[test]
fn no_bytes_break_the_decoder_of_entries() {
    let mut rng = shown("no_bytes_break_the_decoder_of_entries");
    let (mut whole, mut broken) = (0, 0);
    for _ in 0..iterations() {
        let mut bytes = match rng.usize(..8) {
            0 => some_bytes(&mut rng, 300),
            _ => entry(&mut rng),
        };
        damage(&mut rng, &mut bytes);
        let Ok(entry) = Entry::parse(&bytes) else {
            assert!(bytes.len() < ENTRY_HEADER_BYTES);
            continue;
        };
        let most = bytes.len() / EVENT_HEADER_BYTES + 1;
        let mut events = 0;
        for event in entry.events() {
            events += 1;
            match event {
                Ok(_) => whole += 1,
                Err(_) => broken += 1,
            }
        }
        assert!(events <= most, "{events} events of {} bytes", bytes.len());
    }
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} broken");
}

fn record<'a>(rng: &mut Rng, bytes: &'a [u8]) -> Record<'a> {
    let conn = ConnId {
        frontend: rng.u64(..),
        counter: rng.u64(..),
    };
    let (offset, number) = (rng.u64(..), rng.u64(..));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], number as u16));
    match rng.usize(..9) {
        0 => Record::Data {
            conn,
            offset,
            bytes,
        },
        1 => Record::Closed {
            conn,
            offset,
            reset: number % 2 == 0,
        },
        2 => Record::Listen {
            listener: number as u32,
            address,
            transport: brolga_tape::record::Transport::Datagram,
            chosen: number % 2 == 0,
        },
        3 => Record::Connect { conn, address },
        4 => Record::Done {
            slot: offset,
            schedule_hash: number,
            deadline_ns: rng.u64(..),
            clock: rng.u64(..),
            idle: number % 2 == 0,
            operation: number as u16,
        },
        5 => Record::Step {
            operation: number as u16,
            clock: offset,
            schedule_hash: number,
            noted: rng.u64(..),
        },
        6 => Record::Datagram {
            frontend: conn.frontend,
            number,
            local: address,
            peer: address,
            bytes,
        },
        7 => Record::Exit {
            status: number as i32,
        },
        _ => Record::Fault { message: bytes },
    }
}

#[test]
fn no_bytes_break_the_decoder_of_records() {
    let mut rng = shown("no_bytes_break_the_decoder_of_records");
    let (mut whole, mut broken) = (0, 0);
    for _ in 0..iterations() {
        let payload = some_bytes(&mut rng, 100);
        let thread = rng.u64(..) as u16;
        let record = record(&mut rng, &payload);
        let mut bytes = Vec::new();
        encode_by(thread, &record, |piece| bytes.extend_from_slice(piece));
        assert_eq!(decode(&bytes), Ok((record, bytes.len())));
        assert_eq!(thread_of(&bytes), thread);
        assert!(bytes.len() <= record.room());
        if rng.usize(..8) == 0 {
            bytes = some_bytes(&mut rng, 200);
        }
        damage(&mut rng, &mut bytes);
        match decode(&bytes) {
            Ok((_, used)) => {
                whole += 1;
                assert!(used > 0 && used <= bytes.len());
            }
            Err(_) => broken += 1,
        }
    }
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} broken");
}
