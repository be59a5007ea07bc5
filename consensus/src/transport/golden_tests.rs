//! Fixed bytes of every frame and message. The protocol has a version ([`super::VERSION`]): bytes
//! that change here without a new version would split a cluster whose nodes are upgraded one by
//! one.

use super::join;
use super::message::{Head, decode, encode};
use super::outbox::Outbox;
use super::wire::{Hello, Kind, VERSION, take_frame};
use crate::core::{AcceptedEntry, Ballot, Echo, Msg};
use bytes::{Bytes, BytesMut};

const GOLDEN: &str = include_str!("golden_frames.txt");
const BALLOT: Ballot = Ballot { round: 7, node: 3 };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> BytesMut {
    let digits = (0..text.len()).step_by(2);
    digits
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn frame(kind: Kind, head: &[u8], value: Option<&Bytes>) -> String {
    let mut out = Outbox::default();
    out.push(kind, head, value);
    let mut bytes = Vec::new();
    out.flush(&mut bytes).unwrap();
    hex(&bytes)
}

fn elections() -> Vec<(&'static str, Msg)> {
    let entry = AcceptedEntry {
        slot: 9,
        ballot: BALLOT,
        value: Bytes::from_static(b"value"),
    };
    let (nonce, ballot) = (0x0102_0304_0506_0708, BALLOT);
    let probe = Msg::Probe { nonce, commit: 2 };
    let granted = Msg::ProbeReply {
        nonce,
        granted: true,
        promised: ballot,
    };
    let promise = Msg::Promise {
        ballot,
        commit: 3,
        entries: vec![entry],
    };
    let answer = Msg::Answer {
        nonce,
        promised: ballot,
        last: 77,
        lost: true,
    };
    vec![
        ("probe", probe),
        ("probe reply", granted),
        ("prepare", Msg::Prepare { ballot, from: 5 }),
        ("promise", promise),
        ("reject", Msg::Reject { promised: ballot }),
        ("resign", Msg::Resign { ballot }),
        ("ask", Msg::Ask { nonce }),
        ("answer", answer),
    ]
}

fn replication() -> Vec<(&'static str, Msg)> {
    let ballot = BALLOT;
    let accept = Msg::Accept {
        ballot,
        slot: 8,
        commit: 7,
        value: Bytes::from_static(b"value"),
    };
    let accepted = |echo| Msg::Accepted {
        ballot,
        upto: 4,
        seen: 6,
        barrier: 9,
        echo,
    };
    let heartbeat = Msg::Heartbeat {
        ballot,
        commit: 4,
        next: 9,
        beat: 2,
    };
    vec![
        ("accept", accept),
        ("accepted", accepted(None)),
        (
            "accepted with echo",
            accepted(Some(Echo { beat: 4, next: 12 })),
        ),
        ("heartbeat", heartbeat),
        ("commit", Msg::Commit { ballot, commit: 11 }),
        ("behind", Msg::Behind { ballot, first: 100 }),
    ]
}

/// One of each kind.
pub(super) fn messages() -> Vec<(&'static str, Msg)> {
    elections().into_iter().chain(replication()).collect()
}

fn greeting() -> Hello {
    Hello {
        version: VERSION,
        cluster: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        from: 1,
        to: 2,
    }
}

fn transcript() -> String {
    let hello = greeting().encode();
    let mut frames = vec![
        ("hello", frame(Kind::Hello, &hello, None)),
        ("refuse", frame(Kind::Refuse, b"not expected here", None)),
        ("ping", frame(Kind::Ping, &[], None)),
        ("application", frame(Kind::App, b"frame", None)),
        ("upgrade", frame(Kind::Upgrade, &hello, None)),
        ("join", frame(Kind::Join, &join::request(), None)),
        ("join accepted", frame(Kind::JoinAccepted, &[], None)),
    ];
    for (name, msg) in messages() {
        let mut head = Head::new();
        let value = encode(&msg, &mut head);
        frames.push((name, frame(Kind::Message, head.bytes(), value)));
    }
    let lines = frames.iter().map(|(name, hex)| format!("{name}: {hex}\n"));
    lines.collect()
}

#[test]
fn frames_have_the_same_bytes_as_ever() {
    let now = transcript();
    assert!(now == GOLDEN, "the frames are now\n{now}");
}

#[test]
fn frames_of_earlier_builds_are_understood() {
    let of = |name: &str| {
        let mut lines = GOLDEN.lines().filter_map(|line| line.split_once(": "));
        let (_, digits) = lines.find(|(found, _)| *found == name).unwrap();
        take_frame(&mut unhex(digits), 4096).unwrap().unwrap()
    };
    for (name, msg) in messages() {
        let (kind, body) = of(name);
        assert_eq!((kind, decode(body)), (Kind::Message, Some(msg)), "{name}");
    }
    for (name, expected) in [("hello", Kind::Hello), ("upgrade", Kind::Upgrade)] {
        let (kind, body) = of(name);
        assert_eq!((kind, Hello::decode(body)), (expected, Some(greeting())));
    }
    let (kind, body) = of("join");
    assert_eq!(kind, Kind::Join);
    join::check_request(body).unwrap();
}
