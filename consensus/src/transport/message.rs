//! The bytes of a consensus message: a tag, words, and at most one value at the end.

use crate::core::{AcceptedEntry, Ballot, Echo, Msg, Slot};
use bytes::{Buf, Bytes};

const PROBE: u8 = 1;
const PROBE_REPLY: u8 = 2;
const PREPARE: u8 = 3;
const PROMISE: u8 = 4;
const ACCEPT: u8 = 5;
const ACCEPTED: u8 = 6;
const HEARTBEAT: u8 = 7;
const COMMIT: u8 = 8;
const REJECT: u8 = 9;
const RESIGN: u8 = 10;
const ASK: u8 = 11;
const ANSWER: u8 = 12;
const BEHIND: u8 = 13;

/// The encoded message up to its value. The buffer is used again for the next message.
pub(super) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(64),
        }
    }

    fn start(&mut self, tag: u8) -> &mut Self {
        self.bytes.clear();
        self.bytes.push(tag);
        self
    }

    fn words<const COUNT: usize>(&mut self, words: [u64; COUNT]) -> &mut Self {
        for word in words {
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
        self
    }

    fn ballot(&mut self, ballot: Ballot) -> &mut Self {
        self.words([ballot.round, ballot.node])
    }

    fn echo(&mut self, echo: &Option<Echo>) -> &mut Self {
        match echo {
            Some(Echo { beat, next }) => self.words([*beat, *next]),
            None => self,
        }
    }

    fn promise(&mut self, ballot: Ballot, commit: Slot, entries: &[AcceptedEntry]) -> &mut Self {
        let words = [commit, entries.len() as u64];
        self.start(PROMISE).ballot(ballot).words(words);
        for entry in entries {
            self.words([entry.slot]).ballot(entry.ballot);
            self.words([entry.value.len() as u64]);
            self.bytes.extend_from_slice(&entry.value);
        }
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Encodes a message into `head`, all but the value it may end with, which is returned.
pub(super) fn encode<'a>(msg: &'a Msg, head: &mut Head) -> Option<&'a Bytes> {
    match msg {
        Msg::Probe { nonce, commit } => head.start(PROBE).words([*nonce, *commit]),
        Msg::ProbeReply {
            nonce,
            granted,
            promised,
        } => {
            let words = [*nonce, u64::from(*granted)];
            head.start(PROBE_REPLY).words(words).ballot(*promised)
        }
        Msg::Prepare { ballot, from } => head.start(PREPARE).ballot(*ballot).words([*from]),
        Msg::Promise {
            ballot,
            commit,
            entries,
        } => head.promise(*ballot, *commit, entries),
        Msg::Accept {
            ballot,
            slot,
            commit,
            value,
        } => {
            head.start(ACCEPT).ballot(*ballot).words([*slot, *commit]);
            return Some(value);
        }
        Msg::Accepted {
            ballot,
            upto,
            seen,
            barrier,
            echo,
        } => {
            let words = [*upto, *seen, *barrier];
            head.start(ACCEPTED).ballot(*ballot).words(words).echo(echo)
        }
        Msg::Heartbeat {
            ballot,
            commit,
            next,
            beat,
        } => {
            let words = [*commit, *next, *beat];
            head.start(HEARTBEAT).ballot(*ballot).words(words)
        }
        Msg::Commit { ballot, commit } => head.start(COMMIT).ballot(*ballot).words([*commit]),
        Msg::Behind { ballot, first } => head.start(BEHIND).ballot(*ballot).words([*first]),
        Msg::Ask { nonce } => head.start(ASK).words([*nonce]),
        Msg::Answer {
            nonce,
            promised,
            last,
            lost,
        } => {
            let words = [*last, u64::from(*lost)];
            head.start(ANSWER)
                .words([*nonce])
                .ballot(*promised)
                .words(words)
        }
        Msg::Reject { promised } => head.start(REJECT).ballot(*promised),
        Msg::Resign { ballot } => head.start(RESIGN).ballot(*ballot),
    };
    None
}

