//! Random bytes for the decoders of the links between nodes. Half of the time whole messages with a few
//! bytes changed.
//!
//! `BROLGA_FUZZ` says how many inputs (20000 if not set), `BROLGA_FUZZ_SEED` repeats a run.

use super::wire::{Head, Hello, PREFIX_BYTES, decode, encode, take_frame};
use bytes::{Bytes, BytesMut};

const LIMIT: usize = 4096;

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

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// Words that are small, large or anything, as messages have them.
    fn body(&mut self) -> Vec<u8> {
        let mut body = vec![self.below(16) as u8];
        for _ in 0..self.below(14) {
            let word = match self.below(4) {
                0 => 0,
                1 => u64::MAX,
                2 => self.below(40) as u64,
                _ => self.below(usize::MAX) as u64,
            };
            body.extend_from_slice(&word.to_le_bytes());
        }
        body.extend((0..self.below(12)).map(|_| 7));
        body
    }
}

fn iterations() -> usize {
    let given = std::env::var("BROLGA_FUZZ").ok();
    given.map_or(20_000, |text| text.parse().unwrap())
}

#[test]
fn no_bytes_break_the_decoder_of_messages() {
    let mut chance = Chance::shown("no_bytes_break_the_decoder_of_messages");
    let mut whole = 0;
    for _ in 0..iterations() {
        let body = Bytes::from(chance.body());
        if let Some(message) = decode(body.clone()) {
            whole += 1;
            let mut head = Head::new();
            let value = encode(&message, &mut head);
            let mut again = BytesMut::from(head.bytes());
            again.extend_from_slice(value.map_or(&[][..], |value| value));
            assert_eq!(decode(again.freeze()), Some(message));
        }
        if let Some(hello) = Hello::decode(body) {
            assert_eq!(Hello::decode(hello.encode().into()), Some(hello));
        }
    }
    assert!(whole > 0);
}

#[test]
fn no_bytes_break_the_frames() {
    let mut chance = Chance::shown("no_bytes_break_the_frames");
    let (mut whole, mut broken) = (0, 0);
    for _ in 0..iterations() {
        let mut input = BytesMut::new();
        for _ in 0..chance.below(4) {
            let body = chance.body();
            input.extend_from_slice(&(body.len() as u32).to_le_bytes());
            input.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            input.extend_from_slice(&body);
        }
        if !input.is_empty() && chance.below(3) == 0 {
            let at = chance.below(input.len());
            input[at] ^= 1 << chance.below(8);
        }
        input.truncate(input.len() - chance.below(input.len() + 1) / 4);
        loop {
            let before = input.len();
            match take_frame(&mut input, LIMIT) {
                Ok(Some((_, body))) => {
                    whole += 1;
                    assert_eq!(before, input.len() + PREFIX_BYTES + 1 + body.len());
                }
                Ok(None) => break,
                Err(_) => {
                    broken += 1;
                    break;
                }
            }
        }
    }
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} broken");
}
