//! The links between nodes, and connections to a node's address that become something else.

use super::CLUSTER;
use super::cluster::{Cluster, values};
use brolga_consensus::{Event, NodeId, open_stream};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn large_values_and_application_frames_pass() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let large: Vec<_> = (1..=8u8).map(|n| Bytes::from(vec![n; 3 << 20])).collect();
    let last = cluster.propose(leader, large.clone());
    let to = leader % 3 + 1;
    cluster.run_until("the link", |c| {
        c.get(leader).peers().any(|peer| peer == (to, true))
    });
    for n in 0..100u8 {
        assert!(cluster.get(leader).send_app(to, &vec![n; 100 << 10]));
    }
    cluster.wait_chosen(last);
    cluster.run_until("the frames", |cluster| {
        let frames = cluster
            .events
            .iter()
            .filter(|(_, event)| matches!(event, Event::App { .. }));
        frames.count() == 100
    });
    let mut expected = 0..100u8;
    for (id, event) in &cluster.events {
        if let Event::App { from, bytes } = event {
            assert_eq!((*id, *from), (to, leader));
            assert_eq!(bytes[..], vec![expected.next().unwrap(); 100 << 10]);
        }
    }
    for id in 1..=3 {
        assert!(cluster.log(id) == large);
    }
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let mut cluster = Cluster::new(2);
    cluster.elect();
    for (stranger, host) in [(1, 2), (2, 1)] {
        cluster.stop(stranger);
        cluster.events.clear();
        let mut config = cluster.config(stranger);
        config.cluster = 7;
        config.dir = cluster.dir.path().join(format!("stranger-{stranger}"));
        let replica = cluster.open(config).unwrap();
        cluster.replicas[stranger as usize - 1] = Some(replica);
        cluster.run_until("both sides to be told", |cluster| {
            [stranger, host].iter().all(|side| {
                cluster.events.iter().any(|(id, event)| {
                    let told = matches!(event, Event::Refused { message }
                        if message.contains("is of cluster 0000"));
                    id == side && told
                })
            })
        });
        let up = Event::PeerUp(stranger);
        assert!(
            !cluster
                .events
                .iter()
                .any(|(id, event)| *id == host && *event == up)
        );
        cluster.stop(stranger);
        cluster.start(stranger);
        cluster.elect();
    }
}

#[test]
fn a_stranger_is_shown_the_door() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    for greeting in [
        &b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"[..],
        &[0; 300],
        &[9; 1],
    ] {
        cluster.events.clear();
        let mut stranger = TcpStream::connect(cluster.members[0].1).unwrap();
        stranger.write_all(greeting).unwrap();
        if greeting.len() == 1 {
            drop(stranger); // Says too little to be judged, and goes.
        } else {
            cluster.run_until("the refusal", |cluster| {
                let refused = |(id, event): &(NodeId, Event)| {
                    *id == 1 && matches!(event, Event::Refused { .. })
                };
                cluster.events.iter().any(refused)
            });
            let mut rest = Vec::new();
            // Reset or end: either way it is over.
            let _ = stranger.read_to_end(&mut rest);
        }
        let last = cluster.propose(leader, values(0..10));
        cluster.wait_chosen(last);
    }
    assert!(
        !cluster
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::PeerDown(_)))
    );
}

#[test]
fn a_stream_handed_off_leaves_the_transport_and_its_links_alone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let address = cluster.members[0].1;
    let patience = Duration::from_secs(60);
    let thread = std::thread::spawn(move || {
        let foreign = open_stream(address, CLUSTER + 1, 0, patience).unwrap_err();
        // It need not be a member.
        let (mut socket, host) = open_stream(address, CLUSTER, 77, patience).unwrap();
        socket.write_all(b"question").unwrap();
        let mut answer = [0; 6];
        socket.read_exact(&mut answer).unwrap();
        (foreign.to_string(), host, answer)
    });
    let mut streams = Vec::new();
    cluster.run_until("the stream", |cluster| {
        streams.extend(cluster.get(1).take_upgraded_streams());
        !streams.is_empty()
    });
    let mut stream = streams.remove(0);
    assert_eq!(stream.from, 77);
    let mut question = [0; 8];
    stream.socket.read_exact(&mut question).unwrap();
    assert_eq!(&question, b"question");
    stream.socket.write_all(b"answer").unwrap();
    let (foreign, host, answer) = thread.join().unwrap();
    assert!(foreign.contains("is of cluster"), "{foreign}");
    assert_eq!((host, &answer), (1, b"answer"));
    // The links are as before.
    let last = cluster.propose(leader, [Bytes::from_static(b"on and on")]);
    cluster.wait_chosen(last);
}
