//! Random bytes for the decoders of what nodes and sidecars say to each other. Half of the time whole
//! messages with a few bytes changed.
//!
//! `BROLGA_FUZZ` says how many inputs (20000 if not set), `BROLGA_FUZZ_SEED` repeats a run.

use super::exchange::Exchange;
use super::output::SlotHashes;
use super::peer_frames::PeerFrame;
use super::wire::{Hello, each_progress, put_progress, split_events};
use crate::check::Chance;

pub(super) fn chance(name: &str) -> Chance {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let given = std::env::var("BROLGA_FUZZ_SEED");
    let seed = given.map_or_else(
        |_| now.unwrap().as_nanos() as u64,
        |text| text.parse().unwrap(),
    );
    println!("{name}: BROLGA_FUZZ_SEED={seed}");
    Chance::new(seed)
}

pub(super) fn iterations() -> usize {
    let given = std::env::var("BROLGA_FUZZ").ok();
    given.map_or(20_000, |text| text.parse().unwrap())
}

pub(super) fn bytes(chance: &mut Chance, most: u64) -> Vec<u8> {
    let len = chance.below(most + 1);
    (0..len).map(|_| chance.below(256) as u8).collect()
}

pub(super) fn damage(chance: &mut Chance, bytes: &mut Vec<u8>) {
    for _ in 0..chance.below(4) {
        let at = chance.below(bytes.len() as u64 + 1) as usize;
        match (chance.below(4), bytes.get_mut(at)) {
            (0, _) => bytes.truncate(at),
            (1, Some(byte)) => *byte = 0xFF,
            (_, Some(byte)) => *byte = chance.below(256) as u8,
            (_, None) => bytes.push(chance.below(256) as u8),
        }
    }
}

fn hashes(chance: &mut Chance) -> SlotHashes {
    SlotHashes {
        slot: chance.below(u64::MAX),
        output_hash: chance.below(u64::MAX),
        schedule_hash: chance.below(u64::MAX),
    }
}

fn exchange(chance: &mut Chance) -> Exchange {
    let (low, high) = (chance.below(u64::MAX), chance.below(u64::MAX));
    match chance.below(6) {
        0 => Exchange::Report(hashes(chance)),
        1 => Exchange::Probe { low, high },
        2 => Exchange::Samples {
            low,
            high,
            hashes: (0..chance.below(5)).map(|_| hashes(chance)).collect(),
        },
        3 => Exchange::Inspect {
            slot: low,
            hashes: (0..chance.below(9))
                .map(|_| chance.below(u64::MAX))
                .collect(),
        },
        4 => Exchange::Finding {
            slot: low,
            index: high,
            record: bytes(chance, 60),
        },
        _ => Exchange::Confession(bytes(chance, 60)),
    }
}

#[test]
fn no_bytes_break_what_nodes_say() {
    let mut chance = chance("no_bytes_break_what_nodes_say");
    let mut whole = 0;
    for _ in 0..iterations() {
        let message = exchange(&mut chance);
        let mut encoded = message.encode();
        assert_eq!(Exchange::decode(&encoded), Some(message));
        damage(&mut chance, &mut encoded);
        if let Some(message) = Exchange::decode(&encoded) {
            whole += 1;
            assert_eq!(Exchange::decode(&message.encode()), Some(message));
        }
        let mut frame = Vec::new();
        PeerFrame::Compare(&encoded).encode(&mut frame);
        damage(&mut chance, &mut frame);
        if let Some(found) = PeerFrame::decode(&frame) {
            let mut again = Vec::new();
            found.encode(&mut again);
            assert_eq!(PeerFrame::decode(&again), Some(found));
        }
    }
    assert!(whole > 0);
}

#[test]
fn no_bytes_break_what_sidecars_say() {
    let mut chance = chance("no_bytes_break_what_sidecars_say");
    let mut whole = 0;
    for _ in 0..iterations() {
        let conns = 0..chance.below(6);
        let conns = conns.map(|at| (at, chance.below(1 << 40))).collect();
        let hello = Hello {
            version: chance.below(5) as u32,
            cluster: 7,
            frontend: chance.below(u64::MAX),
            conns,
        };
        let mut encoded = hello.encode();
        assert_eq!(Hello::decode(&encoded), Some(hello));
        damage(&mut chance, &mut encoded);
        if let Some(hello) = Hello::decode(&encoded) {
            whole += 1;
            assert!(16 * hello.conns.len() <= encoded.len());
        }
        let random = bytes(&mut chance, 200);
        let mut again = Vec::new();
        for (counter, progress) in each_progress(&random) {
            put_progress(&mut again, counter, progress);
        }
        assert!(again.len() <= random.len());
        assert_eq!(split_events(&random).is_some(), random.len() >= 8);
    }
    assert!(whole > 0);
}
