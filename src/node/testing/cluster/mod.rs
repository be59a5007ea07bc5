//! Clusters of whole nodes in one process, with echo servers behind them and real clients in front.

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

mod tests;

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
