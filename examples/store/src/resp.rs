//! The wire format: RESP2 requests in, replies out, and inline commands (`GET key` typed by hand).
//!
//! [`parse`] works on what has been received so far and keeps no state between calls: an incomplete
//! request is parsed again, from its start, when more has been received. The cost is per argument,
//! not per byte, because the length of an argument precedes its bytes.
//!
//! Not supported: RESP3, and quoting in inline commands.

use std::io::Write;

/// Most bytes in one request, framing included.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Most bytes in one argument. It is above the limits of keys and values: exceeding those gets an
/// error reply, exceeding this ends the connection.
pub const ARGUMENT_BYTES_MAX: usize = 16 << 20;
/// Most arguments in one request.
pub const ARGUMENTS_MAX: usize = 65_536;
/// Most bytes in an inline command.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Most bytes in a `*count` or `$length` line; a longer one is no valid number.
const HEADER_BYTES_MAX: usize = 32;

/// A violation of the protocol, after which the connection cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error: {0}")]
pub struct ProtocolError(&'static str);

/// Reads one request from the start of `input` and puts its arguments in `arguments`.
///
/// Returns the number of bytes that it takes, or `None` if the request is incomplete. A request
/// without arguments (an empty line) is legal, and is to be ignored.
pub fn parse<'a>(
    input: &'a [u8],
    arguments: &mut Vec<&'a [u8]>,
) -> Result<Option<usize>, ProtocolError> {
    arguments.clear();
    match input.first() {
        None => Ok(None),
        Some(b'*') => parse_array(input, arguments),
        Some(_) => parse_inline(input, arguments),
    }
}

fn parse_array<'a>(
    input: &'a [u8],
    arguments: &mut Vec<&'a [u8]>,
) -> Result<Option<usize>, ProtocolError> {
    let Some((count, mut at)) = header(input, 0, "invalid multibulk length")? else {
        return Ok(None);
    };
    if count > ARGUMENTS_MAX as i64 {
        return Err(ProtocolError("invalid multibulk length"));
    }
    for _ in 0..count {
        let Some((argument, next)) = argument(input, at)? else {
            return Ok(None);
        };
        arguments.push(argument);
        at = next;
    }
    Ok(Some(at))
}

/// Reads `$length CRLF bytes CRLF` at `at`. Returns the bytes, and the position after them.
fn argument(input: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    match input.get(at) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(_) => return Err(ProtocolError("expected '$'")),
    }
    let Some((length, start)) = header(input, at, "invalid bulk length")? else {
        return Ok(None);
    };
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= ARGUMENT_BYTES_MAX)
        .ok_or(ProtocolError("invalid bulk length"))?;
    let end = start + length;
    if end + 2 > REQUEST_BYTES_MAX {
        return Err(ProtocolError("request too large"));
    }
    match input.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((&input[start..end], end + 2))),
        Some(_) => Err(ProtocolError("bulk string not followed by CRLF")),
    }
}

/// Reads the number in a line whose first byte, at `at`, is its type.
fn header(
    input: &[u8],
    at: usize,
    complaint: &'static str,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    let rest = &input[at + 1..];
    let window = &rest[..rest.len().min(HEADER_BYTES_MAX)];
    let Some(newline) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() == HEADER_BYTES_MAX {
            Err(ProtocolError(complaint))
        } else {
            Ok(None)
        };
    };
    let digits = window[..newline]
        .strip_suffix(b"\r")
        .ok_or(ProtocolError(complaint))?;
    let number = integer(digits).ok_or(ProtocolError(complaint))?;
    Ok(Some((number, at + 1 + newline + 1)))
}

fn parse_inline<'a>(
    input: &'a [u8],
    arguments: &mut Vec<&'a [u8]>,
) -> Result<Option<usize>, ProtocolError> {
    let window = &input[..input.len().min(INLINE_BYTES_MAX)];
    let Some(newline) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() == INLINE_BYTES_MAX {
            Err(ProtocolError("too big inline request"))
        } else {
            Ok(None)
        };
    };
    let line = &window[..newline];
    if line.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
        return Err(ProtocolError("quotes are not supported in inline requests"));
    }
    arguments.extend(
        line.split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty()),
    );
    Ok(Some(newline + 1))
}

/// Reads a decimal integer in canonical form: no `+`, no leading zeros.
pub fn integer(digits: &[u8]) -> Option<i64> {
    let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
    let canonical = match unsigned {
        [] => false,
        [b'0'] => digits.len() == 1,
        [first, ..] => *first != b'0' && unsigned.iter().all(u8::is_ascii_digit),
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends `+OK`.
pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

/// Appends a one-line status reply.
pub fn status(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text);
}

/// Appends an error reply; the first word of `text` is its code.
pub fn error(out: &mut Vec<u8>, text: &str) {
    line(out, b'-', text);
}

/// Appends an integer reply.
pub fn number(out: &mut Vec<u8>, number: i64) {
    header_line(out, b':', number);
}

/// Appends a string of arbitrary bytes.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header_line(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends the reply for a missing value.
pub fn nil(out: &mut Vec<u8>) {
    out.extend_from_slice(b"$-1\r\n");
}

/// Appends the head of an array; `count` replies have to follow.
pub fn array(out: &mut Vec<u8>, count: usize) {
    header_line(out, b'*', count as i64);
}

/// Appends a line. Line breaks in `text` (echoed input of a client) become spaces.
fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| {
        if matches!(byte, b'\r' | b'\n') {
            b' '
        } else {
            byte
        }
    }));
    out.extend_from_slice(b"\r\n");
}

