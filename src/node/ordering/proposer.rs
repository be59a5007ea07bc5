//! Proposals of the leader: client events in batches, and time bubbles only where the
//! server cannot go on without one. The rules and both settings are those of CRANE.
//!
//! * Client events: at once when nothing is in flight; otherwise they gather until the entry in
//!   flight is chosen or they are many, which makes batches as large as the disk is slow.
//! * *Starved*: the server has used up its clocks and could still run. If no client speaks for
//!   `bubble_wait`, a bubble with more clocks; each further one in a row brings twice as many.
//! * *Timer*: the server is idle and waits for a time that has come: one bubble that carries it.
//! * Otherwise nothing, ever.
//!
//! Sans-IO: the event loop passes the state of the node as a [`View`], and proposes what comes out.

use crate::server::output::ServerClock;
use brolga_tape::ENTRY_BYTES_MAX;
use brolga_tape::entry::{ENTRY_HEADER_BYTES, EVENT_HEADER_BYTES, EntryBuilder, Event};
use brolga_tape::record::NO_DEADLINE;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Clocks of the bubble that starts the server.
pub(crate) const GENESIS_CLOCKS: u32 = 1_000_000;
/// Clocks of a starvation bubble grow up to this.
pub(crate) const STARVED_CLOCKS_MAX: u32 = 16_000_000;
/// A batch is cut here.
const BATCH_BYTES_MAX: usize = ENTRY_BYTES_MAX / 2;
/// With this many bytes waiting, a further entry is put in flight.
const PIPELINE_BYTES: usize = 64 * 1024;
/// Entries in flight at most.
const PIPELINE_DEPTH: usize = 8;

/// The settings of a [`Proposer`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProposerConfig {
    /// Clocks granted with each client event.
    pub clocks_per_event: u32,
    /// Time for which a starved server waits for a client before it gets a bubble.
    pub bubble_wait: Duration,
}

/// The state of the node at this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Now.
    pub now: Instant,
    /// Now, by the wall clock, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// This node leads and its log is recovered.
    pub may_propose: bool,
    /// Entries proposed and not chosen yet.
    pub inflight: usize,
    /// Every chosen slot was looked at.
    pub caught_up: bool,
    /// The last chosen slot with an entry in it; 0 when the log is empty.
    pub last_slot: u64,
    /// The own server's state.
    pub server: Option<ServerClock>,
}

impl View {
    /// The server has answered the whole log and nothing more is under way.
    fn settled(&self) -> Option<ServerClock> {
        let server = self.server?;
        let quiet = self.may_propose && self.inflight == 0 && self.caught_up;
        (quiet && server.slot == self.last_slot).then_some(server)
    }
}

/// The number of entries of each kind that were proposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// With client events.
    pub client: u64,
    /// Bubbles for a timer of the server.
    pub timer: u64,
    /// Bubbles for a server that has used up its clocks.
    pub starvation: u64,
    /// The bubble that starts the server.
    pub genesis: u64,
}

/// The queue of a leader's proposals.
#[derive(Debug)]
pub(crate) struct Proposer {
    config: ProposerConfig,
    full: VecDeque<EntryBuilder>,
    open: EntryBuilder,
    queued_bytes: usize,
    starved_clocks: u32,
    genesis_sent: bool,
    time: LogTime,
    proposed: Proposed,
}

impl Proposer {
    /// An empty queue.
    pub(crate) fn new(config: ProposerConfig) -> Self {
        Self {
            config,
            full: VecDeque::new(),
            open: EntryBuilder::new(),
            queued_bytes: 0,
            starved_clocks: config.clocks_per_event,
            genesis_sent: false,
            time: LogTime::default(),
            proposed: Proposed::default(),
        }
    }

    /// Queues encoded events.
    pub(crate) fn push(&mut self, count: u32, events: &[u8]) {
        if self.open.len() + events.len() > BATCH_BYTES_MAX && !self.open.is_empty() {
            self.full.push_back(std::mem::take(&mut self.open));
        }
        self.open.push_encoded(count, events);
        self.queued_bytes += events.len();
    }

