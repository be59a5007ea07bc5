//! Where replies of a web server end.

/// Counts whole replies at the start of `bytes`; returns them and the bytes they took. A reply that is
/// not "200 OK" ends the benchmark: a rate of refusals means nothing.
pub fn count_replies(bytes: &[u8]) -> (usize, usize) {
    let (mut count, mut used) = (0, 0);
    while let Some(length) = length_of_reply(&bytes[used..]) {
        used += length;
        count += 1;
    }
    (count, used)
}

/// The length of the reply that `bytes` begin with, once it is there as a whole.
fn length_of_reply(bytes: &[u8]) -> Option<usize> {
    let head_end = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]);
    assert!(head.starts_with("HTTP/1.1 200 "), "reply: {head}");
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let length = match field("content-length") {
        Some(length) => head_end + length.parse::<usize>().expect("a length"),
        None => {
            assert_eq!(field("transfer-encoding"), Some("chunked"), "reply: {head}");
            head_end + length_of_chunks(&bytes[head_end..])?
        }
    };
    (length <= bytes.len()).then_some(length)
}

/// The length of a body in chunks, none of which has a trailer.
fn length_of_chunks(bytes: &[u8]) -> Option<usize> {
    let mut used = 0;
    loop {
        let line_end = used + find(bytes.get(used..)?, b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[used..line_end]).expect("a length in digits");
        let length = usize::from_str_radix(digits, 16).expect("a length in digits");
        used = line_end + 2 + length + 2;
        if length == 0 {
            return (used <= bytes.len()).then_some(used);
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
