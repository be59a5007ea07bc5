//! Both sides of the admin socket against each other, with a made-up node behind it.

use super::*;
use brolga_config::Policy;
use brolga_node::CheckpointResult;
use brolga_node::{DatagramCounts, Proposed, Role, ServerState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
struct MadeUp {
    ended: AtomicBool,
}

fn hashes(slot: u64) -> SlotHashes {
    SlotHashes {
        slot,
        output_hash: 1,
        schedule_hash: u64::MAX,
    }
}

fn status() -> NodeStatus {
    NodeStatus {
        node: 2,
        cluster: "1".repeat(32),
        pid: 10,
        server_pid: Some(11),
        server: ServerState::Exited {
            how: "status 1".into(),
        },
        role: Role::Follower,
        leader: Some(1),
        ballot: "7.1".into(),
        chosen: 100,
        last_entry: 98,
        applied: hashes(99),
        divergence: None,
        difference: None,
        quarantine: None,
        vote: false,
        policy: Policy::Serial,
        held_bytes: 0,
        connections: 3,
        outgoing: 0,
        listeners: vec!["127.0.0.2:6379".parse().unwrap()],
        datagram_ports: vec!["127.0.0.2:53".parse().unwrap()],
        datagrams: DatagramCounts::default(),
        learners: Vec::new(),
        peers: Vec::new(),
        checkpoint_trouble: None,
        taking: None,
        checkpoint: Some(2),
        restored_from: None,
        live_at: Some(1),
        log_begins: 1,
        no_vote: None,
        transfer: None,
        waiting: None,
        proposed: Proposed::default(),
        resends: 0,
        server_starts: 1,
        backstop: brolga_node::SyscallFilterStatus::default(),
    }
}

impl Answers for MadeUp {
    fn status(&self) -> Option<NodeStatus> {
        (!self.ended.load(Ordering::SeqCst)).then(status)
    }

    fn hashes_at(&self, slot: u64) -> Option<SlotHashes> {
        (slot < 100).then(|| hashes(slot))
    }

    fn signal(&self, signal: u32) -> Option<Ordered> {
        Some(match signal {
            1 => Ordered::At(7),
            _ => Ordered::NotLeader(Some(2)),
        })
    }

    fn checkpoint(&self) -> Option<CheckpointResult> {
        Some(Ok(33))
    }

    fn shutdown(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

#[test]
fn questions_reach_the_node_and_answers_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let socket = deep.join("admin.sock");
    serve(&socket, Arc::new(MadeUp::default())).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut client = Client::connect(&socket).await.unwrap();
        assert_eq!(client.status().await.unwrap(), status());
        assert_eq!(client.hashes_at(99).await.unwrap(), Some(hashes(99)));
        assert_eq!(client.hashes_at(100).await.unwrap(), None);
        assert_eq!(client.signal(1).await.unwrap(), Ok(7));
        assert_eq!(client.signal(2).await.unwrap(), Err(Some(2)));
        assert!(client.signal(65).await.is_err());
        assert_eq!(client.checkpoint().await.unwrap(), 33);
        client.shut_down().await.unwrap();
        let gone = client.status().await.unwrap_err().to_string();
        assert_eq!(gone, "the node is stopping");
        assert_eq!(ask_status(&deep.join("other.sock")).await, None);
    });
}