    /// No longer the leader: frontends will resend to the next one.
    pub(crate) fn clear(&mut self) {
        self.full.clear();
        self.open = EntryBuilder::new();
        self.queued_bytes = 0;
        self.genesis_sent = false;
    }

    /// Takes note of a chosen entry's time, and of the server going idle.
    pub(crate) fn observe_time(&mut self, time_ns: u64, now: Instant) {
        self.time.observe(time_ns, now);
    }

    /// The time of the last entry seen, if there was any.
    pub(crate) fn last_time(&self) -> Option<u64> {
        self.time.last.map(|(time_ns, _)| time_ns)
    }

    /// The server has reported its state.
    pub(crate) fn observe_server(&mut self, server: &ServerClock) {
        if server.idle {
            self.starved_clocks = self.config.clocks_per_event;
        }
    }

    /// Returns the number of entries that were proposed so far.
    pub(crate) fn proposed(&self) -> Proposed {
        self.proposed
    }

    /// The next entry to propose now, if any. The caller proposes it and asks again.
    pub(crate) fn poll(&mut self, view: &View) -> Option<Vec<u8>> {
        if !view.may_propose {
            return None;
        }
        if view.last_slot == 0 && !self.genesis_sent {
            return self.genesis(view);
        }
        if self.queued_bytes > 0 {
            return self.may_send(view).then(|| self.client_entry(view));
        }
        let due = self.bubble_due(view)?;
        (due.at <= view.now).then(|| self.bubble(view, due))
    }

    /// The time at which [`Proposer::poll`] is to be asked again although nothing has happened.
    pub(crate) fn wakeup(&self, view: &View) -> Option<Instant> {
        if view.may_propose && self.queued_bytes > 0 {
            return self.may_send(view).then_some(view.now);
        }
        self.bubble_due(view).map(|due| due.at)
    }

    fn may_send(&self, view: &View) -> bool {
        view.inflight == 0
            || (view.inflight < PIPELINE_DEPTH && self.queued_bytes >= PIPELINE_BYTES)
    }

    fn genesis(&mut self, view: &View) -> Option<Vec<u8>> {
        if view.inflight > 0 || !view.caught_up {
            return None;
        }
        self.genesis_sent = true;
        self.proposed.genesis += 1;
        let time_ns = self.time.advance(view);
        Some(EntryBuilder::new().finish(time_ns, GENESIS_CLOCKS))
    }

    /// An entry with one event that no client waits for.
    pub(crate) fn entry_for(&mut self, event: &Event<'_>, view: &View) -> Vec<u8> {
        let mut entry = EntryBuilder::new();
        entry.push(event);
        let clocks = client_clocks(self.config.clocks_per_event, &entry);
        entry.finish(self.time.advance(view), clocks)
    }

    fn client_entry(&mut self, view: &View) -> Vec<u8> {
        let mut batch = self
            .full
            .pop_front()
            .unwrap_or_else(|| std::mem::take(&mut self.open));
        self.queued_bytes -= batch.len() - ENTRY_HEADER_BYTES;
        self.proposed.client += 1;
        let clocks = client_clocks(self.config.clocks_per_event, &batch);
        batch.finish(self.time.advance(view), clocks)
    }

    fn bubble_due(&self, view: &View) -> Option<Due> {
        let server = view.settled()?;
        if !server.idle {
            return Some(Due {
                at: server.at + self.config.bubble_wait,
                kind: Bubble::Starvation,
            });
        }
        if server.deadline_ns == NO_DEADLINE {
            return None;
        }
        let wait_ns = server.deadline_ns.saturating_sub(self.time.at(view));
        Some(Due {
            at: view.now + Duration::from_nanos(wait_ns),
            kind: Bubble::Timer(server.deadline_ns),
        })
    }

