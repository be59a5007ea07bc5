//! The checker checks: a replica that says something else is named, serves nobody, and is healed.

use crate::clients::counting::{Control, count};
use crate::clients::web::{self, fetch, try_fetch};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::scaled;
use crate::fixture::view::View;
use crate::harness::{eventually, finish};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

const RIGHT: &[u8] = b"the same";
const WRONG: &[u8] = b"the fame";
/// Of all files that a server starts with.
const GENESIS_TIME: Duration = Duration::from_secs(946_684_800);

/// A web server with one page, which is another one at replica 2.
fn tampered(name: &str, voting: bool) -> Option<Cluster> {
    let files = [("page".to_owned(), RIGHT.to_vec())];
    let (mut setup, genesis) = web::setup(name, &files)?;
    if voting {
        setup = setup.voting();
    }
    let cluster = Cluster::start(setup);
    drop(genesis);
    assert_eq!(fetch(cluster.address(1), "page"), RIGHT);
    cluster.settle();
    let page = cluster.node_dir(2).join("work/page");
    fs::write(&page, WRONG).unwrap();
    // The server tells this time too: only the page is to differ, by one byte.
    let page = File::options().write(true).open(page).unwrap();
    page.set_modified(UNIX_EPOCH + GENESIS_TIME).unwrap();
    Some(cluster)
}

/// Waits until every node knows that replica 2 was wrong, and says after how long.
fn await_name(name: &str, cluster: &Cluster) {
    let mut view = None;
    let named = eventually(|| {
        let now = cluster.any_view();
        let knows = |it: &crate::fixture::view::Replica| {
            let difference = it.status.as_ref()?.difference.as_ref()?;
            Some(difference.minority == [2] && difference.place.is_some())
        };
        let all = now.replicas.iter().all(|it| knows(it) == Some(true));
        view = Some(now);
        all
    });
    let view = view.expect("it was asked");
    assert!(named, "{view:#?}");
    let difference = view.difference.clone().expect("it was named");
    let place = difference.place.clone().expect("what differs is known");
    assert!(difference.exact, "{difference}");
    assert_eq!(
        place.connection.and_then(|it| it.node),
        Some(1),
        "{difference}"
    );
    assert!(place.offset.is_some() && place.thread > 0, "{difference}");
    let said = [&*place.ours, &*place.theirs];
    assert!(
        said.contains(&"writes \"fame\"") && said.contains(&"writes \"same\""),
        "{said:?}"
    );
    say(&format!("{name}: {difference}"));
    for replica in &view.replicas {
        let known = replica
            .status
            .as_ref()
            .and_then(|it| it.difference.as_ref());
        let after = known.map(|it| (it.node, it.judged_after_us, it.named_after_us));
        say(&format!(
            "{name}: node {}: (by, judged µs, named µs) {after:?}",
            replica.id
        ));
    }
}

#[test]
fn a_replica_that_says_something_else_is_named_and_healed() {
    let name = "a_replica_that_says_something_else_is_named_and_healed";
    let Some(cluster) = tampered(name, false) else {
        return;
    };
    assert_eq!(fetch(cluster.address(1), "page"), RIGHT);
    await_name(name, &cluster);
    // Its replay from the genesis makes the page right again.
    let healed = eventually(|| whole_again(&cluster.any_view()));
    assert!(healed, "{:#?}", cluster.any_view());
    let starts = cluster
        .any_view()
        .node(2)
        .map(|status| status.server_starts);
    assert_eq!(starts, Some(2));
    assert_eq!(fetch(cluster.address(2), "page"), RIGHT);
    let data = cluster.data();
    let status = finish(&["status", "--data", data.to_str().unwrap()]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(
        status.stdout.contains("was wrong and agrees again"),
        "{status:?}"
    );
    cluster.stop();
}

fn whole_again(view: &View) -> bool {
    let free = |it: &crate::fixture::view::Replica| {
        it.status
            .as_ref()
            .is_some_and(|status| status.quarantine.is_none())
    };
    view.whole() && view.equal == Some(true) && view.replicas.iter().all(free)
}

/// Clients of all nodes ask all the time, those of the wrong one too.
#[test]
fn with_a_vote_no_client_ever_gets_a_wrong_byte() {
    let name = "with_a_vote_no_client_ever_gets_a_wrong_byte";
    let Some(cluster) = tampered(name, true) else {
        return;
    };
    let done = AtomicBool::new(false);
    let rounds = 10 * scaled(1);
    let (answers, broken) = thread::scope(|scope| {
        let clients: Vec<_> = (1..=3)
            .map(|node| {
                let (address, done) = (cluster.address(node), &done);
                scope.spawn(move || ask_until(address, done))
            })
            .collect();
        await_name_of_any(name, &cluster);
        for _ in 0..rounds {
            assert_eq!(fetch(cluster.address(1), "page"), RIGHT);
        }
        done.store(true, Ordering::Relaxed);
        let counts = clients.into_iter().map(|client| client.join().unwrap());
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    say(&format!(
        "{name}: {answers} right answers, {broken} broken connections, none wrong"
    ));
    assert!(answers > 0);
    let healed = eventually(|| whole_again(&cluster.any_view()));
    assert!(healed, "{:#?}", cluster.any_view());
    assert_eq!(fetch(cluster.address(2), "page"), RIGHT);
    cluster.stop();
}

fn await_name_of_any(name: &str, cluster: &Cluster) {
    let named = eventually(|| {
        let difference = cluster.any_view().difference;
        difference.is_some_and(|it| it.minority == [2] && it.place.is_some())
    });
    let view = cluster.any_view();
    assert!(named, "{view:#?}");
    say(&format!(
        "{name}: {}",
        view.difference.expect("it was named")
    ));
}

/// Counts right answers and broken connections; no byte of any is wrong.
fn ask_until(address: SocketAddr, done: &AtomicBool) -> (u64, u64) {
    let (mut right, mut broken) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let (reply, outcome) = try_fetch(address, "page");
        let body = reply.windows(4).position(|it| it == b"\r\n\r\n");
        let body = body.map_or(&[][..], |at| &reply[at + 4..]);
        assert!(
            RIGHT.starts_with(body),
            "{address} said {}",
            body.escape_ascii()
        );
        match outcome {
            Ok(()) if body == RIGHT => right += 1,
            _ => broken += 1,
        }
    }
    (right, broken)
}

/// Voting changes nothing for a server that is right: not even a leader's death.
#[test]
fn with_a_vote_clients_count_through_a_leaders_death() {
    let name = "with_a_vote_clients_count_through_a_leaders_death";
    let cluster = Cluster::start(Setup::store().voting().perturbed(50));
    let view = cluster.settle();
    let home = view.followers()[0];
    let control = Control::default();
    thread::scope(|scope| {
        let guard = control.guard();
        let (control, address) = (&control, cluster.address(home));
        let clients: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || count(number, address, control)))
            .collect();
        assert!(eventually(|| control.acknowledged() > 500));
        cluster.kill(&view, view.leader());
        let before = control.acknowledged();
        assert!(eventually(|| control.acknowledged() > before + 500));
        drop(guard);
        for client in clients {
            let tally = client.join().unwrap();
            assert!(tally.broke.is_none(), "{tally:?}");
        }
    });
    say(&format!(
        "{name}: {} acknowledged, {}",
        control.acknowledged(),
        cluster.settle().hashes()
    ));
    cluster.stop();
}
