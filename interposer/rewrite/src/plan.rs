//! The plan of a replacement: which code is written, and whether that is safe.

use crate::frame::{Frames, Function};
use crate::instruction::{INSTRUCTION_BYTES_MAX, Instruction, decode};
use core::ops::Range;

/// A jump with a displacement of four bytes.
pub const JUMP_BYTES: usize = 5;
const JUMP: u8 = 0xE9;
/// Room that [`Code`] has.
pub const CODE_BYTES: usize = 128;

/// Machine code under construction.
#[derive(Clone, Debug)]
pub struct Code {
    bytes: [u8; CODE_BYTES],
    len: usize,
    /// The address at which it will lie.
    address: u64,
}

/// The reasons why a place stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The function cannot be decoded, or not so that the place is an instruction.
    Undecoded,
    /// An instruction after it is not known to mean the same elsewhere.
    Unmovable,
    /// Something jumps between the instructions that would have to move.
    JumpedInto,
    /// The new code is too far away, or too long.
    OutOfReach,
}

impl Code {
    /// Returns empty code for an address.
    #[must_use]
    pub fn at(address: u64) -> Self {
        Self {
            bytes: [0; CODE_BYTES],
            len: 0,
            address,
        }
    }

    /// The code so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Refusal::OutOfReach`] when the code gets too long.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let room = self.bytes.get_mut(self.len..self.len + bytes.len());
        room.ok_or(Refusal::OutOfReach)?.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// Appends the distance from its own end to an address, in four bytes.
    fn push_distance(&mut self, target: u64) -> Result<(), Refusal> {
        let end = self.address + self.len as u64 + 4;
        let distance = target.wrapping_sub(end).cast_signed();
        let distance = i32::try_from(distance).map_err(|_| Refusal::OutOfReach)?;
        self.push(&distance.to_le_bytes())
    }
}

/// Returns a jump from one address to another.
///
/// # Errors
/// [`Refusal::OutOfReach`] when the distance is too large.
pub fn jump(from: u64, to: u64) -> Result<Code, Refusal> {
    let mut code = Code::at(from);
    code.push(&[JUMP])?;
    code.push_distance(to)?;
    Ok(code)
}

/// All code of a loaded file.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The executable segment.
    pub bytes: &'a [u8],
    /// Its address.
    pub start: u64,
    /// The file's functions.
    pub frames: Frames<'a>,
}

impl<'a> Text<'a> {
    fn offset(&self, address: u64) -> Option<usize> {
        usize::try_from(address.checked_sub(self.start)?).ok()
    }

    /// From an address to the end.
    fn from(&self, address: u64) -> Option<&'a [u8]> {
        self.bytes.get(self.offset(address)?..)
    }

    fn body(&self, function: Function) -> Result<&'a [u8], Refusal> {
        let ends = self
            .offset(function.start)
            .zip(self.offset(function.end))
            .and_then(|(start, end)| self.bytes.get(start..end));
        ends.ok_or(Refusal::Undecoded)
    }

    /// The instructions of a function with their addresses, up to one that can't be decoded
    /// (`None`).
    fn instructions(
        &self,
        function: Function,
    ) -> Result<impl Iterator<Item = Option<(u64, Instruction)>> + 'a, Refusal> {
        let body = self.body(function)?;
        let mut at = 0;
        Ok(core::iter::from_fn(move || {
            let rest = body.get(at..).filter(|rest| !rest.is_empty())?;
            let found = decode(rest).map(|it| (function.start + at as u64, it));
            at = found.map_or(body.len(), |(_, instruction)| at + instruction.len);
            Some(found)
        }))
    }
}

/// Completes `code`, which does what the instruction of `len` bytes at `place` does, so that a jump
/// to it may replace that instruction: appends the instructions that are in the jump's way and a
/// jump back.
///
/// # Errors
/// See [`Refusal`].
pub fn plan(mut code: Code, text: &Text<'_>, place: u64, len: usize) -> Result<Code, Refusal> {
    let function = text.frames.around(place).ok_or(Refusal::Undecoded)?;
    let mut taken = len;
    while taken < JUMP_BYTES {
        let bytes = text.from(place + taken as u64).ok_or(Refusal::Unmovable)?;
        let moved = decode(bytes).ok_or(Refusal::Undecoded)?.len;
        let whole = &bytes[..moved];
        taken += moved;
        if is_movable(whole) {
            code.push(whole)?;
        } else if let Some((operation, distance)) = relative(whole) {
            code.push(operation)?;
            code.push_distance((place + taken as u64).wrapping_add_signed(distance.into()))?;
        } else {
            return Err(Refusal::Unmovable);
        }
    }
    code.push(&[JUMP])?;
    code.push_distance(place + taken as u64)?;
    let inside = place + 1..place + taken as u64;
    if inside.end > function.end {
        return Err(Refusal::Unmovable);
    }
    walk(text, function, place, &inside)?;
    if jumped_into_from_afar(text, function, &inside) {
        return Err(Refusal::JumpedInto);
    }
    Ok(code)
}

