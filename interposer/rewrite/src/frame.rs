//! Bounds of functions, from the table that every ELF file has for unwinding.
//!
//! Format: Linux Standard Base 5.0, `.eh_frame_hdr` and `.eh_frame`; DWARF pointer encodings.

/// A function's first address and the one after its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

/// `.eh_frame_hdr` of a loaded file, with what follows it in memory.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    address: u64,
}

const PC_RELATIVE_4: u8 = 0x1B;
const DATA_RELATIVE_4: u8 = 0x3B;
const UNSIGNED_4: u8 = 0x03;
const TABLE_AT: usize = 12;
const ENTRY_BYTES: usize = 8;

impl<'a> Frames<'a> {
    /// `bytes` are those at `address`, from the start of `.eh_frame_hdr` on; at least so far as the
    /// entries for the functions that are asked for. `None`: not in the form that linkers produce.
    #[must_use]
    pub fn new(bytes: &'a [u8], address: u64) -> Option<Self> {
        let encodings = [1, PC_RELATIVE_4, UNSIGNED_4, DATA_RELATIVE_4];
        (bytes.get(..4)? == encodings).then_some(Self { bytes, address })
    }

    fn word(&self, at: usize) -> Option<i32> {
        let bytes = self.bytes.get(at..at + 4)?;
        Some(i32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn count(&self) -> Option<usize> {
        usize::try_from(self.word(8)?).ok()
    }

    /// First address of the function at `index` of the sorted table.
    fn start(&self, index: usize) -> Option<u64> {
        let offset = self.word(TABLE_AT + index * ENTRY_BYTES)?;
        Some(self.address.wrapping_add_signed(offset.into()))
    }

    /// Offset of the description of the function at `index`, from the start of the table.
    fn description(&self, index: usize) -> Option<usize> {
        usize::try_from(self.word(TABLE_AT + index * ENTRY_BYTES + 4)?).ok()
    }

    /// The function at `index` of the sorted table.
    #[must_use]
    pub fn function(&self, index: usize) -> Option<Function> {
        if index >= self.count()? {
            return None;
        }
        let start = self.start(index)?;
        let description = self.description(index)?;
        // Length, common part, first address, number of addresses. Compilers for x86-64 give both
        // in four bytes, which is so exactly when the first says what the table says.
        let at = description + 8;
        let place = self.address.wrapping_add(at as u64);
        if place.wrapping_add_signed(self.word(at)?.into()) != start {
            return None;
        }
        let size = self.word(at + 4)?.cast_unsigned();
        Some(Function {
            start,
            end: start + u64::from(size),
        })
    }

    /// The function that an address lies in.
    #[must_use]
    pub fn around(&self, address: u64) -> Option<Function> {
        let (mut low, mut high) = (0, self.count()?);
        while low < high {
            let middle = low.midpoint(high);
            if self.start(middle)? <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let found = self.function(low.checked_sub(1)?)?;
        (found.start..found.end).contains(&address).then_some(found)
    }
}
