use super::*;
use object::{Object, ObjectSection};
use std::fs;

mod oracle;

/// A loaded file's code and table of functions, with their addresses.
struct Program {
    name: String,
    text: Vec<u8>,
    text_start: u64,
    frames: Vec<u8>,
    frames_start: u64,
}

impl Program {
    fn read(path: &str) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = |name| {
            let section = file.section_by_name(name).expect(name);
            (section.data().unwrap().to_vec(), section.address())
        };
        let (text, text_start) = section(".text");
        let (mut frames, frames_start) = section(".eh_frame_hdr");
        let (descriptions, descriptions_start) = section(".eh_frame");
        let gap = descriptions_start - frames_start;
        frames.resize(gap.try_into().unwrap(), 0);
        frames.extend(descriptions);
        Self {
            name: path.to_owned(),
            text,
            text_start,
            frames,
            frames_start,
        }
    }

    fn functions(&self) -> Vec<Function> {
        let frames = Frames::new(&self.frames, self.frames_start).unwrap();
        let all = (0..).map_while(|index| frames.function(index));
        let end = self.text_start + self.text.len() as u64;
        all.filter(|it| it.start >= self.text_start && it.end <= end)
            .collect()
    }

    fn body(&self, function: Function) -> &[u8] {
        let offset = |address: u64| usize::try_from(address - self.text_start).unwrap();
        &self.text[offset(function.start)..offset(function.end)]
    }

    /// Whether decoding a function from its start ends at its end.
    fn decodes(&self, function: Function) -> bool {
        let mut rest = self.body(function);
        while let Some(instruction) = decode(rest).filter(|_| !rest.is_empty()) {
            rest = &rest[instruction.len..];
        }
        rest.is_empty()
    }
}

/// This test, and the libc that it uses.
fn programs() -> Vec<Program> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find(|line| line.contains("/libc.so.6"));
    let libc = libc.unwrap().split_whitespace().last().unwrap();
    ["/proc/self/exe", libc].map(Program::read).into()
}

#[test]
fn decoding_functions_ends_where_they_end() {
    for program in programs() {
        let functions = program.functions();
        assert!(functions.len() > 500, "{}", functions.len());
        let failed: Vec<_> = functions
            .iter()
            .filter(|function| !program.decodes(**function))
            .collect();
        // Some of libc's assembly has a prefix before a label.
        assert!(
            failed.len() * 500 < functions.len(),
            "{}: {failed:x?} of {}",
            program.name,
            functions.len()
        );
    }
}

#[test]
fn functions_are_found_by_any_address_in_them() {
    for program in programs() {
        let frames = Frames::new(&program.frames, program.frames_start).unwrap();
        for function in program.functions() {
            let middle = function.start.midpoint(function.end);
            for address in [function.start, middle, function.end - 1] {
                assert_eq!(frames.around(address), Some(function));
            }
        }
        assert_eq!(frames.around(0), None);
        assert_eq!(frames.around(u64::MAX), None);
    }
}

