//! How long a learner needs to join, and what the clients of the others notice meanwhile. Stated, not
//! judged.
//!
//! All of it runs on one machine: the learner's server, its reading and writing compete with the members
//! for the same processors and the same disk, which they would not elsewhere.

use crate::checkpoints::faults::{drop_the_log, eventually_soon, fill, is_possible};
use crate::clients::resp::{Client, request};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::setting;
use crate::joining::learner::{Learner, peer_of};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
/// Requests on their way at once, of each.
const DEPTH: usize = 8;
const BEFORE: Duration = Duration::from_secs(5);

/// The answers that the clients have got so far.
#[derive(Default)]
struct Load {
    stopped: AtomicBool,
    replies: AtomicU64,
    /// The slowest batch since this was looked at last, in microseconds.
    slowest_us: AtomicU64,
}

/// Rate and slowest batch of some time.
struct Window {
    began: Instant,
    replies: u64,
}

impl Load {
    fn run(&self, number: usize, address: SocketAddr) {
        let mut client = Client::connect(address);
        let key = format!("counter{number}");
        let batch = request(&["INCR", &key]).repeat(DEPTH);
        let mut count = 0;
        while !self.stopped.load(Ordering::Relaxed) {
            let started = Instant::now();
            client.send(&batch).unwrap();
            for _ in 0..DEPTH {
                count += 1;
                client.expect(format!(":{count}\r\n").as_bytes()).unwrap();
            }
            let us = started.elapsed().as_micros() as u64;
            self.slowest_us.fetch_max(us, Ordering::Relaxed);
            self.replies.fetch_add(DEPTH as u64, Ordering::Relaxed);
        }
    }

    fn window(&self) -> Window {
        self.slowest_us.store(0, Ordering::Relaxed);
        Window {
            began: Instant::now(),
            replies: self.replies.load(Ordering::Relaxed),
        }
    }

    /// Replies per second, and the slowest batch.
    fn rate(&self, window: &Window) -> (f64, Duration) {
        let replies = self.replies.load(Ordering::Relaxed) - window.replies;
        let slowest = self.slowest_us.load(Ordering::Relaxed);
        let seconds = window.began.elapsed().as_secs_f64();
        (replies as f64 / seconds, Duration::from_micros(slowest))
    }
}

/// Tells the clients to end, also when the test panics.
struct StopOnDrop<'a>(&'a Load);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_time_to_join_is_stated() {
    let name = "the_time_to_join_is_stated";
    if !is_possible(name) {
        return;
    }
    let Some(setup) = Setup::redis(name, &[]) else {
        return;
    };
    let megabytes: usize = setting("BROLGA_E2E_JOIN_MB", 64);
    let mut learner = Learner::new(setup.port);
    let setup = setup.option("--container", "required");
    let cluster = Cluster::start(setup.option("--checkpoint-log-mib", "0"));
    let survivor = cluster.settle().followers()[0];
    fill(&cluster, survivor, megabytes);
    drop_the_log(&cluster);
    let load = Load::default();
    thread::scope(|scope| {
        let stop = StopOnDrop(&load);
        for number in 0..CLIENTS {
            let address = cluster.address(survivor);
            scope.spawn({
                let load = &load;
                move || load.run(number, address)
            });
        }
        thread::sleep(Duration::from_secs(1));
        let window = load.window();
        thread::sleep(BEFORE);
        let before = load.rate(&window);
        let window = load.window();
        let started = Instant::now();
        learner.join(peer_of(&cluster, survivor));
        let mut fetched = None;
        let open = eventually_soon(|| {
            let Some(status) = learner.status() else {
                return false;
            };
            if status.restored_from.is_some() {
                fetched.get_or_insert_with(|| started.elapsed());
            }
            status.is_open()
        });
        assert!(open, "the learner never serves: {:#?}", learner.status());
        let (joined, during) = (started.elapsed(), load.rate(&window));
        let window = load.window();
        thread::sleep(BEFORE);
        let after = load.rate(&window);
        drop(stop);
        let shown =
            |(rate, slowest): (f64, Duration)| format!("{rate:.0}/s, slowest {slowest:.1?}");
        say(&format!(
            "{name}: {megabytes} MB: brought back after {:.1?}, serves after {joined:.1?}; load before: {}; \
             meanwhile: {} ({:.2}); with the learner: {}",
            fetched.unwrap_or_default(),
            shown(before),
            shown(during),
            during.0 / before.0,
            shown(after),
        ));
    });
    learner.wait_until_equal(&cluster);
    cluster.stop();
}
