//! The decoders of the links as functions of arbitrary bytes. See [`crate::fuzzing`].

use super::join;
use super::message::{Head, decode, encode};
use super::wire::{GREETING_BYTES_MAX, Hello, Kind, PREFIX_BYTES, take_frame};
use bytes::{Bytes, BytesMut};

/// One of every frame and message, in hexadecimal digits.
const GOLDEN: &str = include_str!("golden_frames.txt");

pub(crate) fn message(data: &[u8]) {
    if let Some(msg) = decode(Bytes::copy_from_slice(data)) {
        let mut head = Head::new();
        let value = encode(&msg, &mut head);
        let mut again = BytesMut::from(head.bytes());
        again.extend_from_slice(value.map_or(&[][..], |value| value));
        assert_eq!(decode(again.freeze()), Some(msg));
    }
}

pub(crate) fn frames(data: &[u8]) {
    // Raw, and as the body of a frame whose checksum is right.
    take_all(BytesMut::from(data));
    let mut framed = BytesMut::new();
    framed.extend_from_slice(&(data.len() as u32).to_le_bytes());
    framed.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    framed.extend_from_slice(data);
    take_all(framed);
}

fn take_all(mut input: BytesMut) {
    loop {
        let before = input.len();
        let Ok(Some((kind, body))) = take_frame(&mut input, GREETING_BYTES_MAX) else {
            return;
        };
        assert_eq!(before, input.len() + PREFIX_BYTES + 1 + body.len());
        match kind {
            Kind::Hello | Kind::Upgrade => {
                if let Some(hello) = Hello::decode(body) {
                    assert_eq!(Hello::decode(hello.encode().into()), Some(hello));
                }
            }
            Kind::Join => drop(join::check_request(body)),
            Kind::Message => message(&body),
            Kind::Refuse | Kind::Ping | Kind::App | Kind::JoinAccepted => {}
        }
    }
}

pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let lines = GOLDEN.lines().filter_map(|line| line.split_once(": "));
    let digits = |digits: &str| {
        let pairs = (0..digits.len()).step_by(2);
        let bytes = pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        bytes.map_while(Result::ok).collect()
    };
    lines.map(|(_, hex)| digits(hex)).collect()
}

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let frames = frame_seeds().into_iter();
    let messages = frames.filter(|frame| frame.get(PREFIX_BYTES) == Some(&(Kind::Message as u8)));
    messages
        .map(|frame| frame[PREFIX_BYTES + 1..].to_vec())
        .collect()
}