#[test]
fn lengths() {
    let known: [(&[u8], Option<i32>); 19] = [
        (&[0x0F, 0x31], None),
        (&[0x48, 0xC1, 0xE2, 0x20], None),
        (&[0x48, 0x8D, 0x15, 1, 2, 3, 4], None),
        (&[0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0], None),
        (&[0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8], None),
        (&[0x66, 0xB8, 1, 2], None),
        (&[0xF6, 0x45, 0xF8, 1], None),
        (&[0xF6, 0x5D, 0xF8], None),
        (&[0x64, 0x48, 0x8B, 0x04, 0x25, 0x28, 0, 0, 0], None),
        (&[0xEB, 0xFE], Some(-2)),
        (&[0x0F, 0x84, 0, 1, 0, 0], Some(256)),
        (&[0xE8, 0xFB, 0xFF, 0xFF, 0xFF], Some(-5)),
        (&[0xC5, 0xF8, 0x77], None),
        (&[0x62, 0xF1, 0x7C, 0x48, 0x10, 0x47, 1], None),
        // REX.W wins over the prefix for 16 bits.
        (&[0x66, 0x48, 0x05, 1, 2, 3, 4], None),
        (&[0x66, 0x48, 0xC7, 0xC0, 1, 2, 3, 4], None),
        (&[0x66, 0x48, 0xF7, 0xC0, 1, 2, 3, 4], None),
        // xbegin jumps when the transaction is aborted; xabort
        (&[0xC7, 0xF8, 0, 1, 0, 0], Some(256)),
        (&[0xC6, 0xF8, 1], None),
    ];
    for (bytes, branch_target) in known {
        let len = bytes.len();
        let expected = Instruction { len, branch_target };
        assert_eq!(decode(bytes), Some(expected), "{bytes:x?}");
        assert_eq!(decode(&bytes[..len - 1]), None, "{bytes:x?} cut off");
    }
    // Gone in 64-bit mode; mov from cr0, whose ModRM always names registers; extrq with two
    // immediates; xbegin with two bytes; vpcmov, behind AMD's XOP; nothing at all.
    let none: [&[u8]; 6] = [
        &[0x06],
        &[0x0F, 0x20, 0x04, 0x25, 1, 2, 3, 4],
        &[0x66, 0x0F, 0x78, 0xC0, 1, 2],
        &[0x66, 0xC7, 0xF8, 0, 1],
        &[0x8F, 0xE8, 0x78, 0xA2, 0xC1, 0x10],
        &[],
    ];
    for bytes in none {
        assert_eq!(decode(bytes), None, "{bytes:x?}");
    }
    // No instruction has more than 15 bytes, however many prefixes there are.
    let prefixed = |count| [&vec![0x26; count][..], &[0xFF, 0x84, 0x84, 1, 2, 3, 4]].concat();
    assert_eq!(decode(&prefixed(8)).map(|it| it.len), Some(15));
    assert_eq!(decode(&prefixed(9)), None);
}

const START: u64 = 0x1000;
const TABLE: u64 = 0x10_0000;
const NEW: u64 = 0x50_0000;
const RDTSC: [u8; 2] = [0x0F, 0x31];

/// A table of functions that follow each other from [`START`] on, as linkers write it.
fn table(sizes: &[usize]) -> Vec<u8> {
    let relative = |to: u64, from: u64| to.wrapping_sub(from) as i32;
    let mut bytes = vec![1, 0x1B, 0x03, 0x3B];
    bytes.extend([0; 4]);
    bytes.extend((sizes.len() as u32).to_le_bytes());
    let descriptions = 12 + 8 * sizes.len();
    let mut start = START;
    let mut starts = Vec::new();
    for (size, index) in sizes.iter().zip(0..) {
        bytes.extend(relative(start, TABLE).to_le_bytes());
        bytes.extend(((descriptions + 16 * index) as u32).to_le_bytes());
        starts.push((start, *size as u32));
        start += *size as u64;
    }
    for (start, size) in starts {
        bytes.extend([12, 0, 0, 0, 0, 0, 0, 0]);
        let place = TABLE + bytes.len() as u64;
        bytes.extend(relative(start, place).to_le_bytes());
        bytes.extend(size.to_le_bytes());
    }
    bytes
}

/// Plans for functions made of instructions, to replace the first `rdtsc` by a `nop`.
fn replaced_among(functions: &[&[&[u8]]]) -> Result<Vec<u8>, Refusal> {
    let functions: Vec<_> = functions.iter().map(|it| it.concat()).collect();
    let sizes: Vec<_> = functions.iter().map(Vec::len).collect();
    let (bytes, table) = (functions.concat(), table(&sizes));
    let at = bytes.windows(2).position(|two| two == RDTSC).unwrap();
    let text = Text {
        bytes: &bytes,
        start: START,
        frames: Frames::new(&table, TABLE).unwrap(),
    };
    let mut code = Code::at(NEW);
    code.push(&[0x90]).unwrap();
    plan(code, &text, START + at as u64, RDTSC.len()).map(|code| code.bytes().to_vec())
}

fn replaced(instructions: &[&[u8]]) -> Result<Vec<u8>, Refusal> {
    replaced_among(&[instructions])
}

