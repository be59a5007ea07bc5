//! One connection with both its ends in this process.

use super::*;

#[derive(Debug, Default)]
struct Said(Vec<String>);

impl Events for Said {
    fn event(&mut self, event: &Event<'_>) {
        self.0.push(match event {
            Event::Open { .. } => "open".into(),
            Event::Connected { outcome, .. } => match outcome {
                Ok(_) => "connected".into(),
                Err(errno) => format!("failed {errno}"),
            },
            Event::Data { offset, bytes, .. } => format!("data {offset}+{}", bytes.len()),
            Event::Close { offset, how, .. } => format!("{how:?} {offset}"),
            Event::Credit { upto, .. } => format!("credit {upto}"),
            other => format!("{other:?}"),
        });
    }
}

impl Said {
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }
}

fn pair() -> (Connection, std::net::TcpStream, Said) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    let peer = std::net::TcpStream::connect(local).unwrap();
    let (stream, address) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let identity = ConnectionInfo {
        conn: ConnId {
            frontend: 1,
            counter: 1,
        },
        origin: Origin::Accepted {
            listener: 1,
            peer: address,
            local,
        },
    };
    let mut said = Said::default();
    let client = Connection::new(identity, Some(TcpStream::from_std(stream)), &mut said);
    (client, peer, said)
}

/// The same as if the server had dialled it, before it was looked at.
fn dialled() -> (Connection, std::net::TcpStream, Said) {
    let (mut client, peer, mut said) = pair();
    said.take();
    client.identity.origin = Origin::Dialled {
        owner: 1,
        answer: None,
    };
    (client, peer, said)
}

#[test]
fn a_dialled_connection_receives_once_its_answer_is_the_one_that_counts() {
    let (mut client, mut peer, mut said) = dialled();
    client.resend(&mut said);
    assert!(!client.is_outstanding() && said.take().is_empty());
    client.dialled(&mut said);
    assert_eq!(said.take(), ["connected"]);
    peer.write_all(b"hello").unwrap();
    arrive(&mut client);
    client.ready(true, true, false);
    let mut buffer = vec![0; 100];
    client.receive(&mut buffer, &mut said);
    client.resend(&mut said);
    assert_eq!(said.take(), ["connected"], "another answer may come first");
    client.committed_open();
    client.receive(&mut buffer, &mut said);
    assert_eq!(said.take(), ["data 0+5"]);
    client.committed_end(CloseHow::Reset);
    assert!(client.is_finished(), "a leader has given it up");
    assert!(peer.read(&mut [0]).is_err(), "the other end sees a reset");
}

#[test]
fn a_connection_that_was_dialled_in_vain_is_kept_until_that_is_committed() {
    let (mut client, _peer, mut said) = dialled();
    client.answered(Err(111), &mut said);
    client.resend(&mut said);
    assert_eq!(said.take(), ["failed 111", "failed 111"]);
    assert!(client.is_outstanding() && !client.is_finished());
    client.committed_open();
    assert!(!client.is_outstanding() && client.is_finished());
}

/// Waits until the bytes or the end that `peer` has sent are there.
fn arrive(client: &mut Connection) {
    let stream = client.stream_mut().unwrap();
    let mut one = [0];
    while stream.peek(&mut one).is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn what_is_not_committed_is_said_again() {
    let (mut client, mut peer, mut said) = pair();
    assert_eq!(said.take(), ["open"]);
    peer.write_all(b"hello").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    arrive(&mut client);
    client.ready(true, false, true);
    let mut buffer = vec![0; 100];
    while client.input.end.is_none() {
        client.ready(true, false, true);
        client.receive(&mut buffer, &mut said);
    }
    assert_eq!(said.take(), ["data 0+5", "Fin 5"]);
    client.resend(&mut said);
    assert_eq!(said.take(), ["open", "data 0+5", "Fin 5"]);
    client.committed_open();
    client.committed_input(2);
    client.resend(&mut said);
    assert_eq!(said.take(), ["data 2+3", "Fin 5"]);
    client.committed_input(5);
    client.committed_end(CloseHow::Fin);
    assert!(!client.is_outstanding());
    assert!(!client.is_finished(), "the client still reads");
}

#[test]
fn output_is_taken_once_and_a_gap_is_an_error() {
    let (mut client, mut peer, mut said) = pair();
    assert_eq!(client.output(0, b"abc"), Ok(true));
    assert_eq!(client.output(0, b"abc"), Ok(false));
    assert_eq!(client.output(2, b"cd"), Ok(true));
    assert!(client.output(9, b"x").is_err());
    client.server_closed(false);
    client.flush(&mut said);
    assert!(client.is_finished());
    let mut got = String::new();
    peer.read_to_string(&mut got).unwrap();
    assert_eq!(got, "abcd");
}

#[test]
fn reading_stops_at_the_window_and_goes_on_when_the_server_has_consumed() {
    let (mut client, mut peer, mut said) = pair();
    let window = INPUT_WINDOW_BYTES as usize;
    let writer = std::thread::spawn(move || {
        peer.write_all(&vec![7; window + 100]).unwrap();
        peer
    });
    let mut buffer = vec![0; DATA_BYTES_MAX];
    while client.input.read_upto() < INPUT_WINDOW_BYTES {
        client.ready(true, false, false);
        client.receive(&mut buffer, &mut said);
    }
    assert_eq!(client.input.read_upto(), INPUT_WINDOW_BYTES);
    client.ready(true, false, false);
    client.receive(&mut buffer, &mut said);
    assert_eq!(client.input.read_upto(), INPUT_WINDOW_BYTES);
    let _peer = writer.join().unwrap();
    assert!(client.consumed(100), "there is something to read");
    arrive(&mut client);
    client.receive(&mut buffer, &mut said);
    assert_eq!(client.input.read_upto(), INPUT_WINDOW_BYTES + 100);
}

#[test]
fn a_slow_client_is_buffered_and_credited_as_it_reads() {
    let (mut client, mut peer, mut said) = pair();
    said.take();
    let step = CREDIT_STEP_BYTES as usize;
    let bytes: Vec<u8> = (0..4 * step).map(|i| (i % 251) as u8).collect();
    assert_eq!(client.output(0, &bytes), Ok(true));
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 4 * step];
        peer.read_exact(&mut got).unwrap();
        got
    });
    while client.delivered() < OUTPUT_WINDOW_BYTES {
        client.ready(false, true, false);
        client.flush(&mut said);
    }
    assert_eq!(reader.join().unwrap(), bytes);
    let credits = said.take();
    assert!(!credits.is_empty() && credits.len() <= 4, "{credits:?}");
}

#[test]
fn a_reset_is_kept_until_it_is_committed() {
    let (mut client, _peer, mut said) = pair();
    client.committed_open();
    client.abort(&mut said);
    assert_eq!(said.take(), ["open", "Reset 0"]);
    assert!(client.is_outstanding() && !client.is_finished());
    assert_eq!(client.output(0, b"late"), Ok(false));
    client.committed_end(CloseHow::Reset);
    assert!(client.is_finished() && !client.is_outstanding());
}

#[test]
fn a_connection_that_the_server_ends_and_then_closes_is_forgotten() {
    let (mut client, mut peer, mut said) = pair();
    client.output(0, b"bye").unwrap();
    client.server_fin();
    client.flush(&mut said);
    let mut got = String::new();
    peer.read_to_string(&mut got).unwrap();
    assert_eq!(got, "bye");
    assert!(!client.is_finished(), "the client may still speak");
    client.server_closed(false);
    client.flush(&mut said);
    assert!(client.is_finished());
}
