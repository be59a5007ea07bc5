//! Clusters in one process: elections, crashes, restarts, datagrams and stand-alone frontends.

use super::*;

impl Cluster {
    /// A client that sends datagrams to node `id` and takes none from elsewhere.
    fn datagrams(&self, id: u64) -> Asker {
        let socket = UdpSocket::bind((address(id), 0)).unwrap();
        socket.connect((address(id), self.port)).unwrap();
        let patience = Some(Duration::from_millis(500));
        socket.set_read_timeout(patience).unwrap();
        Asker {
            socket,
            open: Vec::new(),
        }
    }
}
#[test]
fn a_member_that_lost_its_disk_comes_back_while_clients_go_on() {
    let mut cluster = Cluster::start(3);
    let lost = cluster.follower();
    let kept = cluster.up().find(|id| *id != lost).unwrap();
    let mut client = cluster.connect(kept);
    for round in 0..100_u32 {
        ping(&mut client, &round.to_le_bytes());
    }
    cluster.stop_node(lost);
    std::fs::remove_dir_all(cluster.dir.path().join(lost.to_string())).unwrap();
    ping(&mut client, b"while it is away");
    cluster.start_node(lost);
    await_that("its vote", || {
        ping(&mut client, b"while it comes back");
        cluster.status(lost).no_vote.is_none().then_some(())
    });
    cluster.await_agreement();
    // Now it is good for a quorum.
    let other = cluster.up().find(|id| *id != lost && *id != kept).unwrap();
    cluster.stop_node(other);
    ping(&mut client, b"with it alone");
    let mut new = cluster.connect(lost);
    ping(&mut new, b"at its own port");
    cluster.await_agreement();
}

#[test]
fn a_member_without_a_log_counts_for_nothing_while_somebody_has_not_told_it_what_it_knows() {
    let mut cluster = Cluster::start(3);
    let lost = cluster.follower();
    let away = cluster.up().find(|id| *id != lost).unwrap();
    cluster.stop_node(lost);
    cluster.stop_node(away);
    std::fs::remove_dir_all(cluster.dir.path().join(lost.to_string())).unwrap();
    cluster.start_node(lost);
    let expected = format!("missing: {away}");
    await_that("a word about it", || {
        let why = cluster.status(lost).no_vote?;
        why.ends_with(&expected).then_some(())
    });
    let left = cluster.up().find(|id| *id != lost).unwrap();
    await_that("the lead to end", || {
        (cluster.status(left).role == Role::Searching).then_some(())
    });
    cluster.start_node(away);
    cluster.await_leader();
    cluster.await_agreement();
}

/// Sends numbered datagrams and has them echoed.
struct Asker {
    socket: UdpSocket,
    /// How often each question was sent and not answered.
    open: Vec<u32>,
}

impl Asker {
    /// Asks until it is answered, as resolvers do.
    fn ask(&mut self) {
        let number = self.open.len();
        self.open.push(0);
        await_that("an answer", || {
            // Refused while the port is closed; that is as good as lost.
            let sent = self.socket.send(&number.to_le_bytes()).is_ok();
            self.open[number] += u32::from(sent);
            (self.answer()? == number).then_some(())
        });
    }

    /// The next answer: no more often than its question was sent.
    fn answer(&mut self) -> Option<usize> {
        let mut got = [0; 100];
        let len = self.socket.recv(&mut got).ok()?;
        let number = usize::from_le_bytes(got[..len].try_into().unwrap());
        self.open[number] = self.open[number].checked_sub(1).unwrap();
        Some(number)
    }

    /// What still comes are answers to questions that were asked several times.
    fn nothing_is_left(&mut self) {
        while self.answer().is_some() {}
    }
}

#[test]
fn datagrams_are_answered_once_while_leaders_come_and_go() {
    let mut cluster = Cluster::start_perturbed(3, 2000);
    let leader = cluster.await_leader();
    let follower = cluster.follower();
    let mut askers = [cluster.datagrams(leader), cluster.datagrams(follower)];
    for _ in 0..50 {
        askers.iter_mut().for_each(Asker::ask);
    }
    let large = noise(60_000, 3);
    askers[1].socket.send(&large).unwrap();
    let mut got = vec![0; 70_000];
    await_that("a large answer", || {
        let len = askers[1].socket.recv(&mut got).ok()?;
        (len > 8).then(|| assert!(got[..len] == large, "the echo differs"))
    });
    cluster.stop_node(leader);
    (0..50).for_each(|_| askers[1].ask());
    cluster.start_node(leader);
    cluster.await_leader();
    for _ in 0..50 {
        askers.iter_mut().for_each(Asker::ask);
    }
    askers.iter_mut().for_each(Asker::nothing_is_left);
    cluster.await_agreement();
    let counts = cluster.status(follower).datagrams;
    assert_eq!(
        counts.answered,
        counts.received - counts.stale,
        "{counts:?}"
    );
}

