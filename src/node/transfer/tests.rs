//! Whole transfers between two directories, with donors that die, lie, and come back.

use super::donor::Serving;
use super::fetch::{FetchError, FetchPlan, fetch};
use super::progress::Progress;
use super::wire::{CheckpointId, Message, receive, send};
use brolga_checkpoint::{
    Checkpoint, Directory, Manifest, Position, Provenance, ServerFingerprint, manifest,
};
use brolga_consensus::{Flush, Replica, ReplicaConfig};
use mio::{Events, Poll, Token, Waker};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

const CLUSTER: u128 = 0xC0FFEE;
const LARGE: u64 = 3_000_001;
/// A whole checkpoint takes so long at this rate that whoever looks on is in time.
const SLOW: u64 = 1 << 19;

fn identity() -> ServerFingerprint {
    ServerFingerprint {
        interposer: "an interposer".into(),
        ..ServerFingerprint::default()
    }
}

fn noise(seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..LARGE).map(|_| rng.u64(..256) as u8).collect()
}

/// Takes a checkpoint with all that there can be in one.
fn take(directory: &Directory, slot: u64) -> Checkpoint {
    let staged = directory.stage(slot).unwrap();
    let server = staged.path().join("server");
    fs::create_dir_all(server.join("empty/inner")).unwrap();
    fs::write(server.join("pages"), noise(slot)).unwrap();
    fs::write(server.join("constant"), noise(0)).unwrap();
    fs::write(server.join("nothing"), b"").unwrap();
    symlink("pages", server.join("link")).unwrap();
    let holes = File::create(server.join("holes")).unwrap();
    holes.write_all_at(b"in the middle", 5 << 20).unwrap();
    holes.set_len(10 << 20).unwrap();
    let about = Provenance {
        cluster: CLUSTER,
        node: 1,
        position: Position {
            slot,
            output_hash: 1,
            schedule_hash: 2,
        },
        fingerprint: identity(),
    };
    staged.commit(about, &mut |_| ()).unwrap()
}

/// A node as far as handed-off streams are concerned.
struct Host {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start(directory: &Directory, bytes_per_second: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let wake = Arc::clone(&waker);
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let address = address.unwrap();
        let config = ReplicaConfig::new(CLUSTER, 1, vec![(1, address)], dir.path());
        let wake = Arc::new(move || wake.wake().unwrap());
        let mut replica = Replica::open(config, poll.registry(), 1, wake).unwrap();
        let mut serving = Serving::new(directory.clone(), bytes_per_second);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut events, mut out) = (Events::with_capacity(16), Vec::new());
            while !stopped.load(Ordering::Acquire) {
                let wait = replica
                    .next_wakeup()
                    .saturating_duration_since(Instant::now());
                match poll.poll(&mut events, Some(wait)) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other.unwrap(),
                }
                let now = Instant::now();
                for event in &events {
                    if replica.owns(event.token()) {
                        replica.handle(event, now, &mut out);
                    }
                }
                for stream in replica.take_upgraded_streams() {
                    serving.serve(stream);
                }
                replica.turn(now, Flush::Here, &mut out);
            }
            drop(dir);
        });
        Self {
            address,
            stop,
            waker,
            thread: Some(thread),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake().unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Sides {
    _dir: tempfile::TempDir,
    from: Directory,
    to: Directory,
}

impl Sides {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            from: Directory::open(dir.path().join("from")).unwrap(),
            to: Directory::open(dir.path().join("to")).unwrap(),
            _dir: dir,
        }
    }

    fn plan(&self, donor: SocketAddr) -> FetchPlan {
        FetchPlan {
            cluster: CLUSTER,
            node: 2,
            donor,
            directory: self.to.clone(),
            identity: identity(),
            at_least: 1,
            except: Vec::new(),
        }
    }
}

/// Fetches until something has come, and is stopped then.
fn begin(plan: &FetchPlan, enough: impl Fn(u64) -> bool + Send) {
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let fetcher = scope.spawn(|| fetch(plan, &progress));
        while !enough(progress.seen().here) {
            assert!(!fetcher.is_finished(), "it was too quick for the test");
            std::thread::yield_now();
        }
        progress.stop();
        let outcome = fetcher.join().unwrap();
        assert!(matches!(outcome, Err(FetchError::Stopped)), "{outcome:?}");
    });
}