/// Decodes a message; `None` if it is none.
pub(super) fn decode(mut body: Bytes) -> Option<Msg> {
    let body = &mut body;
    let msg = match body.try_get_u8().ok()? {
        PROBE => Msg::Probe {
            nonce: word(body)?,
            commit: word(body)?,
        },
        PROBE_REPLY => Msg::ProbeReply {
            nonce: word(body)?,
            granted: word(body)? != 0,
            promised: ballot(body)?,
        },
        PREPARE => Msg::Prepare {
            ballot: ballot(body)?,
            from: word(body)?,
        },
        PROMISE => promise(body)?,
        ACCEPT => Msg::Accept {
            ballot: ballot(body)?,
            slot: word(body)?,
            commit: word(body)?,
            value: std::mem::take(body),
        },
        ACCEPTED => Msg::Accepted {
            ballot: ballot(body)?,
            upto: word(body)?,
            seen: word(body)?,
            barrier: word(body)?,
            echo: echo(body)?,
        },
        HEARTBEAT => Msg::Heartbeat {
            ballot: ballot(body)?,
            commit: word(body)?,
            next: word(body)?,
            beat: word(body)?,
        },
        COMMIT => Msg::Commit {
            ballot: ballot(body)?,
            commit: word(body)?,
        },
        RESIGN => Msg::Resign {
            ballot: ballot(body)?,
        },
        REJECT => Msg::Reject {
            promised: ballot(body)?,
        },
        BEHIND => Msg::Behind {
            ballot: ballot(body)?,
            first: word(body)?,
        },
        ASK => Msg::Ask { nonce: word(body)? },
        ANSWER => Msg::Answer {
            nonce: word(body)?,
            promised: ballot(body)?,
            last: word(body)?,
            lost: word(body)? != 0,
        },
        _ => return None,
    };
    body.is_empty().then_some(msg)
}

fn promise(body: &mut Bytes) -> Option<Msg> {
    let (ballot_, commit) = (ballot(body)?, word(body)?);
    let count = word(body)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (slot, ballot) = (word(body)?, ballot(body)?);
        let length = usize::try_from(word(body)?).ok()?;
        if body.len() < length {
            return None;
        }
        entries.push(AcceptedEntry {
            slot,
            ballot,
            value: body.split_to(length),
        });
    }
    Some(Msg::Promise {
        ballot: ballot_,
        commit,
        entries,
    })
}

/// The echo at the end of an acknowledgement, which may lack it.
fn echo(body: &mut Bytes) -> Option<Option<Echo>> {
    if body.is_empty() {
        return Some(None);
    }
    let (beat, next) = (word(body)?, word(body)?);
    Some(Some(Echo { beat, next }))
}

fn word(body: &mut Bytes) -> Option<u64> {
    body.try_get_u64_le().ok()
}

fn ballot(body: &mut Bytes) -> Option<Ballot> {
    Some(Ballot {
        round: word(body)?,
        node: word(body)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::golden_tests;
    use super::*;

    fn round_trip(msg: &Msg) {
        let mut head = Head::new();
        let value = encode(msg, &mut head).cloned().unwrap_or_default();
        let mut body = head.bytes().to_vec();
        body.extend_from_slice(&value);
        assert_eq!(decode(Bytes::from(body.clone())).as_ref(), Some(msg));
        if !matches!(msg, Msg::Accept { .. }) {
            body.push(0);
            assert_eq!(decode(Bytes::from(body.clone())), None, "trailing bytes");
        }
        for cut in 0..head.bytes().len() {
            // The echo is optional, so an acknowledgement may end before it.
            let shorter = decode(Bytes::copy_from_slice(&head.bytes()[..cut]));
            assert!(shorter.is_none() || matches!(shorter, Some(Msg::Accepted { .. })));
        }
    }

    #[test]
    fn messages_survive_the_wire() {
        let ballot = Ballot { round: 7, node: 3 };
        for (_, msg) in golden_tests::messages() {
            round_trip(&msg);
        }
        round_trip(&Msg::Promise {
            ballot,
            commit: 3,
            entries: vec![],
        });
        round_trip(&Msg::Accept {
            ballot,
            slot: 8,
            commit: 7,
            value: Bytes::new(),
        });
        round_trip(&Msg::ProbeReply {
            nonce: 1,
            granted: false,
            promised: ballot,
        });
    }
}
