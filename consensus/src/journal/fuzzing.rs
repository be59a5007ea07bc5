//! The decoders of the log as functions of arbitrary bytes. See [`crate::fuzzing`].

use super::base::Base;
use super::record::{HEADER_BYTES, SegmentHeader, VERSION, record_bytes};
use super::scan::scan_bytes;
use bytes::Bytes;

/// A log with all kinds of records, in hexadecimal digits.
const GOLDEN: &str = include_str!("tests/golden_log.txt");

const HEADER: SegmentHeader = SegmentHeader {
    version: VERSION,
    cluster: 5,
    node: 1,
    number: 1,
    size: 64 << 10,
};

pub(crate) fn segment(data: &[u8]) {
    // The size of a segment is a multiple of 8: see `Journal::open`.
    let data = &data[..data.len() / 8 * 8];
    let _ = SegmentHeader::decode(data);
    if data.len() > HEADER_BYTES {
        scan_bytes(&Bytes::copy_from_slice(data), HEADER.salt());
        scan_bytes(&Bytes::from(repaired(data)), HEADER.salt());
    }
}

/// The input with records whose magic number, checksums and numbers are right.
///
/// Slots stay below 2^20, and are not 0: a record whose checksum is right was written by this
/// program, and its slot is trusted.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let (mut offset, mut seq, mut previous) = (HEADER_BYTES, 0u64, 0u32);
    while let Some(rest) = bytes
        .get_mut(offset..)
        .filter(|it| it.len() >= HEADER_BYTES)
    {
        let (header, payload) = rest.split_at_mut(HEADER_BYTES);
        let wanted = u32::from_le_bytes([header[16], header[17], 0, 0]) as usize;
        let payload = &payload[..wanted.min(payload.len())];
        seq += 1;
        header[..4].copy_from_slice(b"BrRc");
        header[8..12].copy_from_slice(&previous.to_le_bytes());
        header[12..16].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        header[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        header[24..32].copy_from_slice(&seq.to_le_bytes());
        header[56] |= 1;
        header[58] &= 0x0f;
        header[59..64].fill(0);
        previous = crc32c::crc32c_append(HEADER.salt(), &header[8..]);
        header[4..8].copy_from_slice(&previous.to_le_bytes());
        offset += record_bytes(payload.len());
    }
    bytes
}

pub(crate) fn base(data: &[u8]) {
    let mut repaired = data.to_vec();
    if let Some(start) = repaired.get_mut(..16) {
        start.copy_from_slice(b"BROLGABS\0\0\0\0\x01\0\0\0");
        let crc = crc32c::crc32c(&repaired);
        repaired[8..12].copy_from_slice(&crc.to_le_bytes());
    }
    for bytes in [data, &repaired] {
        if let Ok(base) = Base::decode(bytes) {
            assert_eq!(Base::decode(&base.encode()), Ok(base));
        }
    }
}

pub(crate) fn segment_seeds() -> Vec<Vec<u8>> {
    let digits: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits
        .chunks(2)
        .filter_map(|pair| str::from_utf8(pair).ok());
    let bytes = pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok());
    let whole: Vec<u8> = bytes.collect();
    let cut = whole[..whole.len() / 2].to_vec();
    vec![whole, cut]
}

pub(crate) fn base_seeds() -> Vec<Vec<u8>> {
    vec![Base::default().encode().to_vec()]
}
