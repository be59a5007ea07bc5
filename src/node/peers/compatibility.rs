//! Nodes introduce themselves: whose server is made of something else serves nobody.
//!
//! Each node says at the beginning of a link what its server is made of ([`ServerFingerprint`]),
//! and whether it has ever served clients. Who is wrong is settled by each node for itself:
//!
//! * it is *kin* when a majority of the members, itself among them, is the same as it, when it has
//!   served
//!   before, or when one that has served is the same. Only then it opens its ports;
//! * it is *refused*, and ends, when a majority is alike and different from it, or when it has
//!   never
//!   served and one that has is different;
//! * otherwise (too few are up to tell) it waits and says so.
//!
//! Whoever has served was kin once, and what it is made of cannot change in its data directory (see
//! [`brolga_server_image::identity`]), so that it need not wait for others when it starts again. In
//! the log all of
//! them vote as ever: what is chosen does not depend on what the servers do with it.
//!
//! Where lists of files differ, each side asks the other for its list, so that it can name a file.

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

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What its server is made of.
    identity: ServerFingerprint,
    /// Whether it has ever served.
    served: bool,
}

/// What nodes say to each other about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Introduction {
    /// At the beginning of a link, and when it serves for the first time.
    Hello(Hello),
    /// A list of files is wanted.
    Ask(List),
    /// Answer: the list, or nothing if there is none.
    Files(List, String),
}

/// Files of which an identity has only the hash of their list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum List {
    /// See [`ServerFingerprint::root`].
    Root,
    /// See [`ServerFingerprint::genesis`].
    Genesis,
}

impl List {
    /// The one that tells in which file two servers differ.
    fn that_shows(mismatch: &Mismatch) -> Option<Self> {
        match mismatch {
            Mismatch::Root => Some(Self::Root),
            Mismatch::Genesis => Some(Self::Genesis),
            _ => None,
        }
    }
}

/// What this node may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Too few others are known.
    Unknown,
    /// It may serve.
    Kin,
    /// It is wrong; the reason.
    Refused(String),
}

/// Another node, as it has introduced itself.
#[derive(Debug)]
struct Met {
    hello: Hello,
    /// `None`: it is the same.
    mismatch: Option<Mismatch>,
    /// The difference in words; `None`: there is none, or its list is awaited.
    words: Option<String>,
}

/// See the module's description.
#[derive(Debug)]
pub struct Compatibility {
    own: Hello,
    /// Members that make a majority, and whether this node counts among them.
    majority: usize,
    member: bool,
    met: BTreeMap<NodeId, Met>,
    /// As [`Compatibility::judge`] found; asked for at every turn.
    standing: Standing,
}

impl Compatibility {
    /// Of a node whose server is made of this.
    pub fn new(config: &NodeConfig, identity: ServerFingerprint) -> Self {
        let own = Hello {
            identity,
            served: config.served_mark().exists(),
        };
        let member = config.members.iter().any(|member| member.id == config.node);
        Self::of(own, config.members.len() / 2 + 1, member)
    }

    fn of(own: Hello, majority: usize, member: bool) -> Self {
        let mut company = Self {
            own,
            majority,
            member,
            met: BTreeMap::new(),
            standing: Standing::Unknown,
        };
        company.standing = company.judge();
        company
    }

    /// What it says at the beginning of a link.
    pub fn greeting(&self) -> Introduction {
        Introduction::Hello(self.own.clone())
    }

    /// This node serves now.
    fn serves(&mut self) {
        self.own.served = true;
        self.standing = self.judge();
    }

    /// Another one has introduced itself; what is to be asked of it.
    fn hello(&mut self, from: NodeId, hello: Hello) -> Option<Introduction> {
        let mismatch = self.own.identity.mismatch(&hello.identity);
        let known = self.met.get(&from);
        let words = match &mismatch {
            Some(mismatch) if known.is_some_and(|it| it.mismatch.as_ref() == Some(mismatch)) => {
                known.and_then(|it| it.words.clone())
            }
            Some(mismatch) if List::that_shows(mismatch).is_some() => None,
            Some(mismatch) => Some(mismatch.describe(HERE, &at(from))),
            None => None,
        };
        let asks = mismatch.as_ref().filter(|_| words.is_none());
        let asks = asks.and_then(List::that_shows);
        self.met.insert(
            from,
            Met {
                hello,
                mismatch,
                words,
            },
        );
        self.standing = self.judge();
        asks.map(Introduction::Ask)
    }