#[test]
fn a_checkpoint_arrives_as_it_was_with_its_holes() {
    let sides = Sides::new();
    let host = Host::start(&sides.from, 0);
    let none = fetch(&sides.plan(host.address), &Progress::default());
    assert!(matches!(none, Err(FetchError::Nothing(_))), "{none:?}");
    take(&sides.from, 5);
    let newest = take(&sides.from, 9);
    let progress = Progress::default();
    let came = fetch(&sides.plan(host.address), &progress).unwrap();
    assert_eq!(came.manifest, newest.manifest);
    came.verify(&mut |_| ()).unwrap();
    assert!(came.path.join("server/empty/inner").is_dir());
    let holes = fs::metadata(came.path.join("server/holes")).unwrap();
    assert_eq!(holes.len(), 10 << 20);
    assert!(holes.blocks() * 512 < 1 << 20, "{} blocks", holes.blocks());
    let seen = progress.seen();
    assert_eq!(
        (seen.slot, seen.here, seen.all),
        (9, seen.all, newest.manifest.bytes())
    );
    // Once more it is here already.
    let again = Progress::default();
    fetch(&sides.plan(host.address), &again).unwrap();
    assert_eq!(again.seen().here, 0);
    // Too old, too well known, of another program.
    let mut plan = sides.plan(host.address);
    plan.at_least = 10;
    let none = fetch(&plan, &Progress::default());
    assert!(matches!(none, Err(FetchError::Nothing(_))), "{none:?}");
    let mut plan = sides.plan(host.address);
    plan.except = vec![newest.manifest.hash().unwrap()];
    assert_eq!(fetch(&plan, &Progress::default()).unwrap().slot(), 5);
    plan.identity.interposer = "another".into();
    plan.except.clear();
    let other = fetch(&plan, &Progress::default());
    assert!(
        matches!(other, Err(FetchError::OfNoUse { .. })),
        "{other:?}"
    );
}

#[test]
fn what_has_come_is_kept_and_another_donor_goes_on_with_it() {
    let sides = Sides::new();
    let first = Host::start(&sides.from, SLOW);
    take(&sides.from, 9);
    begin(&sides.plan(first.address), |here| here > 300_000);
    drop(first);
    // Another node that has the same one, and a newer one of its own.
    take(&sides.from, 10);
    let second = Host::start(&sides.from, 0);
    let progress = Progress::default();
    let came = fetch(&sides.plan(second.address), &progress).unwrap();
    assert_eq!(came.slot(), 9, "the one that was begun");
    assert!(progress.found_bytes() > 300_000, "{progress:?}");
    came.verify(&mut |_| ()).unwrap();
}

#[test]
fn a_donor_without_the_one_that_was_begun_gives_its_own_and_what_is_alike_is_not_fetched() {
    let sides = Sides::new();
    let elsewhere = Sides::new();
    take(&sides.from, 9);
    let first = Host::start(&sides.from, SLOW);
    begin(&sides.plan(first.address), |here| here > 300_000);
    drop(first);
    take(&elsewhere.from, 7);
    let second = Host::start(&elsewhere.from, 0);
    let came = fetch(&sides.plan(second.address), &Progress::default()).unwrap();
    assert_eq!(came.slot(), 7);
    assert!(
        sides.to.partials().unwrap().is_empty(),
        "the other one is gone"
    );
    take(&elsewhere.from, 11);
    let progress = Progress::default();
    let came = fetch(&sides.plan(second.address), &progress).unwrap();
    assert_eq!(came.slot(), 11);
    let alike = LARGE + (10 << 20);
    assert_eq!(progress.found_bytes(), alike, "two files are as before");
    let shared = fs::metadata(came.path.join("server/constant")).unwrap();
    assert_eq!(shared.nlink(), 2);
    came.verify(&mut |_| ()).unwrap();
}

