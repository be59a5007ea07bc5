//! Both sides of the admin socket against each other, with a thread that plays the reactor.

use super::*;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

fn status() -> NodeStatus {
    NodeStatus {
        node: 2,
        pid: 10,
        server_pid: Some(11),
        role: Role::Follower,
        leader: Some(1),
        ballot: 7,
        chosen: 100,
        applied: 99,
        connections: 3,
        listening: vec!["127.0.0.2:6379".parse().unwrap()],
        state: NodeState::Running,
    }
}

fn play_reactor(queries_rx: Receiver<Query>) {
    for query in queries_rx {
        match query {
            Query::Status(answer_tx) => answer_tx.send(status()).unwrap(),
            Query::HashesAt(slot, answer_tx) => {
                let hashes = Hashes {
                    slot,
                    output: 1,
                    schedule: u64::MAX,
                };
                answer_tx.send((slot < 100).then_some(hashes)).unwrap();
            }
            Query::Shutdown => return,
        }
    }
}

#[test]
fn questions_reach_the_reactor_and_answers_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let socket = deep.join("admin.sock");
    let (queries_tx, queries_rx) = channel();
    let reactor = thread::spawn(move || play_reactor(queries_rx));
    serve(&socket, Asker::new(queries_tx, || {})).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut client = Client::connect(&socket).await.unwrap();
        assert_eq!(client.status().await.unwrap(), status());
        assert_eq!(
            client.hashes_at(99).await.unwrap().unwrap().schedule,
            u64::MAX
        );
        assert_eq!(client.hashes_at(100).await.unwrap(), None);
        client.shut_down().await.unwrap();
    });
    reactor.join().unwrap();
    runtime.block_on(async {
        let mut client = Client::connect(&socket).await.unwrap();
        let gone = client.status().await.unwrap_err().to_string();
        assert_eq!(gone, "the node is stopping");
        assert_eq!(ask_status(&deep.join("other.sock")).await, None);
    });
}