    /// Its list has come, or will not come.
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
        self.standing = self.judge();
    }

    /// The link to another one is down: it answers no more.
    pub fn lost(&mut self, peer: NodeId) {
        self.listed(peer, None, None);
    }

    /// What this node may do.
    #[cfg(test)]
    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn judge(&self) -> Standing {
        let alike = self.met.values().filter(|it| it.mismatch.is_none());
        let same = alike.clone().count() + usize::from(self.member);
        let served = |met: &Met| met.hello.served;
        let kin = same >= self.majority || self.own.served || alike.clone().any(served);
        let against = self.met.iter().find(|(_, met)| {
            let twin = |it: &&Met| it.hello.identity == met.hello.identity;
            let twins = self.met.values().filter(twin).count();
            met.mismatch.is_some() && (twins >= self.majority || (!kin && served(met)))
        });
        match against {
            Some((peer, met)) => match &met.words {
                Some(words) => Standing::Refused(refusal(*peer, words, met)),
                None => Standing::Unknown,
            },
            None if kin => Standing::Kin,
            None => Standing::Unknown,
        }
    }

    /// What keeps it from serving, in words.
    pub fn waiting(&self) -> Option<String> {
        if self.standing != Standing::Unknown {
            return None;
        }
        let (peer, met) = self.met.iter().find(|(_, met)| met.words.is_some())?;
        let (words, advice) = (met.words.as_deref()?, met.mismatch.as_ref()?.advice());
        Some(format!(
            "replica {peer} is not made of the same, and too few are up to tell which is right: \
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
    pub fn receive(
        &mut self,
        from: NodeId,
        message: Introduction,
        config: &NodeConfig,
    ) -> Option<Introduction> {
        let told = self.difference(from);
        let answer = match message {
            // A learner that is different finds that out by itself, and counts for nothing here.
            Introduction::Hello(_) if !config.is_member(from) => None,
            Introduction::Hello(hello) => self.hello(from, hello),
            Introduction::Ask(list) => {
                let text = own_list(config, list).map(|list| list.text().to_owned());
                let text = text.filter(|text| text.len() <= LIST_BYTES_MAX);
                Some(Introduction::Files(list, text.unwrap_or_default()))
            }
            Introduction::Files(list, text) => {
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
                    "that replica has another program, other libraries or other initial files: {words}"
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
    pub fn may_serve(&self) -> Result<bool, Incompatible> {
        match &self.standing {
            Standing::Kin => Ok(true),
            Standing::Unknown => Ok(false),
            Standing::Refused(why) => Err(Incompatible(why.clone())),
        }
    }

    /// Notes on disk that this node serves clients, when it does so for the first time. Returns the
    /// nodes that are to be told.
    ///
    /// # Errors
    /// The mark cannot be written.
    pub fn note_serving(&mut self, config: &NodeConfig) -> io::Result<Vec<NodeId>> {
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

fn own_list(config: &NodeConfig, list: List) -> Option<Listing> {
    let path = match list {
        List::Root => config.root_list(),
        List::Genesis => config.genesis_list(),
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
        "this replica is refused, it is not made of the same as replica {peer}: {words}: {advice}"
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

    fn company(members: usize, kind: &str) -> Compatibility {
        of(members, true, identity(kind))
    }

    fn of(members: usize, member: bool, identity: ServerFingerprint) -> Compatibility {
        let own = Hello {
            identity,
            served: false,
        };
        Compatibility::of(own, members / 2 + 1, member)
    }

    fn meet(company: &mut Compatibility, peer: NodeId, kind: &str, served: bool) {
        let identity = identity(kind);
        let asked = company.hello(peer, Hello { identity, served });
        assert_eq!(asked, None);
    }

    fn is_refused(company: &Compatibility) -> bool {
        matches!(company.standing(), Standing::Refused(_))
    }

    #[test]
    fn one_alone_is_a_majority_of_itself() {
        assert_eq!(company(1, "a").standing(), &Standing::Kin);
        assert_eq!(company(3, "a").standing(), &Standing::Unknown);
    }

    #[test]
    fn the_majority_is_right_whoever_meets_first() {
        for order in [[2, 3], [3, 2]] {
            let (mut right, mut wrong) = (company(3, "a"), company(3, "b"));
            for peer in order {
                meet(&mut right, peer, if peer == 2 { "a" } else { "b" }, false);
                meet(&mut wrong, peer, "a", false);
            }
            assert_eq!(right.standing(), &Standing::Kin);
            assert!(is_refused(&wrong));
        }
    }

    #[test]
    fn two_that_differ_wait_until_one_of_them_has_served() {
        let mut one = company(3, "a");
        meet(&mut one, 2, "b", false);
        assert_eq!(one.standing(), &Standing::Unknown);
        assert!(one.waiting().unwrap().contains("replica 2"), "{one:?}");
        meet(&mut one, 2, "b", true);
        assert!(is_refused(&one));
        let mut other = company(3, "b");
        other.serves();
        meet(&mut other, 1, "a", false);
        assert_eq!(other.standing(), &Standing::Kin);
    }

    #[test]
    fn one_that_has_served_gives_way_to_a_majority_only() {
        let mut one = company(3, "a");
        one.serves();
        meet(&mut one, 2, "b", true);
        assert_eq!(one.standing(), &Standing::Kin);
        meet(&mut one, 3, "b", false);
        assert!(is_refused(&one));
    }

    #[test]
    fn three_that_differ_all_wait() {
        let mut one = company(3, "a");
        meet(&mut one, 2, "b", false);
        meet(&mut one, 3, "c", false);
        assert_eq!(one.standing(), &Standing::Unknown);
    }

    #[test]
    fn a_newcomer_is_kin_of_one_that_has_served() {
        let mut one = company(5, "a");
        meet(&mut one, 2, "a", true);
        assert_eq!(one.standing(), &Standing::Kin);
    }

    #[test]
    fn whoever_is_no_member_does_not_count_itself() {
        let mut one = of(3, false, identity("a"));
        meet(&mut one, 1, "a", false);
        assert_eq!(one.standing(), &Standing::Unknown);
        meet(&mut one, 2, "a", false);
        assert_eq!(one.standing(), &Standing::Kin);
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
        let question = Introduction::Ask(List::Genesis);
        assert_eq!(one.hello(2, hello(true)), Some(question));
        assert_eq!(one.standing(), &Standing::Unknown);
        let list = |bytes| Listing::from_text(format!("f 644 - {bytes} 0f db\n"));
        one.listed(2, Some(&list(8)), Some(&list(9)));
        let Standing::Refused(why) = one.standing() else {
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
            company(3, "a").greeting(),
            Introduction::Ask(List::Root),
            Introduction::Files(List::Genesis, "f 644 - 0 0 a\\040b\n".into()),
        ] {
            let bytes = serde_json::to_vec(&one).unwrap();
            assert_eq!(serde_json::from_slice::<Introduction>(&bytes).unwrap(), one);
        }
    }
}
