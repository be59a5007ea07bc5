//! Three whole nodes in one process, with echo servers behind them and real clients in front.

use crate::testing::fake_server::{Dumps, FakeHost};
use crate::{
    CheckpointResult, Node, NodeError, NodeHandle, NodeStatus, ProxyConfig, ProxyFrontend, Role,
    ServerState,
};
use brolga_checkpoint::ServerFingerprint;
use brolga_config::Containment;
use brolga_config::{ClusterId, Member, NodeConfig};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    handle: NodeHandle,
    thread: JoinHandle<Result<(), NodeError>>,
}

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    members: Vec<Member>,
    port: u16,
    nodes: Vec<Option<Running>>,
    /// Longest random delay of each entry at node 3.
    perturb_us: u32,
    pub(crate) vote: bool,
    pub(crate) segment_bytes: u64,
    /// Growth of the log between checkpoints, in megabytes.
    pub(crate) checkpoint_log_mib: u64,
    pub(crate) dumps: Arc<Dumps>,
    /// Which servers of each node are wrong.
    pub(crate) lies: Vec<Arc<AtomicU8>>,
}

pub(crate) fn address(id: u64) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(id).unwrap()).into()
}

fn free_port(at: IpAddr) -> u16 {
    brolga_os::ports::reserve(&[at]).unwrap()
}