#[test]
fn what_is_in_the_way_moves_along() {
    let shift: &[u8] = &[0x48, 0xC1, 0xE2, 0x20];
    let code = replaced(&[&RDTSC, shift, &[0xC3]]).unwrap();
    // nop, shift, jump to behind the shift
    let back = (START + 6).wrapping_sub(NEW + 10) as i32;
    assert_eq!(code[..6], [&[0x90], shift, &[0xE9]].concat());
    assert_eq!(code[6..], back.to_le_bytes());
}

#[test]
fn relative_addresses_stay_what_they_are() {
    let code = replaced(&[&[0x90], &RDTSC, &[0x48, 0x8D, 0x15, 0, 2, 0, 0], &[0xC3]]).unwrap();
    let target = START + 10 + 0x200;
    let moved = target.wrapping_sub(NEW + 8) as i32;
    assert_eq!(code[..4], [0x90, 0x48, 0x8D, 0x15]);
    assert_eq!(code[4..8], moved.to_le_bytes());
}

#[test]
fn several_may_move() {
    let pop: &[u8] = &[0x5D];
    let code = replaced(&[&RDTSC, pop, pop, pop, &[0xC3]]).unwrap();
    assert_eq!(code[..5], [0x90, 0x5D, 0x5D, 0x5D, 0xE9]);
}

#[test]
fn refusals() {
    let shift: &[u8] = &[0x48, 0xC1, 0xE2, 0x20];
    let mov: &[u8] = &[0x48, 0x89, 0xC6];
    let end: &[u8] = &[0xC3];
    let cases: [(&[&[u8]], Refusal); 6] = [
        // A loop that comes back to behind the instruction.
        (
            &[&RDTSC, mov, shift, &[0xEB, 0xF7], end],
            Refusal::JumpedInto,
        ),
        // A jump from before it.
        (
            &[&[0x74, 0x02], &RDTSC, mov, shift, end],
            Refusal::JumpedInto,
        ),
        (&[&RDTSC, &[0xFF, 0xD3], &[0x90], end], Refusal::Unmovable),
        (&[&RDTSC, &[0xEB, 0x00], &[0x90], end], Refusal::Unmovable),
        (&[&RDTSC, end], Refusal::Unmovable),
        (&[&[0x06], &RDTSC, shift, end], Refusal::Undecoded),
    ];
    for (instructions, expected) in cases {
        assert_eq!(replaced(instructions), Err(expected), "{instructions:x?}");
    }
    // An immediate that looks like the instruction.
    let hidden: &[u8] = &[0xB8, 0x0F, 0x31, 0x48, 0x89];
    let hidden = replaced(&[hidden, &[0xC6, 0x48, 0x89, 0xC6], end]);
    assert!(hidden.is_err(), "{hidden:x?}");
}

#[test]
fn jumps_to_the_instruction_itself_are_welcome() {
    let shift: &[u8] = &[0x48, 0xC1, 0xE2, 0x20];
    let back: &[u8] = &[0xEB, 0xF8];
    assert!(replaced(&[&RDTSC, shift, back]).is_ok());
}

#[test]
fn jumps_from_other_functions_count() {
    let shift: &[u8] = &[0x48, 0xC1, 0xE2, 0x20];
    let end: &[u8] = &[0xC3];
    let function: &[&[u8]] = &[&RDTSC, shift, end];
    // From 7 + 6 back to 2.
    let jump: &[u8] = &[0x0F, 0x84, 0xF5, 0xFF, 0xFF, 0xFF];
    assert_eq!(
        replaced_among(&[function, &[jump, end]]),
        Err(Refusal::JumpedInto)
    );
    // From 7 + 8, in an immediate.
    let immediate: &[u8] = &[0x48, 0xB8, 0x0F, 0x84, 0xF3, 0xFF, 0xFF, 0xFF, 0, 0];
    assert!(replaced_among(&[function, &[immediate, end]]).is_ok());
}

#[test]
fn jumps_reach_two_gigabytes() {
    let near = jump(START, START + 0x7FFF_FFFF).unwrap();
    assert_eq!(near.bytes(), [0xE9, 0xFA, 0xFF, 0xFF, 0x7F]);
    let far = jump(START, START + 0x8000_0005).unwrap_err();
    assert_eq!(far, Refusal::OutOfReach);
}
