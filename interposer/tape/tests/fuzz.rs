//! Random bytes for the decoders of the tape. Half of the time whole entries and records with a few bytes
//! changed, so that the inner parts are reached too.
//!
//! `BROLGA_FUZZ` says how many inputs (20000 if not set), `BROLGA_FUZZ_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use brolga_tape::ConnId;
use brolga_tape::entry::{ENTRY_HEADER_BYTES, EVENT_HEADER_BYTES, Entry};
use brolga_tape::record::{Record, decode, encode_by, thread_of};

/// Splitmix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn shown(name: &str) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let given = std::env::var("BROLGA_FUZZ_SEED");
        let seed = given.map_or_else(
            |_| now.unwrap().as_nanos() as u64,
            |text| text.parse().unwrap(),
        );
        println!("{name}: BROLGA_FUZZ_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.below(most + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Changes, cuts or lengthens.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            match self.below(4) {
                0 => bytes.truncate(self.below(bytes.len() + 1)),
                1 => bytes.extend(self.bytes(40)),
                _ if bytes.is_empty() => {}
                _ => {
                    let at = self.below(bytes.len());
                    bytes[at] = match self.below(3) {
                        0 => 0xFF,
                        1 => bytes[at] ^ (1 << self.below(8)),
                        _ => self.next() as u8,
                    };
                }
            }
        }
    }
}

fn iterations() -> usize {
    let given = std::env::var("BROLGA_FUZZ").ok();
    given.map_or(20_000, |text| text.parse().unwrap())
}

/// As an entry is written, with events of any kind and payloads of any length.
fn entry(chance: &mut Chance) -> Vec<u8> {
    let count = chance.below(5);
    let mut out = vec![0; ENTRY_HEADER_BYTES];
    out[..8].copy_from_slice(&chance.next().to_le_bytes());
    out[12] = count as u8;
    for _ in 0..count {
        let mut payload = chance.bytes(96);
        if chance.below(2) == 0 {
            // Two addresses of a known family.
            payload.resize(48, 0);
            payload[0] = 4 + 2 * (chance.below(2) as u8);
            payload[24] = payload[0];
        }
        let mut header = [0; EVENT_HEADER_BYTES];
        header[0] = chance.below(11) as u8;
        header[1] = chance.below(3) as u8;
        header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        for at in [8, 16, 24] {
            let word = chance.next() >> chance.below(64);
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
    let mut chance = Chance::shown("no_bytes_break_the_decoder_of_entries");
    let (mut whole, mut broken) = (0, 0);
    for _ in 0..iterations() {
        let mut bytes = match chance.below(8) {
            0 => chance.bytes(300),
            _ => entry(&mut chance),
        };
        chance.damage(&mut bytes);
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

fn record<'a>(chance: &mut Chance, bytes: &'a [u8]) -> Record<'a> {
    let conn = ConnId {
        frontend: chance.next(),
        counter: chance.next(),
    };
    let (offset, number) = (chance.next(), chance.next());
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], number as u16));
    match chance.below(9) {
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
            deadline_ns: chance.next(),
            clock: chance.next(),
            idle: number % 2 == 0,
            operation: number as u16,
        },
        5 => Record::Step {
            operation: number as u16,
            clock: offset,
            schedule_hash: number,
            noted: chance.next(),
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
    let mut chance = Chance::shown("no_bytes_break_the_decoder_of_records");
    let (mut whole, mut broken) = (0, 0);
    for _ in 0..iterations() {
        let payload = chance.bytes(100);
        let thread = chance.next() as u16;
        let record = record(&mut chance, &payload);
        let mut bytes = Vec::new();
        encode_by(thread, &record, |piece| bytes.extend_from_slice(piece));
        assert_eq!(decode(&bytes), Ok((record, bytes.len())));
        assert_eq!(thread_of(&bytes), thread);
        assert!(bytes.len() <= record.room());
        if chance.below(8) == 0 {
            bytes = chance.bytes(200);
        }
        chance.damage(&mut bytes);
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
