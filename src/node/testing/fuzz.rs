//! Random bytes for the decoders of the messages between nodes and stand-alone frontends. Half of
//! the time whole messages with a few bytes changed.
//!
//! `BROLGA_FUZZ` says how many inputs (20000 if not set), `BROLGA_FUZZ_SEED` repeats a run.

use crate::divergence::messages::DivergenceMessage;
use crate::fuzzing;
use crate::peers::frames::PeerFrame;
use crate::proxy::wire::{Hello, each_progress, put_progress, split_events};
use crate::server::hashes::SlotHashes;
use fastrand::Rng;

pub(crate) fn seeded_rng(name: &str) -> Rng {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let given = std::env::var("BROLGA_FUZZ_SEED");
    let seed = given.map_or_else(
        |_| now.unwrap().as_nanos() as u64,
        |text| text.parse().unwrap(),
    );
    println!("{name}: BROLGA_FUZZ_SEED={seed}");
    Rng::with_seed(seed)
}

pub(crate) fn iterations() -> usize {
    let given = std::env::var("BROLGA_FUZZ").ok();
    given.map_or(20_000, |text| text.parse().unwrap())
}

pub(crate) fn bytes(rng: &mut Rng, most: u64) -> Vec<u8> {
    let len = rng.u64(..most + 1);
    (0..len).map(|_| rng.u64(..256) as u8).collect()
}

pub(crate) fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.u64(..4) {
        let at = rng.u64(..bytes.len() as u64 + 1) as usize;
        match (rng.u64(..4), bytes.get_mut(at)) {
            (0, _) => bytes.truncate(at),
            (1, Some(byte)) => *byte = 0xFF,
            (_, Some(byte)) => *byte = rng.u64(..256) as u8,
            (_, None) => bytes.push(rng.u64(..256) as u8),
        }
    }
}

fn hashes(rng: &mut Rng) -> SlotHashes {
    SlotHashes {
        slot: rng.u64(..u64::MAX),
        output_hash: rng.u64(..u64::MAX),
        schedule_hash: rng.u64(..u64::MAX),
    }
}

fn message(rng: &mut Rng) -> DivergenceMessage {
    let (low, high) = (rng.u64(..u64::MAX), rng.u64(..u64::MAX));
    match rng.u64(..6) {
        0 => DivergenceMessage::Applied(hashes(rng)),
        1 => DivergenceMessage::Probe { low, high },
        2 => DivergenceMessage::Samples {
            low,
            high,
            hashes: (0..rng.u64(..5)).map(|_| hashes(rng)).collect(),
        },
        3 => DivergenceMessage::Inspect {
            slot: low,
            hashes: (0..rng.u64(..9)).map(|_| rng.u64(..u64::MAX)).collect(),
        },
        4 => DivergenceMessage::Finding {
            slot: low,
            index: high,
            record: bytes(rng, 60),
        },
        _ => DivergenceMessage::Report(bytes(rng, 60)),
    }
}

#[test]
fn no_bytes_break_the_messages_of_nodes() {
    let mut rng = seeded_rng("no_bytes_break_the_messages_of_nodes");
    let mut whole = 0;
    for _ in 0..iterations() {
        let message = message(&mut rng);
        let mut encoded = message.encode();
        assert_eq!(DivergenceMessage::decode(&encoded), Some(message));
        damage(&mut rng, &mut encoded);
        if let Some(message) = DivergenceMessage::decode(&encoded) {
            whole += 1;
            assert_eq!(DivergenceMessage::decode(&message.encode()), Some(message));
        }
        let mut frame = Vec::new();
        PeerFrame::Compare(&encoded).encode(&mut frame);
        damage(&mut rng, &mut frame);
        if let Some(found) = PeerFrame::decode(&frame) {
            let mut again = Vec::new();
            found.encode(&mut again);
            assert_eq!(PeerFrame::decode(&again), Some(found));
        }
    }
    assert!(whole > 0);
}

#[test]
fn no_bytes_break_the_messages_of_stand_alone_frontends() {
    let mut rng = seeded_rng("no_bytes_break_the_messages_of_stand_alone_frontends");
    let mut whole = 0;
    for _ in 0..iterations() {
        let conns = 0..rng.u64(..6);
        let conns = conns.map(|at| (at, rng.u64(..1 << 40))).collect();
        let hello = Hello {
            version: rng.u64(..5) as u32,
            cluster: 7,
            frontend: rng.u64(..u64::MAX),
            conns,
        };
        let mut encoded = hello.encode();
        assert_eq!(Hello::decode(&encoded), Some(hello));
        damage(&mut rng, &mut encoded);
        if let Some(hello) = Hello::decode(&encoded) {
            whole += 1;
            assert!(16 * hello.conns.len() <= encoded.len());
        }
        let random = bytes(&mut rng, 200);
        let mut again = Vec::new();
        for (counter, progress) in each_progress(&random) {
            put_progress(&mut again, counter, progress);
        }
        assert!(again.len() <= random.len());
        assert_eq!(split_events(&random).is_some(), random.len() >= 8);
    }
    assert!(whole > 0);
}

#[test]
fn no_random_bytes_break_any_decoder() {
    let mut rng = seeded_rng("no_random_bytes_break_any_decoder");
    for _ in 0..iterations() / 10 {
        let random = bytes(&mut rng, 300);
        fuzzing::divergence_messages(&random);
        fuzzing::join_wire(&random);
        fuzzing::peer_frames(&random);
        fuzzing::proxy_wire(&random);
        fuzzing::transfer_wire(&random);
    }
}
