//! Lengths of x86-64 instructions, and the targets of direct jumps and calls.
//!
//! Opcode maps after the AMD64 Architecture Programmer's Manual, volume 3, appendix A.

/// The longest instruction that a processor takes, prefixes included.
pub(crate) const INSTRUCTION_BYTES_MAX: usize = 15;

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Length in bytes.
    pub len: usize,
    /// Target of a direct jump or call, relative to the end of the instruction.
    pub branch_target: Option<i32>,
}

/// Operand encoding: what follows an opcode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Encoding {
    modrm: bool,
    /// Bytes of immediates.
    immediate: usize,
    /// The immediate is the target of a branch.
    branch: bool,
}

const fn operands(modrm: bool, immediate: usize) -> Encoding {
    Encoding {
        modrm,
        immediate,
        branch: false,
    }
}

const fn branch(immediate: usize) -> Encoding {
    Encoding {
        modrm: false,
        immediate,
        branch: true,
    }
}

/// Prefixes that change lengths.
#[derive(Clone, Copy, Default)]
struct Prefixes {
    operand_16: bool,
    address_32: bool,
    operand_64: bool,
}

/// Decodes the instruction at the start of `code`. `None` when it does not exist in 64-bit mode, is
/// cut off, or is one that compilers do not generate.
#[must_use]
pub fn decode(code: &[u8]) -> Option<Instruction> {
    let mut at = 0;
    let mut prefixes = Prefixes::default();
    loop {
        match *code.get(at)? {
            0x66 => prefixes.operand_16 = true,
            0x67 => prefixes.address_32 = true,
            0xF0 | 0xF2 | 0xF3 | 0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65 => {}
            _ => break,
        }
        at += 1;
    }
    if let rex @ 0x40..=0x4F = *code.get(at)? {
        prefixes.operand_64 = rex & 8 != 0;
        at += 1;
    }
    let opcode = *code.get(at)?;
    at += 1;
    let encoding = match opcode {
        0x0F => {
            let second = *code.get(at)?;
            at += 1;
            match second {
                0x38 | 0x3A => {
                    at += 1;
                    operands(true, usize::from(second == 0x3A))
                }
                _ => two_bytes(second)?,
            }
        }
        0xC4 | 0xC5 | 0x62 => {
            let (map, opcode_at) = match opcode {
                0xC5 => (1, at + 1),
                0xC4 => (*code.get(at)? & 0x1F, at + 2),
                _ => (*code.get(at)? & 0x07, at + 3),
            };
            at = opcode_at + 1;
            vector(map, *code.get(opcode_at)?)?
        }
        _ => one_byte(opcode, *code.get(at).unwrap_or(&0), prefixes)?,
    };
    if encoding.modrm {
        at += operand(code.get(at..)?)?;
    }
    let immediate = code.get(at..at + encoding.immediate)?;
    let branch_target = match *immediate {
        [near] if encoding.branch => Some(near.cast_signed().into()),
        [a, b, c, d] if encoding.branch => Some(i32::from_le_bytes([a, b, c, d])),
        _ => None,
    };
    let len = at + encoding.immediate;
    (len <= INSTRUCTION_BYTES_MAX).then_some(Instruction { len, branch_target })
}