pub(crate) fn await_that<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Cluster {
    pub(crate) fn start(size: u64) -> Self {
        Self::start_perturbed(size, 0)
    }

    /// As [`Cluster::start`], with a log in files of this size.
    pub(crate) fn start_with(size: u64, segment_bytes: u64) -> Self {
        Self::start_so(size, 0, segment_bytes)
    }

    fn start_perturbed(size: u64, perturb_us: u32) -> Self {
        Self::start_so(
            size,
            perturb_us,
            brolga_config::defaults::log_segment_bytes(),
        )
    }

    fn start_so(size: u64, perturb_us: u32, segment_bytes: u64) -> Self {
        let member = |id| Member {
            id,
            address: address(id),
            peer: SocketAddr::new(address(id), free_port(address(id))),
            sidecar: SocketAddr::new(address(id), free_port(address(id))),
        };
        let members: Vec<Member> = (1..=size).map(member).collect();
        let mut cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            port: free_port(address(1)),
            members,
            nodes: (0..size).map(|_| None).collect(),
            perturb_us,
            vote: false,
            segment_bytes,
            checkpoint_log_mib: 0,
            dumps: Arc::default(),
            lies: (0..size).map(|_| Arc::default()).collect(),
        };
        cluster.start_all();
        cluster
    }

    /// Starts all nodes again: they take checkpoints when the log has grown by so much.
    pub(crate) fn taking_checkpoints(mut self, log_mb: u64) -> Self {
        self.checkpoint_log_mib = log_mb;
        for id in 1..=self.members.len() as u64 {
            self.stop_node(id);
        }
        self.start_all();
        self
    }

    fn start_all(&mut self) {
        for id in 1..=self.members.len() as u64 {
            self.start_node(id);
        }
    }

    /// Starts all nodes again, with another way to give answers.
    pub(crate) fn voting(mut self) -> Self {
        self.vote = true;
        for id in 1..=self.members.len() as u64 {
            self.stop_node(id);
        }
        self.start_all();
        self
    }

    fn config(&self, id: u64) -> NodeConfig {
        let mut config = config(self.dir.path(), id, &self.members);
        config.perturb_us = if id == 3 { self.perturb_us } else { 0 };
        config.vote = self.vote;
        config.log_segment_bytes = self.segment_bytes;
        config.checkpoint_log_mib = Some(self.checkpoint_log_mib);
        config
    }

    pub(crate) fn start_node(&mut self, id: u64) {
        let lies = Arc::clone(&self.lies[id as usize - 1]);
        let host = FakeHost::lying(self.port, lies).noting(id, Arc::clone(&self.dumps));
        let (node, handle) =
            Node::open(self.config(id), ServerFingerprint::default(), host).unwrap();
        let thread = std::thread::spawn(move || {
            let outcome = node.run();
            // Shown when a test fails that wonders why a node is gone.
            let _ = outcome
                .as_ref()
                .inspect_err(|error| eprintln!("node {id}: {error}"));
            outcome
        });
        self.nodes[id as usize - 1] = Some(Running { handle, thread });
    }

    /// Starts a node that ends by itself, and says why.
    pub(crate) fn fails_to_start(&mut self, id: u64) -> String {
        self.start_node(id);
        let running = self.nodes[id as usize - 1].take().unwrap();
        running.thread.join().unwrap().unwrap_err().to_string()
    }

    /// The data directory of a node.
    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.config(id).data_dir
    }

    /// Has a node take a checkpoint.
    pub(crate) fn checkpoint(&self, id: u64) -> CheckpointResult {
        let running = self.nodes[id as usize - 1].as_ref().unwrap();
        running.handle.checkpoint().expect("the node answers")
    }

    pub(crate) fn stop_node(&mut self, id: u64) {
        let running = self.nodes[id as usize - 1].take().unwrap();
        running.handle.shutdown();
        running.thread.join().unwrap().unwrap();
    }

    pub(crate) fn status(&self, id: u64) -> NodeStatus {
        let running = self.nodes[id as usize - 1].as_ref().unwrap();
        running.handle.status().expect("the node answers")
    }

    pub(crate) fn up(&self) -> impl Iterator<Item = u64> + '_ {
        let up = |(at, node): (usize, &Option<Running>)| node.as_ref().map(|_| at as u64 + 1);
        self.nodes.iter().enumerate().filter_map(up)
    }

    pub(crate) fn await_leader(&self) -> u64 {
        await_that("a leader", || {
            self.up().find(|id| {
                let status = self.status(*id);
                status.role == Role::Leader && status.waiting.is_none()
            })
        })
    }

    pub(crate) fn follower(&self) -> u64 {
        let leader = self.await_leader();
        self.up().find(|id| *id != leader).unwrap()
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn connect(&self, id: u64) -> TcpStream {
        self.connect_to(address(id))
    }

    pub(crate) fn connect_to(&self, address: IpAddr) -> TcpStream {
        let stream = await_that("an open port", || {
            TcpStream::connect((address, self.port)).ok()
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

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

    /// Waits until all replicas have applied the same slots and compares what they did.
    pub(crate) fn await_agreement(&self) {
        await_that("agreement", || {
            let all: Vec<NodeStatus> = self.up().map(|id| self.status(id)).collect();
            let first = all[0].applied;
            let done = |status: &NodeStatus| {
                status.applied.slot == status.last_entry && status.applied.slot == first.slot
            };
            all.iter().all(done).then(|| {
                for status in &all {
                    assert_eq!(status.applied, first, "replica {} differs", status.node);
                    assert_eq!(status.divergence, None);
                }
            })
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for running in self.nodes.iter_mut().filter_map(Option::take) {
            running.handle.shutdown();
            // A panic of the node's thread has been shown already.
            let _ = running.thread.join();
        }
    }
}

fn config(dir: &Path, id: u64, members: &[Member]) -> NodeConfig {
    NodeConfig {
        cluster: ClusterId(0xC0FFEE),
        node: id,
        data_dir: dir.join(id.to_string()),
        publish: None,
        heartbeat_ms: 30,
        election_timeout_ms: [150, 300],
        clocks_per_event: 1000,
        bubble_wait_us: 100,
        policy: brolga_config::Policy::Serial,
        quantum_ticks: 100,
        cpus: 1,
        pin_cpu: None,
        learner: None,
        keep_fsync: false,
        log_segment_bytes: brolga_config::defaults::log_segment_bytes(),
        checkpoints_kept: 2,
        checkpoint_transfer_mib_s: 0,
        checkpoint_compression: brolga_checkpoint::Compression::None,
        checkpoint_every_s: 0,
        checkpoint_log_mib: None,
        host_loopback: false,
        unix_sockets: Vec::new(),
        syscall_filter: true,
        clock_skew_ms: 0,
        trace: false,
        perturb_us: 0,
        vote: false,
        container: Containment::None,
        descriptors_max: 2000,
        genesis: None,
        root: None,
        fetch_genesis: false,
        command: vec!["echo-server".into()],
        env: Vec::new(),
        members: members.to_vec(),
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

pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

pub(crate) fn ping(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut got = vec![0; text.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, text);
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
fn a_sidecar_keeps_its_clients_when_its_node_dies() {
    let mut cluster = Cluster::start(3);
    cluster.await_leader();
    let (sidecar, handle) = ProxyFrontend::open(ProxyConfig {
        cluster: 0xC0FFEE,
        publish: address(9),
        nodes: cluster
            .members
            .iter()
            .map(|member| member.sidecar)
            .collect(),
    })
    .unwrap();
    let sidecar = std::thread::spawn(move || sidecar.run());
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
    sidecar.join().unwrap().unwrap();
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
