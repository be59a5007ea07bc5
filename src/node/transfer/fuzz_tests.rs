//! Random bytes for the decoder of what fetchers and donors say, half of the time whole messages with
//! a few bytes changed; and a donor that says anything.
//!
//! `BROLGA_FUZZ` says how many inputs (20000 if not set), `BROLGA_FUZZ_SEED` repeats a run.

use super::wire::{HEADER_BYTES, Message, Piece, Wanted, receive};
use crate::check::Chance;
use crate::node::fuzz_tests::{bytes, chance, damage, iterations};

fn message<'a>(chance: &mut Chance, bytes: &'a [u8]) -> Message<'a> {
    let wanted = Wanted {
        slot: chance.below(u64::MAX),
        manifest: chance.below(u64::MAX).into(),
    };
    let piece = Piece {
        file: chance.below(1 << 32) as u32,
        offset: chance.below(1 << 62),
        bytes: 1 + chance.below(1 << 18) as u32,
    };
    match chance.below(6) {
        0 => Message::Ask {
            at_least: chance.below(u64::MAX),
            rather: (chance.below(2) == 0).then_some(wanted),
            except: &bytes[..bytes.len() / 16 * 16],
        },
        1 => Message::Read(piece),
        2 => Message::Offer {
            what: wanted,
            manifest_bytes: chance.below(u64::MAX),
        },
        3 => Message::Nothing("a reason"),
        4 if !bytes.is_empty() => Message::Chunk {
            file: piece.file,
            offset: piece.offset,
            bytes,
        },
        _ => Message::Hole(piece),
    }
}

#[test]
fn no_bytes_break_the_decoder_of_transfers() {
    let mut chance = chance("no_bytes_break_the_decoder_of_transfers");
    let mut whole = 0;
    let (mut frame, mut again) = (Vec::new(), Vec::new());
    for _ in 0..iterations() {
        let content = bytes(&mut chance, 300);
        message(&mut chance, &content).encode(&mut frame);
        let (mut kind, mut payload) = (frame[0], frame.split_off(HEADER_BYTES));
        match chance.below(3) {
            0 => {}
            1 => damage(&mut chance, &mut payload),
            _ => (kind, payload) = (chance.below(8) as u8, bytes(&mut chance, 64)),
        }
        // Whatever is read is written again as the same bytes.
        if let Some(message) = Message::decode(kind, &payload) {
            whole += 1;
            message.encode(&mut again);
            assert_eq!((again[0], &again[HEADER_BYTES..]), (kind, &payload[..]));
        }
    }
    assert!(whole > 0);
}

#[test]
fn no_bytes_break_the_frames_of_transfers() {
    let mut chance = chance("no_bytes_break_the_frames_of_transfers");
    let (mut whole, mut broken) = (0, 0);
    let (mut frame, mut buffer) = (Vec::new(), Vec::new());
    for _ in 0..iterations() {
        let content = bytes(&mut chance, 300);
        message(&mut chance, &content).encode(&mut frame);
        match chance.below(3) {
            0 => {}
            1 => damage(&mut chance, &mut frame),
            _ => frame = bytes(&mut chance, 64),
        }
        match receive(&mut &frame[..], &mut buffer) {
            Ok(_) => whole += 1,
            Err(_) => broken += 1,
        }
        assert!(buffer.capacity() < 1 << 20, "too much memory is set aside");
    }
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} broken");
}
