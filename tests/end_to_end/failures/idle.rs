//! A cluster that nobody talks to.

use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::setting;
use crate::fixture::view::View;
use std::fs;
use std::thread;
use std::time::Duration;

const TICKS_PER_SECOND: f64 = 100.0;

#[test]
fn an_idle_store_writes_no_log() {
    let (entries, _) = watch("an_idle_store_writes_no_log", Setup::store());
    assert_eq!(entries, 0, "entries without any input");
}

#[test]
fn an_idle_redis_only_has_its_own_timers() {
    let name = "an_idle_redis_only_has_its_own_timers";
    if let Some(setup) = Setup::redis(name, &[]) {
        let (entries, seconds) = watch(name, setup);
        // serverCron runs ten times a second.
        assert!(entries <= 12 * seconds, "{entries} entries in {seconds} s");
    }
}

/// Entries that were logged, and the time.
fn watch(name: &str, setup: Setup) -> (u64, u64) {
    let cluster = Cluster::start(setup);
    let mut client = Client::connect(cluster.address(2));
    client.exchange(&["SET", "key", "value"], "+OK\r\n");
    let idle = watch_cluster(name, &cluster);
    client.exchange(&["GET", "key"], "$5\r\nvalue\r\n");
    cluster.stop();
    idle
}

/// Entries that a cluster logs while nobody talks to it, and the time.
pub fn watch_cluster(name: &str, cluster: &Cluster) -> (u64, u64) {
    let (before, pids) = (cluster.settle(), cluster.processes());
    let seconds: u64 = setting("BROLGA_E2E_IDLE_SECONDS", 10);
    let used_before = ticks(&pids);
    thread::sleep(Duration::from_secs(seconds));
    let used = ticks(&pids) - used_before;
    let after = cluster.settle();
    assert_eq!(before.leader, after.leader, "the leader changed");
    let slots = chosen(&after) - chosen(&before);
    let entries = after.last_entry() - before.last_entry();
    let percent = 100.0 * used as f64 / TICKS_PER_SECOND / seconds as f64;
    let rate = 60 * entries / seconds;
    say(&format!(
        "{name}: in {seconds} s {slots} slots, {entries} of them entries ({rate}/min); all {} \
         processes together use {percent:.2} % of a processor",
        pids.len()
    ));
    (slots.max(entries), seconds)
}

fn chosen(view: &View) -> u64 {
    let all = view.all().expect("all are up");
    all.iter().map(|status| status.chosen).max().unwrap_or(0)
}

/// Processor time of these processes, in clock ticks.
fn ticks(pids: &[u64]) -> u64 {
    pids.iter().map(|pid| ticks_of(*pid)).sum()
}

fn ticks_of(pid: u64) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The program's name may hold anything but ends with the last parenthesis; then comes field 3.
    let rest = stat.rsplit(')').next().expect("a name");
    let mut fields = rest.split_whitespace().skip(14 - 3);
    let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (user, system) = (next(), next());
    user.zip(system)
        .map(|(user, system)| user + system)
        .expect("two times")
}
