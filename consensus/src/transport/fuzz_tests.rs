//! Random bytes for the decoders of the links between nodes. Half of the time whole messages with a
//! few bytes changed.
//!
//! `BROLGA_FUZZ` sets the number of inputs (20000 by default), `BROLGA_FUZZ_SEED` repeats a run.

use super::message::{Head, decode, encode};
use super::wire::{Hello, PREFIX_BYTES, take_frame};
use bytes::{Bytes, BytesMut};
use fastrand::Rng;

const LIMIT: usize = 4096;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// A generator whose seed is printed.
fn rng(test: &str) -> Rng {
    let seed = setting("BROLGA_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{test}: BROLGA_FUZZ_SEED={seed}");
    Rng::with_seed(seed)
}

fn iterations() -> u64 {
    setting("BROLGA_FUZZ").unwrap_or(20_000)
}

/// Words that are small, large or anything, as messages have them.
fn body(rng: &mut Rng) -> Vec<u8> {
    let mut body = vec![rng.u8(0..16)];
    for _ in 0..rng.usize(0..14) {
        let word = match rng.u8(0..4) {
            0 => 0,
            1 => u64::MAX,
            2 => rng.u64(0..40),
            _ => rng.u64(..),
        };
        body.extend_from_slice(&word.to_le_bytes());
    }
    body.extend((0..rng.usize(0..12)).map(|_| 7));
    body
}

#[test]
fn no_bytes_break_the_decoder_of_messages() {
    let mut rng = rng("no_bytes_break_the_decoder_of_messages");
    let mut whole = 0;
    for _ in 0..iterations() {
        let body = Bytes::from(body(&mut rng));
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

/// Up to three frames; one in three has a bit flipped, and the end may be missing.
fn frames(rng: &mut Rng) -> BytesMut {
    let mut input = BytesMut::new();
    for _ in 0..rng.usize(0..4) {
        let body = body(rng);
        input.extend_from_slice(&(body.len() as u32).to_le_bytes());
        input.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        input.extend_from_slice(&body);
    }
    if !input.is_empty() && rng.u8(0..3) == 0 {
        let at = rng.usize(0..input.len());
        input[at] ^= 1 << rng.u8(0..8);
    }
    input.truncate(input.len() - rng.usize(0..=input.len()) / 4);
    input
}

#[test]
fn no_bytes_break_the_frames() {
    let mut rng = rng("no_bytes_break_the_frames");
    let (mut whole, mut broken) = (0, 0);
    for _ in 0..iterations() {
        let mut input = frames(&mut rng);
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
