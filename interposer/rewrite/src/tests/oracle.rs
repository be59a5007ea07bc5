//! The decoder against `iced-x86`: the same length and target, or none.

use super::{decode, programs};
use crate::Instruction;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, OpKind};

/// What the oracle reads at the start of `code`; `None`: not an instruction.
fn oracle(code: &[u8]) -> Option<Instruction> {
    // Bytes that only some processors take are judged by their length all the same.
    let options = DecoderOptions::NO_INVALID_CHECK;
    let mut decoder = Decoder::with_ip(64, code, 0, options);
    let read = decoder.decode();
    if read.code() == Code::INVALID {
        return None;
    }
    let is_near = matches!(
        read.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    );
    let branches = read.flow_control() != FlowControl::Next && is_near;
    let target = || read.near_branch_target().wrapping_sub(read.len() as u64);
    Some(Instruction {
        len: read.len(),
        branch_target: branches.then(|| target() as i64 as i32),
    })
}

/// How often we and the oracle say the same.
#[derive(Debug, Default)]
struct Agreement {
    same: u64,
    /// We say nothing.
    declined: u64,
    /// The oracle says that there is no instruction, and we may or may not.
    unjudged: u64,
    wrong: u64,
    examples: Vec<String>,
}

impl Agreement {
    fn look(&mut self, code: &[u8]) {
        match (decode(code), oracle(code)) {
            (_, None) => self.unjudged += 1,
            (None, Some(_)) => self.declined += 1,
            (Some(ours), Some(its)) if ours == its => self.same += 1,
            (ours, its) => {
                self.wrong += 1;
                if self.examples.len() < 20 {
                    let shown = &code[..code.len().min(15)];
                    self.examples
                        .push(format!("{shown:02x?}: {ours:?}, not {its:?}"));
                }
            }
        }
    }

    /// Asserts that we are never wrong, and shows the figures.
    fn told(self, what: &str) -> Self {
        let Self {
            same,
            declined,
            unjudged,
            wrong,
            ref examples,
        } = self;
        println!("{what}: {same} the same, {declined} declined, {unjudged} unjudged");
        assert!(wrong == 0, "{what}: {wrong} wrong\n{}", examples.join("\n"));
        self
    }
}

#[test]
fn real_code_is_decoded_as_by_the_oracle() {
    for program in programs() {
        let mut agreement = Agreement::default();
        for function in program.functions() {
            let mut rest = program.body(function);
            while !rest.is_empty() {
                agreement.look(rest);
                let len = oracle(rest).map_or(1, |it| it.len);
                rest = &rest[len.min(rest.len())..];
            }
        }
        let agreement = agreement.told(&format!("functions of {}", program.name));
        assert!(agreement.same > 100_000, "{agreement:?}");
        assert_eq!((agreement.declined, agreement.unjudged), (0, 0));
    }
}

#[test]
fn whatever_is_in_the_text_is_decoded_as_by_the_oracle_or_not_at_all() {
    for program in programs() {
        let mut agreement = Agreement::default();
        for at in 0..program.text.len() {
            agreement.look(&program.text[at..]);
        }
        agreement.told(&format!("every byte of {}", program.name));
    }
}

/// Every opcode of every map behind many combinations of prefixes, with every ModRM byte, or some
/// of them behind VEX and EVEX.
fn generated(mut look: impl FnMut(&[u8])) {
    const PREFIXES: [&[u8]; 12] = [
        &[],
        &[0x66],
        &[0x67],
        &[0xF2],
        &[0xF3],
        &[0x48],
        &[0x41],
        &[0x66, 0x48],
        &[0xF3, 0x48],
        &[0xF2, 0x66],
        &[0x66, 0x67, 0x4C],
        &[0x2E],
    ];
    const TAIL: [u8; 12] = [
        0x25, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB,
    ];
    let mut with_modrm = |start: &[&[u8]], step: usize| {
        for modrm in (0..=255).step_by(step) {
            look(&[&start.concat(), &[modrm][..], &TAIL].concat());
        }
    };
    for opcode in 0..=255 {
        for prefix in PREFIXES {
            with_modrm(&[prefix, &[opcode]], 1);
            with_modrm(&[prefix, &[0x0F, opcode]], 1);
            with_modrm(&[prefix, &[0x0F, 0x38, opcode]], 13);
            with_modrm(&[prefix, &[0x0F, 0x3A, opcode]], 13);
        }
        for second in [0x78, 0xF9, 0x7A, 0x7F, 0x01] {
            with_modrm(&[&[0xC5, second, opcode]], 37);
            for map in 0..32 {
                with_modrm(&[&[0xC4, 0xE0 | map, second, opcode]], 37);
            }
            for (map, third) in (0..8).zip([0x08, 0x28, 0x48, 0xD9, 0x0C].into_iter().cycle()) {
                with_modrm(&[&[0x62, 0xF0 | map, second, third, opcode]], 37);
                with_modrm(&[&[0x62, 0xF0 | map, second, third ^ 0x40, opcode]], 37);
            }
        }
    }
}

#[test]
fn every_opcode_is_decoded_as_by_the_oracle_or_not_at_all() {
    let mut agreement = Agreement::default();
    generated(|bytes| agreement.look(bytes));
    let agreement = agreement.told("generated");
    assert!(agreement.same > 500_000, "{agreement:?}");
}