/// Returns the bytes of a ModRM operand.
fn operand(code: &[u8]) -> Option<usize> {
    let modrm = *code.first()?;
    let (mode, register) = (modrm >> 6, modrm & 7);
    if mode == 3 {
        return Some(1);
    }
    let mut len = 1;
    let mut base = register;
    if register == 4 {
        base = *code.get(1)? & 7;
        len += 1;
    }
    len += match mode {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    Some(len)
}

fn one_byte(opcode: u8, modrm: u8, prefixes: Prefixes) -> Option<Encoding> {
    // REX.W wins over the prefix for 16 bits.
    let short = prefixes.operand_16 && !prefixes.operand_64;
    let word = if short { 2 } else { 4 };
    let group = modrm >> 3 & 7;
    let tested = usize::from(modrm & 0x38 < 0x10);
    Some(match opcode {
        // xbegin: where execution goes on when the transaction is aborted. xabort.
        0xC7 if modrm == 0xF8 && !short => Encoding {
            modrm: true,
            ..branch(4)
        },
        0xC6 if modrm == 0xF8 => operands(true, 1),
        // Members of groups that do not exist, and AMD's XOP.
        0x8F | 0xC6 | 0xC7 if group != 0 => return None,
        0xFE if group > 1 => return None,
        0xFF if group == 7 => return None,
        0x00..=0x3F => match opcode & 7 {
            0..=3 => operands(true, 0),
            4 => operands(false, 1),
            5 => operands(false, word),
            _ => return None,
        },
        0x50..=0x5F | 0x90..=0x99 | 0x9B..=0x9F => operands(false, 0),
        0x63 | 0x84..=0x8F | 0xD0..=0xD3 | 0xD8..=0xDF | 0xFE | 0xFF => operands(true, 0),
        0x68 | 0xA9 => operands(false, word),
        0x69 | 0x81 | 0xC7 => operands(true, word),
        0x6A | 0xA8 | 0xB0..=0xB7 | 0xCD | 0xE4..=0xE7 => operands(false, 1),
        0x6B | 0x80 | 0x83 | 0xC0 | 0xC1 | 0xC6 => operands(true, 1),
        0x6C..=0x6F | 0xA4..=0xA7 | 0xAA..=0xAF | 0xEC..=0xEF => operands(false, 0),
        0x70..=0x7F | 0xE0..=0xE3 | 0xEB => branch(1),
        0xA0..=0xA3 if !prefixes.address_32 => operands(false, 8),
        0xB8..=0xBF if prefixes.operand_64 => operands(false, 8),
        0xB8..=0xBF => operands(false, word),
        0xC2 | 0xCA => operands(false, 2),
        0xC8 => operands(false, 3),
        0xC3 | 0xC9 | 0xCB | 0xCC | 0xCF | 0xD7 => operands(false, 0),
        0xE8 | 0xE9 if !prefixes.operand_16 => branch(4),
        0xF1 | 0xF4 | 0xF5 | 0xF8..=0xFD => operands(false, 0),
        0xF6 => operands(true, tested),
        0xF7 => operands(true, tested * word),
        _ => return None,
    })
}

fn two_bytes(opcode: u8) -> Option<Encoding> {
    Some(match opcode {
        // Moves from and to control registers, whose ModRM has a meaning of its own; vmread and
        // vmwrite, which are AMD's extrq and insertq behind other prefixes.
        0x20..=0x23 | 0x78 | 0x79 => return None,
        0x04 | 0x0A | 0x0C | 0x24..=0x27 | 0x36 | 0x39 | 0x3B..=0x3F | 0x7A | 0x7B => return None,
        0x05..=0x09 | 0x0B | 0x0E | 0x30..=0x37 | 0x77 => operands(false, 0),
        0xA0..=0xA2 | 0xA8..=0xAA | 0xC8..=0xCF => operands(false, 0),
        0x0F | 0x70..=0x73 | 0xA4 | 0xAC | 0xBA | 0xC2 | 0xC4..=0xC6 => operands(true, 1),
        0x80..=0x8F => branch(4),
        _ => operands(true, 0),
    })
}

/// Opcodes behind a VEX or EVEX prefix.
fn vector(map: u8, opcode: u8) -> Option<Encoding> {
    Some(match (map, opcode) {
        (1, 0x77) => operands(false, 0),
        (1, 0x70..=0x73 | 0xC2 | 0xC4..=0xC6) | (3, _) => operands(true, 1),
        (1 | 2 | 5 | 6, _) => operands(true, 0),
        _ => return None,
    })
}
