//! Entry points for fuzzing: each takes bytes as another machine may send them, decodes them, and
//! checks that what can be decoded is encoded to the same message again.
//!
//! Used by the coverage-guided targets in `fuzz/` and by the tests of this crate; not part of the
//! interface.

use crate::divergence::messages::DivergenceMessage;
use crate::join::wire as join;
use crate::peers::frames::PeerFrame;
use crate::proxy::server::are_of;
use crate::proxy::wire as proxy;
use crate::transfer::wire as transfer;

/// Divergence messages.
///
/// # Panics
/// A decoder has a bug.
pub fn divergence_messages(bytes: &[u8]) {
    if let Some(message) = DivergenceMessage::decode(bytes) {
        assert_eq!(message.encode(), bytes, "{message:?}");
    }
}

/// Frames between nodes beside consensus.
///
/// # Panics
/// A decoder has a bug.
pub fn peer_frames(bytes: &[u8]) {
    if let Some(frame) = PeerFrame::decode(bytes) {
        let mut encoded = Vec::new();
        frame.encode(&mut encoded);
        assert_eq!(PeerFrame::decode(&encoded), Some(frame));
    }
}

/// Frames of a connection on which a checkpoint is fetched: `bytes` as a stream, and as one payload
/// behind the kind.
///
/// # Panics
/// A decoder has a bug.
pub fn transfer_wire(bytes: &[u8]) {
    let (mut stream, mut payload) = (bytes, Vec::new());
    while let Ok(kind) = transfer::receive(&mut stream, &mut payload) {
        transfer_message(kind, &payload);
    }
    if let Some((kind, payload)) = bytes.split_first() {
        transfer_message(*kind, payload);
    }
}

fn transfer_message(kind: u8, payload: &[u8]) {
    let Some(message) = transfer::Message::decode(kind, payload) else {
        return;
    };
    let (mut frame, mut again) = (Vec::new(), Vec::new());
    message.encode(&mut frame);
    let received = transfer::receive(&mut &frame[..], &mut again);
    let received = received.expect("a frame of ours can be read");
    assert_eq!(transfer::Message::decode(received, &again), Some(message));
}

/// Frames of a joiner and a member: `bytes` as a stream, as a request, and as the cluster's
/// configuration.
///
/// # Panics
/// A decoder has a bug.
pub fn join_wire(bytes: &[u8]) {
    let mut stream = bytes;
    while let Ok(payload) = join::read_frame(&mut stream) {
        join_payload(&payload);
    }
    join_payload(bytes);
}

fn join_payload(payload: &[u8]) {
    if let Some(request) = join::Request::decode(payload) {
        assert_eq!(request.encode(), payload);
    }
    if let Ok(info) = serde_json::from_slice::<join::ClusterInfo>(payload) {
        // Most of them are no configuration.
        drop(info.config());
    }
}

/// Frames of stand-alone frontends: `bytes` as a stream, and as the payload of each kind.
///
/// # Panics
/// A decoder has a bug.
pub fn proxy_wire(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((_, payload))) = proxy::parse(rest) {
        proxy_payload(&rest[payload.clone()]);
        rest = &rest[payload.end..];
    }
    proxy_payload(bytes);
}

fn proxy_payload(payload: &[u8]) {
    if let Some(hello) = proxy::Hello::decode(payload) {
        assert_eq!(proxy::Hello::decode(&hello.encode()), Some(hello));
    }
    if let Some((count, events)) = proxy::split_events(payload) {
        are_of(count, events, 7);
    }
    let mut encoded = Vec::new();
    for (counter, progress) in proxy::each_progress(payload) {
        proxy::put_progress(&mut encoded, counter, progress);
    }
    let again = proxy::each_progress(&encoded);
    assert!(again.eq(proxy::each_progress(payload)));
}
