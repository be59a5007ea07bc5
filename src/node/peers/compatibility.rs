//! Peer compatibility: nodes exchange server fingerprints when they connect; a replica whose
//! program, libraries or initial files are not identical to those of the others serves no clients.
//!
//! Each node sends at the beginning of a link the fingerprint of its server
//! ([`ServerFingerprint`]), and whether it has ever served clients. Each node decides for itself:
//!
//! * it is *compatible* when a majority of the members, itself among them, is identical to it, when
//!   it has served before, or when one that has served is identical. Only then it opens its ports;
//! * it is *refused*, and ends, when a majority is alike and different from it, or when it has
//!   never served and one that has is different;
//! * otherwise (too few are up to tell) it waits and says so.
//!
//! A node that has served was compatible once, and its fingerprint cannot change in its data
//! directory (see [`brolga_server_image::identity`]), so that it need not wait for others when it
//! starts again. All of them vote in the log in any case: what is chosen does not depend on what
//! the servers do with it.
//!
//! When lists of files differ, each side asks the other for its list, so that it can name a file.

use brolga_checkpoint::{Mismatch, ServerFingerprint};
use brolga_config::NodeConfig;
use brolga_consensus::NodeId;
use brolga_server_image::identity::differing_file;
use brolga_server_image::tree_digest::Listing;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;

/// A longer list is not sent: links carry other things.
const LIST_BYTES_MAX: usize = 16 << 20;
const HERE: &str = "here";

/// The fingerprint of a node's server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The fingerprints of program, libraries and initial files.
    identity: ServerFingerprint,
    /// The node has served clients before.
    served: bool,
}

/// A message about compatibility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CompatibilityMessage {
    /// At the beginning of a link, and when it serves for the first time.
    Hello(Hello),
    /// A list of files is wanted.
    Ask(FileList),
    /// Answer: the list, or nothing if there is none.
    Files(FileList, String),
}

/// Files of which an identity has only the hash of their list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FileList {
    /// See [`ServerFingerprint::root`].
    Root,
    /// See [`ServerFingerprint::genesis`].
    Genesis,
}

impl FileList {
    /// The one that tells in which file two servers differ.
    fn that_shows(mismatch: &Mismatch) -> Option<Self> {
        match mismatch {
            Mismatch::Root => Some(Self::Root),
            Mismatch::Genesis => Some(Self::Genesis),
            _ => None,
        }
    }
}

/// The outcome of the compatibility check, so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Too few others are known.
    Undecided,
    /// The server may have clients.
    Compatible,
    /// The server is incompatible; the reason.
    Refused(String),
}

/// Another node that has sent its fingerprint.
#[derive(Debug)]
struct Met {
    hello: Hello,
    /// `None`: both are identical.
    mismatch: Option<Mismatch>,
    /// The difference in words; `None`: there is none, or its list is awaited.
    words: Option<String>,
}

/// The compatibility of this node's server with those of the other nodes.
#[derive(Debug)]
pub(crate) struct Compatibility {
    own: Hello,
    /// Members that make a majority, and whether this node counts among them.
    majority: usize,
    member: bool,
    met: BTreeMap<NodeId, Met>,
    /// As [`Compatibility::judge`] found; asked for in every iteration.
    outcome: Outcome,
}

impl Compatibility {
    /// The check at a node whose server has the fingerprints in `identity`.
    pub(crate) fn new(config: &NodeConfig, identity: ServerFingerprint) -> Self {
        let own = Hello {
            identity,
            served: config.served_mark().exists(),
        };
        let member = config.members.iter().any(|member| member.id == config.node);
        Self::of(own, config.members.len() / 2 + 1, member)
    }

    fn of(own: Hello, majority: usize, member: bool) -> Self {
        let mut node = Self {
            own,
            majority,
            member,
            met: BTreeMap::new(),
            outcome: Outcome::Undecided,
        };
        node.outcome = node.judge();
        node
    }

    /// The message at the beginning of a link.
    pub(crate) fn greeting(&self) -> CompatibilityMessage {
        CompatibilityMessage::Hello(self.own.clone())
    }

