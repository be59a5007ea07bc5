//! Through which frontend a peer of a datagram socket was last heard: the way back for answers.
//!
//! Bounded: whoever was not heard of for longest is forgotten. One peer may be known at several
//! local addresses, since every frontend has its own.

use crate::peer_hash::{MULTIPLIER, peer_hash};
use core::net::{IpAddr, SocketAddr};

/// More than a full receive queue holds datagrams, so that everybody in it can be answered.
const ROUTES_MAX: usize = 64 * 1024;
const BUCKETS: usize = 64 * 1024;

/// From 1; 0 is none.
type RouteIx = u32;

#[derive(Clone, Copy)]
#[repr(C)]
struct Route {
    peer: SocketAddr,
    local: SocketAddr,
    frontend: u64,
    /// Next of the same bucket, or of the free ones.
    next: RouteIx,
    newer: RouteIx,
    older: RouteIx,
}

/// All routes of a process tree.
#[repr(C)]
pub(crate) struct Routes {
    used: u32,
    free: RouteIx,
    newest: RouteIx,
    oldest: RouteIx,
    /// In each the latest comes first.
    buckets: [RouteIx; BUCKETS],
    routes: [Route; ROUTES_MAX],
}

fn bucket(peer: SocketAddr, port: u16) -> usize {
    (peer_hash(peer).wrapping_add(u64::from(port).wrapping_mul(MULTIPLIER)) >> 40) as usize
        % BUCKETS
}

impl Routes {
    fn route(&mut self, ix: RouteIx) -> &mut Route {
        &mut self.routes[ix as usize - 1]
    }

    /// The peer was heard at `local`, through `frontend`.
    pub(crate) fn learn(&mut self, peer: SocketAddr, local: SocketAddr, frontend: u64) {
        let known = self.search(peer, |route| route.local == local, local.port());
        let ix = match known {
            Some(ix) => {
                self.unlink(ix);
                ix
            }
            None => self.take(),
        };
        let at = bucket(peer, local.port());
        *self.route(ix) = Route {
            peer,
            local,
            frontend,
            next: self.buckets[at],
            newer: 0,
            older: self.newest,
        };
        self.buckets[at] = ix;
        match self.newest {
            0 => self.oldest = ix,
            newest => self.route(newest).newer = ix,
        }
        self.newest = ix;
    }

    /// The local address and the frontend to answer `peer` from: where it was last heard at `port`,
    /// at `source` if that is known.
    pub(crate) fn find(
        &mut self,
        peer: SocketAddr,
        port: u16,
        source: Option<IpAddr>,
    ) -> Option<(SocketAddr, u64)> {
        let at_source = source.and_then(|source| {
            let here = |route: &Route| route.local == SocketAddr::new(source, port);
            self.search(peer, here, port)
        });
        let ix = at_source.or_else(|| self.search(peer, |_| true, port))?;
        let route = self.route(ix);
        Some((route.local, route.frontend))
    }

    /// The peer is somebody else now.
    pub(crate) fn forget(&mut self, peer: SocketAddr, port: u16) {
        while let Some(ix) = self.search(peer, |_| true, port) {
            self.unlink(ix);
            self.give(ix);
        }
    }

    fn search(
        &self,
        peer: SocketAddr,
        wanted: impl Fn(&Route) -> bool,
        port: u16,
    ) -> Option<RouteIx> {
        let mut ix = self.buckets[bucket(peer, port)];
        while ix != 0 {
            let route = &self.routes[ix as usize - 1];
            if route.peer == peer && route.local.port() == port && wanted(route) {
                return Some(ix);
            }
            ix = route.next;
        }
        None
    }

    fn take(&mut self) -> RouteIx {
        if self.free != 0 {
            let ix = self.free;
            self.free = self.route(ix).next;
            return ix;
        }
        if (self.used as usize) < ROUTES_MAX {
            self.used += 1;
            return self.used;
        }
        let ix = self.oldest;
        self.unlink(ix);
        ix
    }

    fn give(&mut self, ix: RouteIx) {
        self.route(ix).next = self.free;
        self.free = ix;
    }

    /// Takes a route out of its bucket and out of the order of age.
    fn unlink(&mut self, ix: RouteIx) {
        let gone = *self.route(ix);
        let at = bucket(gone.peer, gone.local.port());
        if self.buckets[at] == ix {
            self.buckets[at] = gone.next;
        } else {
            let mut before = self.buckets[at];
            while self.route(before).next != ix {
                before = self.route(before).next;
            }
            self.route(before).next = gone.next;
        }
        match gone.newer {
            0 => self.newest = gone.older,
            newer => self.route(newer).older = gone.older,
        }
        match gone.older {
            0 => self.oldest = gone.newer,
            older => self.route(older).newer = gone.newer,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use std::boxed::Box;

    fn routes() -> Box<Routes> {
        let layout = std::alloc::Layout::new::<Routes>();
        // SAFETY: all-zero bytes are Routes without a route: integers, and addresses that `learn`
        // writes before they are read; Box owns memory of the right layout.
        unsafe { Box::from_raw(std::alloc::alloc_zeroed(layout).cast()) }
    }

    fn peer(number: u32) -> SocketAddr {
        let [_, a, b, c] = number.to_be_bytes();
        SocketAddr::from(([10, a, b, c], 5000))
    }

    #[test]
    fn the_latest_route_answers_unless_a_source_is_named() {
        let mut routes = routes();
        let (one, two) = (
            "127.0.0.1:53".parse().unwrap(),
            "127.0.0.2:53".parse().unwrap(),
        );
        routes.learn(peer(1), one, 11);
        routes.learn(peer(1), two, 22);
        assert_eq!(routes.find(peer(1), 53, None), Some((two, 22)));
        let source = "127.0.0.1".parse().unwrap();
        assert_eq!(routes.find(peer(1), 53, Some(source)), Some((one, 11)));
        let elsewhere = "0.0.0.9".parse().unwrap();
        assert_eq!(routes.find(peer(1), 53, Some(elsewhere)), Some((two, 22)));
        routes.learn(peer(1), one, 33);
        assert_eq!(routes.find(peer(1), 53, None), Some((one, 33)));
        assert_eq!(routes.find(peer(1), 54, None), None);
        assert_eq!(routes.find(peer(2), 53, None), None);
        routes.forget(peer(1), 53);
        assert_eq!(routes.find(peer(1), 53, None), None);
    }

    #[test]
    fn whoever_was_not_heard_of_for_longest_is_forgotten() {
        let mut routes = routes();
        let local = "10.0.0.1:53".parse().unwrap();
        let most = ROUTES_MAX as u32;
        for number in 0..most {
            routes.learn(peer(number), local, u64::from(number) + 1);
        }
        routes.learn(peer(0), local, 7);
        routes.forget(peer(5), 53);
        for number in most..most + 3 {
            routes.learn(peer(number), local, 1);
        }
        let known = |routes: &mut Routes, number| routes.find(peer(number), 53, None).is_some();
        assert!(known(&mut routes, 0), "it was heard again");
        assert!(!known(&mut routes, 1) && !known(&mut routes, 2));
        assert!(known(&mut routes, 3) && known(&mut routes, 4));
        assert!(!known(&mut routes, 5));
        assert!(known(&mut routes, most + 2));
    }
}