fn header_line(out: &mut Vec<u8>, kind: u8, number: i64) {
    out.push(kind);
    if let Ok(digit @ 0..10) = u8::try_from(number) {
        out.push(b'0' + digit);
        out.extend_from_slice(b"\r\n");
    } else {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{number}\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Requests = Vec<Vec<Vec<u8>>>;

    /// Feeds `chunks` one after the other, as a connection would, and collects the requests.
    fn feed(chunks: &[&[u8]]) -> Result<(Requests, usize), ProtocolError> {
        let (mut received, mut start, mut requests) = (Vec::new(), 0, Vec::new());
        for chunk in chunks {
            received.extend_from_slice(chunk);
            loop {
                let mut arguments = Vec::new();
                let Some(taken) = parse(&received[start..], &mut arguments)? else {
                    break;
                };
                requests.push(arguments.iter().map(|argument| argument.to_vec()).collect());
                start += taken;
            }
        }
        Ok((requests, received.len() - start))
    }

    const PIPELINE: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n*\0\r\nPING\r\n*0\r\n*-1\r\n\
        *2\r\n$3\r\nGET\r\n$0\r\n\r\n\r\n  get  a \n*1\r\n$10\r\n0123456789\r\n";

    #[test]
    fn pipelined_requests_are_parsed_in_order() {
        let (requests, left) = feed(&[PIPELINE]).unwrap();
        let expected: Vec<Vec<&[u8]>> = vec![
            vec![b"SET", b"k", b"\r\n*\0"],
            vec![b"PING"],
            vec![],
            vec![],
            vec![b"GET", b""],
            vec![],
            vec![b"get", b"a"],
            vec![b"0123456789"],
        ];
        assert_eq!(requests, expected);
        assert_eq!(left, 0);
    }

    #[test]
    fn requests_do_not_depend_on_where_the_input_is_split() {
        let whole = feed(&[PIPELINE]).unwrap();
        for first in 0..=PIPELINE.len() {
            for second in first..=PIPELINE.len() {
                let chunks = [
                    &PIPELINE[..first],
                    &PIPELINE[first..second],
                    &PIPELINE[second..],
                ];
                assert_eq!(
                    feed(&chunks).unwrap(),
                    whole,
                    "split at {first} and {second}"
                );
            }
        }
        let bytes: Vec<&[u8]> = PIPELINE.chunks(1).collect();
        assert_eq!(feed(&bytes).unwrap(), whole);
    }

    #[test]
    fn a_prefix_of_a_request_is_incomplete_never_an_error() {
        let request = b"*2\r\n$4\r\nECHO\r\n$12\r\nhello, world\r\n";
        for length in 0..request.len() {
            assert_eq!(
                parse(&request[..length], &mut Vec::new()),
                Ok(None),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn malformed_requests_are_protocol_errors_however_they_are_split() {
        let long_inline = vec![b'x'; INLINE_BYTES_MAX];
        let long_header = [b"*".as_slice(), &[b'1'; HEADER_BYTES_MAX]].concat();
        let cases: &[&[u8]] = &[
            b"*x\r\n",
            b"*1x\r\n",
            b"*+1\r\n",
            b"*\r\n",
            b"*1\n$1\r\n",
            b"*65537\r\n",
            b"*99999999999999999999\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n+OK\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$x\r\n",
            b"*1\r\n$01\r\n",
            b"*1\r\n$16777217\r\n",
            b"*1\r\n$3\r\nabcde",
            b"*1\r\n$3\r\nabc\n\n",
            b"set \"a b\" c\r\n",
            &long_inline,
            &long_header,
        ];
        for case in cases {
            assert!(feed(&[case]).is_err(), "{}", case.escape_ascii());
            if case.len() < 100 {
                let bytes: Vec<&[u8]> = case.chunks(1).collect();
                assert_eq!(feed(&bytes), feed(&[case]), "{}", case.escape_ascii());
            }
        }
    }

    #[test]
    fn a_request_over_the_total_limit_is_refused_before_its_bytes_come() {
        let mut request = b"*3\r\n".to_vec();
        for _ in 0..2 {
            request.extend_from_slice(format!("${}\r\n", ARGUMENT_BYTES_MAX - 64).as_bytes());
            request.resize(request.len() + ARGUMENT_BYTES_MAX - 64, b'x');
            request.extend_from_slice(b"\r\n");
        }
        assert_eq!(parse(&request, &mut Vec::new()), Ok(None));
        request.extend_from_slice(b"$1000\r\n");
        assert_eq!(
            parse(&request, &mut Vec::new()),
            Err(ProtocolError("request too large"))
        );
    }

    #[test]
    fn integers_have_one_form() {
        for (text, value) in [
            ("0", 0),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text.as_bytes()), Some(value));
        }
        for text in [
            "",
            "-",
            "-0",
            "00",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "9223372036854775808",
            "x",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn replies_are_framed() {
        let mut out = Vec::new();
        ok(&mut out);
        status(&mut out, "PONG");
        error(&mut out, "ERR a\r\nb");
        number(&mut out, -3);
        number(&mut out, 10);
        bulk(&mut out, b"");
        bulk(&mut out, b"0123456789");
        nil(&mut out);
        array(&mut out, 2);
        let expected = "+OK\r\n+PONG\r\n-ERR a  b\r\n:-3\r\n:10\r\n$0\r\n\r\n$10\r\n0123456789\r\n$-1\r\n*2\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