#[test]
fn a_server_that_replays_sends_no_datagram_again() {
    let cluster = Cluster::start(3);
    let node = cluster.follower();
    let mut asker = cluster.datagrams(node);
    (0..20).for_each(|_| asker.ask());
    let answered = cluster.status(node).datagrams.answered;
    let pid = cluster.status(node).server_pid.unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
    await_that("a new server that has caught up", || {
        let status = cluster.status(node);
        (status.server_starts == 2 && status.applied.slot == status.last_entry).then_some(())
    });
    assert_eq!(cluster.status(node).datagrams.answered, answered);
    asker.nothing_is_left();
    asker.ask();
    cluster.await_agreement();
}

#[test]
fn one_connection_outlives_the_leader_and_loses_nothing() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    let follower = cluster.follower();
    let stream = cluster.connect(follower);
    let sent = noise(10 << 20, 42);
    let mut writer = stream.try_clone().unwrap();
    let to_send = sent.clone();
    let writer = std::thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut reader = stream;
    let mut got = vec![0; sent.len()];
    let (early, late) = got.split_at_mut(3 << 20);
    reader.read_exact(early).unwrap();
    cluster.stop_node(leader);
    reader.read_exact(late).unwrap();
    assert!(got == sent, "the echo differs");
    assert_eq!(
        reader.read(&mut [0]).unwrap(),
        0,
        "an end, and nothing after it"
    );
    writer.join().unwrap();
    cluster.start_node(leader);
    cluster.await_agreement();
    let status = cluster.status(follower);
    assert!(status.resends >= 1, "{status:?}");
    assert_eq!(status.connections, 0);
}

#[test]
fn a_server_that_is_killed_is_replayed_under_its_clients() {
    let cluster = Cluster::start(3);
    let node = cluster.follower();
    let mut stream = cluster.connect(node);
    for round in 0..50_u64 {
        ping(&mut stream, &round.to_le_bytes());
    }
    let pid = cluster.status(node).server_pid.unwrap();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
    await_that("a new server", || {
        (cluster.status(node).server_starts == 2).then_some(())
    });
    for round in 50..100_u64 {
        ping(&mut stream, &round.to_le_bytes());
    }
    cluster.await_agreement();
    assert_eq!(cluster.status(node).server, ServerState::Running);
}

#[test]
fn an_idle_cluster_proposes_nothing() {
    let cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    drop(cluster.connect(leader));
    std::thread::sleep(Duration::from_millis(300));
    cluster.await_agreement();
    let before = cluster.status(leader);
    std::thread::sleep(Duration::from_secs(2));
    let after = cluster.status(leader);
    assert_eq!(before.chosen, after.chosen);
    assert_eq!(after.proposed.genesis, 1);
}

#[test]
fn a_replica_with_random_delays_does_the_same_as_the_others() {
    let cluster = Cluster::start_perturbed(3, 3000);
    let mut clients: Vec<TcpStream> = (1..=3).map(|id| cluster.connect(id)).collect();
    for round in 0..100_u64 {
        for client in &mut clients {
            client.write_all(&round.to_le_bytes()).unwrap();
        }
        for client in &mut clients {
            let mut got = [0; 8];
            client.read_exact(&mut got).unwrap();
            assert_eq!(got, round.to_le_bytes());
        }
    }
    cluster.await_agreement();
}

#[test]
fn a_slow_reader_holds_up_only_itself() {
    let cluster = Cluster::start(3);
    let node = cluster.follower();
    let slow = cluster.connect(node);
    let mut quick = cluster.connect(node);
    let sent = noise(24 << 20, 7);
    let mut writer = slow.try_clone().unwrap();
    let to_send = sent.clone();
    let writer = std::thread::spawn(move || writer.write_all(&to_send).unwrap());
    // The windows fill up: nothing of `slow` moves any more, `quick` still does.
    for round in 0..200_u64 {
        ping(&mut quick, &round.to_le_bytes());
    }
    assert!(!writer.is_finished(), "24 MB do not fit into the windows");
    let mut got = vec![0; sent.len()];
    (&slow).read_exact(&mut got).unwrap();
    assert!(got == sent, "the echo differs");
    writer.join().unwrap();
    cluster.await_agreement();
}