    fn bubble(&mut self, view: &View, due: Due) -> Vec<u8> {
        let time_ns = self.time.advance(view);
        let (time_ns, clocks) = match due.kind {
            Bubble::Timer(deadline_ns) => {
                self.proposed.timer += 1;
                (
                    time_ns.max(deadline_ns),
                    client_clocks(self.config.clocks_per_event, &EntryBuilder::new()),
                )
            }
            Bubble::Starvation => {
                self.proposed.starvation += 1;
                let clocks = self.starved_clocks;
                self.starved_clocks = clocks.saturating_mul(2).min(STARVED_CLOCKS_MAX);
                (time_ns, clocks)
            }
        };
        EntryBuilder::new().finish(time_ns, clocks)
    }
}

/// A bubble that will be wanted.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    kind: Bubble,
}

#[derive(Clone, Copy, Debug)]
enum Bubble {
    Starvation,
    Timer(u64),
}

/// N_clock for the entry and for each event, and one clock for each byte of payload.
fn client_clocks(clocks_per_event: u32, batch: &EntryBuilder) -> u32 {
    let count = batch.event_count();
    let headers = ENTRY_HEADER_BYTES + count as usize * EVENT_HEADER_BYTES;
    let payload = batch.len().saturating_sub(headers);
    clocks_per_event
        .saturating_mul(count.saturating_add(1))
        .saturating_add(u32::try_from(payload).unwrap_or(u32::MAX))
}

/// The time that entries carry: the wall clock, but never back, whoever leads. Where the wall clock
/// is behind the log, time goes on from the log's at nine tenths of its speed until the wall clock
/// has caught up; a timer of the server is late by a tenth then, instead of by the whole
/// difference.
#[derive(Clone, Copy, Debug, Default)]
struct LogTime {
    last: Option<(u64, Instant)>,
}

impl LogTime {
    fn observe(&mut self, time_ns: u64, now: Instant) {
        if self.last.is_none_or(|(last_ns, _)| time_ns > last_ns) {
            self.last = Some((time_ns, now));
        }
    }

    fn at(&self, view: &View) -> u64 {
        let Some((last_ns, at)) = self.last else {
            return view.wall_ns;
        };
        let elapsed = view.now.saturating_duration_since(at).as_nanos() as u64;
        view.wall_ns.max(last_ns + elapsed / 10 * 9)
    }