#[test]
fn what_rotted_in_part_is_fetched_again_and_what_is_rotten_there_is_named() {
    let sides = Sides::new();
    let taken = take(&sides.from, 9);
    let host = Host::start(&sides.from, SLOW);
    begin(&sides.plan(host.address), |here| here > LARGE);
    drop(host);
    let partial = sides.to.partial(taken.manifest.clone()).unwrap();
    for name in ["server/constant", "server/pages", "server/holes"] {
        let path = partial.path().join(name);
        if fs::metadata(&path).is_ok_and(|file| file.len() > 100) {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(b"rotten", 50).unwrap();
        }
    }
    drop(partial);
    let host = Host::start(&sides.from, 0);
    let came = fetch(&sides.plan(host.address), &Progress::default()).unwrap();
    came.verify(&mut |_| ()).unwrap();
    // The donor's next one is damaged on its disk.
    let rotten = take(&sides.from, 12);
    let file = File::options()
        .write(true)
        .open(rotten.path.join("server/pages"));
    file.unwrap().write_all_at(b"rotten", 70).unwrap();
    let outcome = fetch(&sides.plan(host.address), &Progress::default());
    let Err(FetchError::OfNoUse { manifest, what, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(what, "server/pages is damaged there");
    // It is not asked for again, nor continued, and the older one is here.
    let mut plan = sides.plan(host.address);
    plan.except = vec![manifest];
    assert_eq!(fetch(&plan, &Progress::default()).unwrap().slot(), 9);
}

#[test]
fn a_checkpoint_that_is_fetched_is_not_pruned_meanwhile() {
    let sides = Sides::new();
    take(&sides.from, 9);
    let host = Host::start(&sides.from, SLOW);
    let plan = sides.plan(host.address);
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let fetcher = scope.spawn(|| fetch(&plan, &progress));
        while progress.seen().here == 0 {
            assert!(!fetcher.is_finished());
            std::thread::yield_now();
        }
        take(&sides.from, 10);
        assert!(sides.from.prune(1).unwrap().is_empty());
        progress.stop();
        drop(fetcher.join().unwrap());
    });
    // Its thread sees the end of the connection before it ends.
    drop(host);
    assert_eq!(sides.from.prune(1).unwrap().len(), 1);
}

/// A donor that keeps to the protocol and offers a manifest of somebody's making, with content that
/// is as it says.
fn liar(offered: Vec<u8>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        greet(&mut socket);
        let (mut input, mut output) = (Vec::new(), Vec::new());
        while let Ok(kind) = receive(&mut socket, &mut input) {
            let answer = match Message::decode(kind, &input).unwrap() {
                Message::Ask { .. } => Message::Offer {
                    what: CheckpointId {
                        slot: 9,
                        manifest: xxh3_128(&offered),
                    },
                    manifest_bytes: offered.len() as u64,
                },
                Message::Read(piece) => Message::Chunk {
                    file: piece.file,
                    offset: piece.offset,
                    bytes: match piece.file {
                        super::wire::MANIFEST => {
                            &offered[piece.offset as usize..][..piece.bytes as usize]
                        }
                        _ => &[7; 1 << 18][..piece.bytes as usize],
                    },
                },
                other => panic!("{other:?}"),
            };
            if send(&mut socket, &answer, &mut output).is_err() {
                return;
            }
        }
    });
    (address, thread)
}

/// Sends back the client's own hello, as a link's.
fn greet(socket: &mut TcpStream) {
    const HELLO: u8 = 1;
    let mut hello = [0; 8 + 1 + 40];
    io::Read::read_exact(socket, &mut hello).unwrap();
    hello[8] = HELLO;
    let crc = crc32c::crc32c(&hello[8..]);
    hello[4..8].copy_from_slice(&crc.to_le_bytes());
    socket.write_all(&hello).unwrap();
}

#[test]
fn a_donor_that_lies_makes_nobody_write_elsewhere() {
    for path in [
        "../outside",
        "/tmp/outside",
        "server/../../outside",
        "link/outside",
    ] {
        let sides = Sides::new();
        let mut lie = take(&sides.from, 9).manifest;
        let part = |path: &str, kind| brolga_checkpoint::Part {
            path: path.into(),
            bytes: 100,
            kind,
        };
        let target = sides.to.path().parent().unwrap().into();
        lie.parts = vec![
            part("link", brolga_checkpoint::PartKind::Link { target }),
            part(path, brolga_checkpoint::PartKind::File { hash: 1 }),
        ];
        let (address, thread) = liar(lie.encode().unwrap());
        let outcome = fetch(&sides.plan(address), &Progress::default());
        assert!(outcome.is_err(), "{path}: {outcome:?}");
        thread.join().unwrap();
        let outside = sides.to.path().parent().unwrap().join("outside");
        assert!(!outside.exists() && !Path::new("/tmp/outside").exists());
        assert!(sides.to.list().unwrap().whole.is_empty());
    }
}

#[test]
fn a_donor_with_other_content_than_its_manifest_says_gives_no_checkpoint() {
    let sides = Sides::new();
    let honest = take(&sides.from, 9);
    let manifest = fs::read(honest.path.join(manifest::FILE_NAME)).unwrap();
    Manifest::decode(&manifest, Path::new("m")).unwrap();
    let (address, thread) = liar(manifest);
    let outcome = fetch(&sides.plan(address), &Progress::default());
    assert!(
        matches!(outcome, Err(FetchError::OfNoUse { .. })),
        "{outcome:?}"
    );
    thread.join().unwrap();
    assert!(sides.to.list().unwrap().whole.is_empty());
}