#[test]
fn requests_wait_for_a_quorum_and_are_answered_then() {
    let mut cluster = Cluster::start(3);
    let node = cluster.await_leader();
    let mut stream = cluster.connect(node);
    ping(&mut stream, b"hello");
    let others: Vec<u64> = cluster.up().filter(|id| *id != node).collect();
    for id in &others {
        cluster.stop_node(*id);
    }
    stream.write_all(b"are you there").unwrap();
    let waiting = await_that("a reason", || cluster.status(node).waiting);
    assert!(waiting.contains("1 of 3 replicas reachable"), "{waiting}");
    cluster.start_node(others[0]);
    let mut got = [0; 13];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"are you there");
}

#[test]
fn a_restarted_daemon_has_its_old_clients_reset_and_serves_new_ones() {
    let mut cluster = Cluster::start(3);
    let node = cluster.follower();
    let mut old = cluster.connect(node);
    ping(&mut old, b"before");
    cluster.stop_node(node);
    assert!(matches!(old.read(&mut [0]), Ok(0) | Err(_)));
    cluster.start_node(node);
    let mut new = cluster.connect(node);
    ping(&mut new, b"after");
    cluster.await_agreement();
}

#[test]
fn a_port_that_is_taken_ends_the_node_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind((address(1), 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let member = Member {
        id: 1,
        address: address(1),
        peer: SocketAddr::new(address(1), free_port(address(1))),
        sidecar: SocketAddr::new(address(1), free_port(address(1))),
    };
    let (node, _handle) = Node::open(
        config(dir.path(), 1, &[member]),
        ServerFingerprint::default(),
        FakeHost::new(port),
    )
    .unwrap();
    let error = node.run().unwrap_err().to_string();
    assert!(
        error.contains(&format!("port {port} at 127.0.0.1 is already in use")),
        "{error}"
    );
}

#[test]
fn a_stand_alone_frontend_keeps_its_clients_when_its_node_dies() {
    let mut cluster = Cluster::start(3);
    cluster.await_leader();
    let (proxy, handle) = ProxyFrontend::open(ProxyConfig {
        cluster: 0xC0FFEE,
        publish: address(9),
        nodes: cluster
            .members
            .iter()
            .map(|member| member.sidecar)
            .collect(),
    })
    .unwrap();
    let proxy = std::thread::spawn(move || proxy.run());
    let mut quiet = cluster.connect(9);
    ping(&mut quiet, b"before");
    let mut asker = cluster.datagrams(9);
    asker.ask();
    let stream = cluster.connect(9);
    let sent = noise(10 << 20, 43);
    let mut writer = stream.try_clone().unwrap();
    let to_send = sent.clone();
    let writer = std::thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut reader = stream;
    let mut got = vec![0; sent.len()];
    for (at, part) in got.chunks_mut(2 << 20).enumerate() {
        reader.read_exact(part).unwrap();
        // It attaches to the nodes in turn: each of them is lost once while bytes are under way.
        let id = at as u64 + 1;
        if id <= 3 {
            cluster.stop_node(id);
            cluster.start_node(id);
            asker.ask();
        }
    }
    assert!(got == sent, "the echo differs");
    assert_eq!(
        reader.read(&mut [0]).unwrap(),
        0,
        "an end, and nothing after it"
    );
    writer.join().unwrap();
    ping(&mut quiet, b"after");
    cluster.await_agreement();
    handle.shutdown();
    proxy.join().unwrap().unwrap();
}

/// Not a test: prints what the whole path costs. Run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure_throughput() {
    let clients: usize = std::env::var("CLIENTS").map_or(50, |text| text.parse().unwrap());
    let cluster = Cluster::start(3);
    let node = cluster.follower();
    let text = [b'x'; 40];
    let streams: Vec<TcpStream> = (0..clients).map(|_| cluster.connect(node)).collect();
    let rounds = 4000;
    let start = Instant::now();
    // One thread plays all clients, so that it costs little of the two processors.
    for stream in &streams {
        (&mut &*stream).write_all(&text).unwrap();
    }
    let mut got = [0; 40];
    for _ in 0..rounds {
        for mut stream in &streams {
            stream.read_exact(&mut got).unwrap();
            stream.write_all(&text).unwrap();
        }
    }
    let operations = (rounds * clients) as f64;
    let seconds = start.elapsed().as_secs_f64();
    let slots = cluster.status(node).chosen;
    println!(
        "{:.0} ops/s, {:.1} ops per entry",
        operations / seconds,
        operations / slots as f64
    );
}