    /// This node serves now.
    fn serves(&mut self) {
        self.own.served = true;
        self.outcome = self.judge();
    }

    /// Another node has sent its fingerprint. Returns the question to it, if there is one.
    fn hello(&mut self, from: NodeId, hello: Hello) -> Option<CompatibilityMessage> {
        let mismatch = self.own.identity.mismatch(&hello.identity);
        let known = self.met.get(&from);
        let words = match &mismatch {
            Some(mismatch) if known.is_some_and(|it| it.mismatch.as_ref() == Some(mismatch)) => {
                known.and_then(|it| it.words.clone())
            }
            Some(mismatch) if FileList::that_shows(mismatch).is_some() => None,
            Some(mismatch) => Some(mismatch.describe(HERE, &at(from))),
            None => None,
        };
        let asks = mismatch.as_ref().filter(|_| words.is_none());
        let asks = asks.and_then(FileList::that_shows);
        self.met.insert(
            from,
            Met {
                hello,
                mismatch,
                words,
            },
        );
        self.outcome = self.judge();
        asks.map(CompatibilityMessage::Ask)
    }

    /// The list of another node has come, or will not come.
    fn listed(&mut self, from: NodeId, theirs: Option<&Listing>, ours: Option<&Listing>) {
        let Some(met) = self.met.get_mut(&from) else {
            return;
        };
        let Some(mismatch) = met.mismatch.as_ref().filter(|_| met.words.is_none()) else {
            return;
        };
        let (what, there) = (mismatch.describe(HERE, &at(from)), at(from));
        let empty = Listing::from_text(String::new());
        met.words = Some(match theirs {
            Some(theirs) => differing_file(&what, ours.unwrap_or(&empty), theirs, HERE, &there),
            None => what,
        });
        self.outcome = self.judge();
    }

    /// The link to another node is down: no answer comes any more.
    pub(crate) fn lost(&mut self, peer: NodeId) {
        self.listed(peer, None, None);
    }

    /// The outcome of the compatibility check, so far.
    #[cfg(test)]
    fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn judge(&self) -> Outcome {
        let alike = self.met.values().filter(|it| it.mismatch.is_none());
        let same = alike.clone().count() + usize::from(self.member);
        let served = |met: &Met| met.hello.served;
        let compatible = same >= self.majority || self.own.served || alike.clone().any(served);
        let against = self.met.iter().find(|(_, met)| {
            let twin = |it: &&Met| it.hello.identity == met.hello.identity;
            let twins = self.met.values().filter(twin).count();
            met.mismatch.is_some() && (twins >= self.majority || (!compatible && served(met)))
        });
        match against {
            Some((peer, met)) => match &met.words {
                Some(words) => Outcome::Refused(refusal(*peer, words, met)),
                None => Outcome::Undecided,
            },
            None if compatible => Outcome::Compatible,
            None => Outcome::Undecided,
        }
    }

    /// Returns why the server may not have clients yet, if another node differs.
    pub(crate) fn waiting(&self) -> Option<String> {
        if self.outcome != Outcome::Undecided {
            return None;
        }
        let (peer, met) = self.met.iter().find(|(_, met)| met.words.is_some())?;
        let (words, advice) = (met.words.as_deref()?, met.mismatch.as_ref()?.advice());
        Some(format!(
            "the server of replica {peer} is not identical, and too few are up to tell which is right: \
             {words}: {advice}"
        ))
    }

    /// How another node differs, once that can be told.
    fn difference(&self, peer: NodeId) -> Option<String> {
        let met = self.met.get(&peer)?;
        let (words, advice) = (met.words.as_deref()?, met.mismatch.as_ref()?.advice());
        Some(format!("{words}: {advice}"))
    }

