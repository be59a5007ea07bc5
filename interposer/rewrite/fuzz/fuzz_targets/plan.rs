//! No code breaks the planner, and what it plans fits.
#![no_main]

use brolga_rewrite::{CODE_BYTES, Code, Frames, Text, plan};
use libfuzzer_sys::fuzz_target;

const START: u64 = 0x1000;
const TABLE: u64 = 0x10_0000;
const NEW: u64 = 0x50_0000;

/// The table of two functions, the second of which begins at `middle`.
fn table(len: usize, middle: usize) -> Vec<u8> {
    let relative = |to: u64, from: u64| to.wrapping_sub(from) as i32;
    let functions = [(0, middle), (middle, len)];
    let mut bytes = vec![1, 0x1B, 0x03, 0x3B, 0, 0, 0, 0, 2, 0, 0, 0];
    for (index, (start, _)) in functions.iter().enumerate() {
        bytes.extend(relative(START + *start as u64, TABLE).to_le_bytes());
        bytes.extend((28 + 16 * index as u32).to_le_bytes());
    }
    for (start, end) in functions {
        bytes.extend([12, 0, 0, 0, 0, 0, 0, 0]);
        let place = TABLE + bytes.len() as u64;
        bytes.extend(relative(START + start as u64, place).to_le_bytes());
        bytes.extend(((end - start) as u32).to_le_bytes());
    }
    bytes
}

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (at, middle, bytes) = input;
    if bytes.is_empty() {
        return;
    }
    let (at, middle) = (
        usize::from(at) % bytes.len(),
        usize::from(middle) % bytes.len(),
    );
    let table = table(bytes.len(), middle);
    let Some(frames) = Frames::new(&table, TABLE) else {
        unreachable!("the form that linkers produce");
    };
    let text = Text {
        bytes,
        start: START,
        frames,
    };
    if let Ok(code) = plan(Code::at(NEW), &text, START + at as u64, 2) {
        assert!(code.bytes().len() <= CODE_BYTES);
    }
});