/// Checks that `place` is an instruction of the function and that no other one of it jumps
/// `inside`.
fn walk(
    text: &Text<'_>,
    function: Function,
    place: u64,
    inside: &Range<u64>,
) -> Result<(), Refusal> {
    let mut met = false;
    for instruction in text.instructions(function)? {
        let (address, instruction) = instruction.ok_or(Refusal::Undecoded)?;
        met |= address == place;
        if branch_target(address, instruction).is_some_and(|target| inside.contains(&target)) {
            return Err(Refusal::JumpedInto);
        }
    }
    if met { Ok(()) } else { Err(Refusal::Undecoded) }
}

fn branch_target(address: u64, instruction: Instruction) -> Option<u64> {
    let end = address + instruction.len as u64;
    Some(end.wrapping_add_signed(instruction.branch_target?.into()))
}

/// True when another function jumps there. (Compilers split functions, so a part may be anywhere;
/// only jumps with four bytes of displacement reach that far.)
fn jumped_into_from_afar(text: &Text<'_>, function: Function, inside: &Range<u64>) -> bool {
    let Some(first) = text.offset(inside.start) else {
        return true;
    };
    // In 32 bits, as the processor does within such a distance, and the rare condition first: there
    // is much code to look at.
    let (first, count) = (first as u32, (inside.end - inside.start) as u32);
    let targets_inside = |at: usize, distance: &[u8]| {
        let distance = distance
            .first_chunk()
            .map_or(0, |it| u32::from_le_bytes(*it));
        let target = (at as u32 + 4).wrapping_add(distance);
        target.wrapping_sub(first) < count
    };
    let starts = |at: usize| match *text.bytes.get(..at)? {
        [.., JUMP] => Some(at - 1),
        [.., 0x0F, 0x80..=0x8F] => Some(at - 2),
        _ => None,
    };
    let distances = text.bytes.windows(4).enumerate();
    let suspects = distances.filter(|(at, distance)| targets_inside(*at, distance));
    suspects.filter_map(|(at, _)| starts(at)).any(|at| {
        let address = text.start + at as u64;
        let outside = !(function.start..function.end).contains(&address);
        outside && is_instruction(text, address)
    })
}

/// True when an instruction begins there, or when that cannot be determined.
fn is_instruction(text: &Text<'_>, address: u64) -> bool {
    let instructions = text
        .frames
        .around(address)
        .and_then(|function| text.instructions(function).ok());
    let Some(mut instructions) = instructions else {
        return true;
    };
    instructions
        .find_map(|instruction| match instruction {
            Some((at, _)) if at < address => None,
            Some((at, _)) => Some(at == address),
            None => Some(true),
        })
        .unwrap_or(true)
}

/// Instructions that compilers put behind `rdtsc`, all of whose operands are registers, immediates
/// or memory relative to a register other than the instruction pointer; none of them changes where
/// execution goes on, uses the stack pointer for a return address, or depends on where it is.
fn is_movable(instruction: &[u8]) -> bool {
    debug_assert!(instruction.len() <= INSTRUCTION_BYTES_MAX);
    let plain = match *instruction {
        [0x66, ref rest @ ..] => rest,
        _ => instruction,
    };
    let plain = match *plain {
        [0x40..=0x4F, ref rest @ ..] => rest,
        _ => plain,
    };
    let not_relative = |modrm: u8| modrm & 0xC7 != 0x05;
    match *plain {
        // add, or, and, sub, xor, cmp, test, mov, lea
        [
            0x01 | 0x03 | 0x09 | 0x0B | 0x21 | 0x23 | 0x29 | 0x2B | 0x31 | 0x33 | 0x39 | 0x3B
            | 0x85 | 0x89 | 0x8B | 0x8D,
            modrm,
            ..,
        ] => not_relative(modrm),
        // the same with immediates, mov of an immediate, shifts
        [0x81 | 0x83 | 0xC1 | 0xC7, modrm, ..] => not_relative(modrm),
        [0x05 | 0x25 | 0xB8..=0xBF, ..] => true,
        // push and pop of registers, leave
        [0x50..=0x5F | 0xC9, ..] => true,
        // moves and logic of vector registers, moves with extension
        [
            0x0F,
            0x10 | 0x11 | 0x28 | 0x29 | 0x57 | 0x6E | 0x6F | 0x7E | 0x7F | 0xB6 | 0xB7 | 0xBE
            | 0xBF | 0xD6 | 0xEF,
            modrm,
            ..,
        ] => not_relative(modrm),
        _ => false,
    }
}

/// Splits an instruction (mov or lea) that names an address relative to itself into what comes
/// before the four bytes of the distance, and the distance.
fn relative(instruction: &[u8]) -> Option<(&[u8], i32)> {
    let (operation, distance) = instruction.split_last_chunk::<4>()?;
    let plain = match *operation {
        [0x40..=0x4F, ref rest @ ..] => rest,
        _ => operation,
    };
    match *plain {
        [0x89 | 0x8B | 0x8D, modrm] if modrm & 0xC7 == 0x05 => {
            Some((operation, i32::from_le_bytes(*distance)))
        }
        _ => None,
    }
}