    /// Takes in a message of another node. Returns the answer, if there is one.
    pub(crate) fn receive(
        &mut self,
        from: NodeId,
        message: CompatibilityMessage,
        config: &NodeConfig,
    ) -> Option<CompatibilityMessage> {
        let told = self.difference(from);
        let answer = match message {
            // A learner that is different finds that out by itself, and counts for nothing here.
            CompatibilityMessage::Hello(_) if !config.is_member(from) => None,
            CompatibilityMessage::Hello(hello) => self.hello(from, hello),
            CompatibilityMessage::Ask(list) => {
                let text = own_list(config, list).map(|list| list.text().to_owned());
                let text = text.filter(|text| text.len() <= LIST_BYTES_MAX);
                Some(CompatibilityMessage::Files(list, text.unwrap_or_default()))
            }
            CompatibilityMessage::Files(list, text) => {
                let (ours, theirs) = (own_list(config, list), Listing::from_text(text));
                self.listed(from, Some(&theirs), ours.as_ref());
                None
            }
        };
        // Logged once.
        match self.difference(from) {
            Some(words) if Some(&words) != told.as_ref() => {
                tracing::warn!(
                    peer = from,
                    "the server of that replica is not identical: {words}"
                );
            }
            _ => {}
        }
        answer
    }

    /// Returns true when the server may have clients.
    ///
    /// # Errors
    /// The server differs from that of the other nodes.
    pub(crate) fn may_serve(&self) -> Result<bool, Incompatible> {
        match &self.outcome {
            Outcome::Compatible => Ok(true),
            Outcome::Undecided => Ok(false),
            Outcome::Refused(why) => Err(Incompatible(why.clone())),
        }
    }

    /// Notes on disk that this node serves clients, when it does so for the first time. Returns the
    /// nodes that are to be told.
    ///
    /// # Errors
    /// The mark cannot be written.
    pub(crate) fn note_serving(&mut self, config: &NodeConfig) -> io::Result<Vec<NodeId>> {
        if self.own.served {
            return Ok(Vec::new());
        }
        File::create(config.served_mark())?.sync_all()?;
        File::open(&config.data_dir)?.sync_all()?;
        self.serves();
        Ok(self.met.keys().copied().collect())
    }
}

/// The server of this node differs from that of the other nodes; the reason in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Incompatible(String);

fn own_list(config: &NodeConfig, list: FileList) -> Option<Listing> {
    let path = match list {
        FileList::Root => config.root_list(),
        FileList::Genesis => config.genesis_list(),
    };
    let text = fs::read_to_string(path).ok()?;
    Some(Listing::from_text(text))
}

fn at(peer: NodeId) -> String {
    format!("at replica {peer}")
}

