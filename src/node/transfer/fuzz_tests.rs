//! Random bytes for the decoder of what fetchers and donors say, half of the time whole messages
//! with a few bytes changed; and a donor that says anything.
//!
//! `BROLGA_FUZZ` says how many inputs (20000 if not set), `BROLGA_FUZZ_SEED` repeats a run.

use super::wire::{CheckpointId, HEADER_BYTES, Message, Piece, receive};
use crate::testing::fuzz::{bytes, damage, iterations, seeded_rng};
use fastrand::Rng;

fn message<'a>(rng: &mut Rng, bytes: &'a [u8]) -> Message<'a> {
    let wanted = CheckpointId {
        slot: rng.u64(..u64::MAX),
        manifest: rng.u64(..u64::MAX).into(),
    };
    let piece = Piece {
        file: rng.u64(..1 << 32) as u32,
        offset: rng.u64(..1 << 62),
        bytes: 1 + rng.u64(..1 << 18) as u32,
    };
    match rng.u64(..6) {
        0 => Message::Ask {
            at_least: rng.u64(..u64::MAX),
            preferred: (rng.u64(..2) == 0).then_some(wanted),
            except: &bytes[..bytes.len() / 16 * 16],
        },
        1 => Message::Read(piece),
        2 => Message::Offer {
            what: wanted,
            manifest_bytes: rng.u64(..u64::MAX),
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
    let mut rng = seeded_rng("no_bytes_break_the_decoder_of_transfers");
    let mut whole = 0;
    let (mut frame, mut again) = (Vec::new(), Vec::new());
    for _ in 0..iterations() {
        let content = bytes(&mut rng, 300);
        message(&mut rng, &content).encode(&mut frame);
        let (mut kind, mut payload) = (frame[0], frame.split_off(HEADER_BYTES));
        match rng.u64(..3) {
            0 => {}
            1 => damage(&mut rng, &mut payload),
            _ => (kind, payload) = (rng.u64(..8) as u8, bytes(&mut rng, 64)),
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
    let mut rng = seeded_rng("no_bytes_break_the_frames_of_transfers");
    let (mut whole, mut broken) = (0, 0);
    let (mut frame, mut buffer) = (Vec::new(), Vec::new());
    for _ in 0..iterations() {
        let content = bytes(&mut rng, 300);
        message(&mut rng, &content).encode(&mut frame);
        match rng.u64(..3) {
            0 => {}
            1 => damage(&mut rng, &mut frame),
            _ => frame = bytes(&mut rng, 64),
        }
        match receive(&mut &frame[..], &mut buffer) {
            Ok(_) => whole += 1,
            Err(_) => broken += 1,
        }
        assert!(buffer.capacity() < 1 << 20, "too much memory is set aside");
    }
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} broken");
}