    fn advance(&mut self, view: &View) -> u64 {
        let time_ns = self.at(view);
        self.observe(time_ns, view.now);
        time_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_tape::ConnId;
    use brolga_tape::entry::{Entry, Event};

    const WAIT: Duration = Duration::from_micros(100);

    fn proposer() -> Proposer {
        Proposer::new(ProposerConfig {
            clocks_per_event: 1000,
            bubble_wait: WAIT,
        })
    }

    fn view(now: Instant) -> View {
        View {
            now,
            wall_ns: 1_000_000,
            may_propose: true,
            inflight: 0,
            caught_up: true,
            last_slot: 5,
            server: Some(ServerClock {
                slot: 5,
                idle: true,
                deadline_ns: NO_DEADLINE,
                at: now,
            }),
        }
    }

    fn push(proposer: &mut Proposer, bytes: usize) {
        let mut events = EntryBuilder::new();
        events.push(&Event::Data {
            conn: ConnId::default(),
            offset: 0,
            bytes: &vec![1; bytes],
        });
        proposer.push(1, events.encoded_events());
    }

    fn clocks(bytes: &[u8]) -> u32 {
        Entry::parse(bytes).unwrap().clocks
    }

    #[test]
    fn an_empty_log_starts_with_one_large_bubble() {
        let now = Instant::now();
        let mut proposer = proposer();
        let mut view = View {
            last_slot: 0,
            server: None,
            ..view(now)
        };
        view.may_propose = false;
        assert_eq!(proposer.poll(&view), None);
        view.may_propose = true;
        let entry = proposer.poll(&view).unwrap();
        assert_eq!(clocks(&entry), GENESIS_CLOCKS);
        assert_eq!(proposer.poll(&view), None);
    }

    #[test]
    fn an_idle_server_without_timers_costs_nothing() {
        let now = Instant::now();
        let mut proposer = proposer();
        let later = now + Duration::from_secs(3600);
        assert_eq!(
            proposer.poll(&View {
                now: later,
                ..view(now)
            }),
            None
        );
        assert_eq!(proposer.wakeup(&view(now)), None);
    }

    #[test]
    fn events_gather_while_an_entry_is_in_flight() {
        let now = Instant::now();
        let mut proposer = proposer();
        let busy = View {
            inflight: 1,
            ..view(now)
        };
        push(&mut proposer, 10);
        push(&mut proposer, 20);
        assert_eq!(proposer.poll(&busy), None);
        let entry = proposer.poll(&view(now)).unwrap();
        assert_eq!(Entry::parse(&entry).unwrap().event_count, 2);
        assert_eq!(clocks(&entry), 3 * 1000 + 16 + 24);
        assert_eq!(proposer.poll(&view(now)), None);
        push(&mut proposer, PIPELINE_BYTES);
        assert!(proposer.poll(&busy).is_some());
    }

    #[test]
    fn large_batches_are_cut_below_the_limit() {
        let now = Instant::now();
        let mut proposer = proposer();
        for _ in 0..40 {
            push(&mut proposer, 64 * 1024);
        }
        let mut events = 0;
        while let Some(entry) = proposer.poll(&view(now)) {
            assert!(entry.len() < ENTRY_BYTES_MAX);
            events += Entry::parse(&entry).unwrap().event_count;
        }
        assert_eq!(events, 40);
    }

    #[test]
    fn a_starved_server_gets_bubbles_that_double_until_it_is_idle() {
        let now = Instant::now();
        let mut proposer = proposer();
        let starved = ServerClock {
            slot: 5,
            idle: false,
            deadline_ns: NO_DEADLINE,
            at: now,
        };
        let early = View {
            server: Some(starved),
            ..view(now)
        };
        assert_eq!(proposer.poll(&early), None);
        assert_eq!(proposer.wakeup(&early), Some(now + WAIT));
        let late = View {
            now: now + WAIT,
            ..early
        };
        for expected in [1000, 2000, 4000] {
            assert_eq!(clocks(&proposer.poll(&late).unwrap()), expected);
        }
        proposer.observe_server(&ServerClock {
            idle: true,
            ..starved
        });
        assert_eq!(clocks(&proposer.poll(&late).unwrap()), 1000);
        assert_eq!(proposer.proposed().starvation, 4);
        let behind = View {
            last_slot: 6,
            ..late
        };
        assert_eq!(proposer.poll(&behind), None);
    }

    #[test]
    fn a_timer_of_an_idle_server_gets_one_bubble_when_it_is_due() {
        let now = Instant::now();
        let mut proposer = proposer();
        let mut view = view(now);
        view.server = Some(ServerClock {
            slot: 5,
            idle: true,
            deadline_ns: view.wall_ns + 5_000,
            at: now,
        });
        assert_eq!(proposer.poll(&view), None);
        assert_eq!(proposer.wakeup(&view), Some(now + Duration::from_micros(5)));
        view.now += Duration::from_micros(5);
        view.wall_ns += 5_000;
        let entry = proposer.poll(&view).unwrap();
        assert_eq!(Entry::parse(&entry).unwrap().time_ns, view.wall_ns);
        assert_eq!(proposer.proposed().timer, 1);
    }

    #[test]
    fn time_goes_on_from_the_log_when_the_wall_clock_is_behind() {
        let now = Instant::now();
        let mut proposer = proposer();
        proposer.observe_time(9_000_000, now);
        push(&mut proposer, 1);
        let entry = proposer.poll(&View {
            now: now + Duration::from_nanos(1000),
            ..view(now)
        });
        assert_eq!(Entry::parse(&entry.unwrap()).unwrap().time_ns, 9_000_900);
    }
}