fn refusal(peer: NodeId, words: &str, met: &Met) -> String {
    let advice = met.mismatch.as_ref().map_or("", Mismatch::advice);
    format!(
        "this replica is refused, its server is not identical to that of replica {peer}: {words}: {advice}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(kind: &str) -> ServerFingerprint {
        ServerFingerprint {
            interposer: kind.into(),
            ..ServerFingerprint::default()
        }
    }

    fn node(members: usize, kind: &str) -> Compatibility {
        of(members, true, identity(kind))
    }

    fn of(members: usize, member: bool, identity: ServerFingerprint) -> Compatibility {
        let own = Hello {
            identity,
            served: false,
        };
        Compatibility::of(own, members / 2 + 1, member)
    }

    fn meet(node: &mut Compatibility, peer: NodeId, kind: &str, served: bool) {
        let identity = identity(kind);
        let asked = node.hello(peer, Hello { identity, served });
        assert_eq!(asked, None);
    }

    fn is_refused(node: &Compatibility) -> bool {
        matches!(node.outcome(), Outcome::Refused(_))
    }

    #[test]
    fn one_alone_is_a_majority_of_itself() {
        assert_eq!(node(1, "a").outcome(), &Outcome::Compatible);
        assert_eq!(node(3, "a").outcome(), &Outcome::Undecided);
    }

    #[test]
    fn the_majority_is_right_whoever_meets_first() {
        for order in [[2, 3], [3, 2]] {
            let (mut right, mut wrong) = (node(3, "a"), node(3, "b"));
            for peer in order {
                meet(&mut right, peer, if peer == 2 { "a" } else { "b" }, false);
                meet(&mut wrong, peer, "a", false);
            }
            assert_eq!(right.outcome(), &Outcome::Compatible);
            assert!(is_refused(&wrong));
        }
    }

    #[test]
    fn two_that_differ_wait_until_one_of_them_has_served() {
        let mut one = node(3, "a");
        meet(&mut one, 2, "b", false);
        assert_eq!(one.outcome(), &Outcome::Undecided);
        assert!(one.waiting().unwrap().contains("replica 2"), "{one:?}");
        meet(&mut one, 2, "b", true);
        assert!(is_refused(&one));
        let mut other = node(3, "b");
        other.serves();
        meet(&mut other, 1, "a", false);
        assert_eq!(other.outcome(), &Outcome::Compatible);
    }

    #[test]
    fn one_that_has_served_gives_way_to_a_majority_only() {
        let mut one = node(3, "a");
        one.serves();
        meet(&mut one, 2, "b", true);
        assert_eq!(one.outcome(), &Outcome::Compatible);
        meet(&mut one, 3, "b", false);
        assert!(is_refused(&one));
    }

    #[test]
    fn three_that_differ_all_wait() {
        let mut one = node(3, "a");
        meet(&mut one, 2, "b", false);
        meet(&mut one, 3, "c", false);
        assert_eq!(one.outcome(), &Outcome::Undecided);
    }

    #[test]
    fn a_joiner_is_compatible_with_one_that_has_served() {
        let mut one = node(5, "a");
        meet(&mut one, 2, "a", true);
        assert_eq!(one.outcome(), &Outcome::Compatible);
    }

    #[test]
    fn whoever_is_no_member_does_not_count_itself() {
        let mut one = of(3, false, identity("a"));
        meet(&mut one, 1, "a", false);
        assert_eq!(one.outcome(), &Outcome::Undecided);
        meet(&mut one, 2, "a", false);
        assert_eq!(one.outcome(), &Outcome::Compatible);
    }

    #[test]
    fn a_file_of_the_genesis_is_named_once_the_list_has_come() {
        let with = |genesis: &str| ServerFingerprint {
            genesis: genesis.into(),
            ..ServerFingerprint::default()
        };
        let mut one = of(3, true, with("1"));
        let hello = |served| Hello {
            identity: with("2"),
            served,
        };
        let question = CompatibilityMessage::Ask(FileList::Genesis);
        assert_eq!(one.hello(2, hello(true)), Some(question));
        assert_eq!(one.outcome(), &Outcome::Undecided);
        let list = |bytes| Listing::from_text(format!("f 644 - {bytes} 0f db\n"));
        one.listed(2, Some(&list(8)), Some(&list(9)));
        let Outcome::Refused(why) = one.outcome() else {
            panic!("{one:?}");
        };
        for words in ["db in the genesis", "9 bytes", "8 bytes", "at replica 2"] {
            assert!(why.contains(words), "{words}: {why}");
        }
        // Said again, it is not asked again.
        assert_eq!(one.hello(2, hello(true)), None);
    }

    #[test]
    fn a_list_that_never_comes_holds_nothing_up() {
        let identity = ServerFingerprint {
            genesis: "1".into(),
            ..ServerFingerprint::default()
        };
        let mut one = of(3, true, identity);
        let identity = ServerFingerprint::default();
        let hello = Hello {
            identity,
            served: true,
        };
        assert!(one.hello(2, hello).is_some());
        one.lost(2);
        assert!(is_refused(&one));
    }

    #[test]
    fn introductions_survive_the_round_trip() {
        for one in [
            node(3, "a").greeting(),
            CompatibilityMessage::Ask(FileList::Root),
            CompatibilityMessage::Files(FileList::Genesis, "f 644 - 0 0 a\\040b\n".into()),
        ] {
            let bytes = serde_json::to_vec(&one).unwrap();
            assert_eq!(
                serde_json::from_slice::<CompatibilityMessage>(&bytes).unwrap(),
                one
            );
        }
    }
}
