//! Epoll instances with the kernel's semantics, for virtual sockets.
//!
//! An *item* ties a socket to an instance. An event on the socket puts its items on the ready lists
//! of their instances; collecting walks a ready list once: an item that is no longer ready leaves
//! it, a level-triggered one that still is goes to its end, an edge-triggered one leaves until the
//! next event. So the cost is in what is ready, never in what is watched, and the order is the
//! order of events.
//!
//! An instance that others watch has a *stand-in*, a socket that only has items and is ready when
//! the instance has something to collect. What real descriptors bring, the kernel tells the others.

use crate::{Net, SocketIx, State, WaitOn, World, ready};

/// Instances at a time.
const EPOLLS_MAX: usize = 4096;
/// Items at a time.
const ITEMS_MAX: usize = 4 * crate::SOCKETS_MAX;

const EXCLUSIVE: u32 = 1 << 28;
const WAKEUP: u32 = 1 << 29;
const ONESHOT: u32 = 1 << 30;
const EDGE: u32 = 1 << 31;
const ALWAYS: u32 = ready::ERR | ready::HUP;
/// Events that may be asked for together with [`EXCLUSIVE`].
const WITH_EXCLUSIVE: u32 = ready::IN | ready::OUT | ALWAYS | EXCLUSIVE | WAKEUP | EDGE;

/// Index of an instance, from 1.
pub type EpollIx = u32;
type ItemIx = u32;

/// Why the interest list was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpollError {
    /// The item exists already.
    Exists,
    /// The item does not exist.
    Missing,
    /// Too many items.
    Full,
    /// `EPOLLEXCLUSIVE` where it is not allowed.
    Exclusive,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Item {
    epoll: EpollIx,
    socket: SocketIx,
    fd: i32,
    events: u32,
    data: u64,
    ready: bool,
    /// A one-shot item that has fired.
    disarmed: bool,
    next_ready: ItemIx,
    prev_ready: ItemIx,
    /// Next item of the same socket.
    next_of_socket: ItemIx,
    next_free: ItemIx,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Epoll {
    references: u32,
    ready_head: ItemIx,
    ready_tail: ItemIx,
    ready_len: u32,
    /// Real descriptors in the kernel's instance of the same descriptor.
    real_items: u32,
    /// The tree's count of changes to real objects when the kernel last had nothing.
    real_quiet_at: u64,
    /// The socket that other instances watch in its stead; 0 for none so far.
    stand_in: SocketIx,
}

/// All instances of a process tree.
#[repr(C)]
pub(crate) struct Epolls {
    used: u32,
    items_used: u32,
    items_free: ItemIx,
    epolls: [Epoll; EPOLLS_MAX],
    items: [Item; ITEMS_MAX],
}

impl Epolls {
    fn epoll(&mut self, ix: EpollIx) -> &mut Epoll {
        &mut self.epolls[ix as usize - 1]
    }

    fn item(&mut self, ix: ItemIx) -> &mut Item {
        &mut self.items[ix as usize - 1]
    }

    fn push_ready(&mut self, ix: ItemIx) {
        let epoll_ix = self.item(ix).epoll;
        let tail = self.epoll(epoll_ix).ready_tail;
        let item = self.item(ix);
        item.ready = true;
        item.next_ready = 0;
        item.prev_ready = tail;
        match tail {
            0 => self.epoll(epoll_ix).ready_head = ix,
            tail => self.item(tail).next_ready = ix,
        }
        let epoll = self.epoll(epoll_ix);
        epoll.ready_tail = ix;
        epoll.ready_len += 1;
    }

    fn remove_ready(&mut self, ix: ItemIx) {
        let item = self.item(ix);
        if !item.ready {
            return;
        }
        item.ready = false;
        let (epoll_ix, next, prev) = (item.epoll, item.next_ready, item.prev_ready);
        match prev {
            0 => self.epoll(epoll_ix).ready_head = next,
            prev => self.item(prev).next_ready = next,
        }
        match next {
            0 => self.epoll(epoll_ix).ready_tail = prev,
            next => self.item(next).prev_ready = prev,
        }
        self.epoll(epoll_ix).ready_len -= 1;
    }

    fn take_item(&mut self) -> Option<ItemIx> {
        if self.items_free != 0 {
            let ix = self.items_free;
            self.items_free = self.item(ix).next_free;
            return Some(ix);
        }
        if self.items_used as usize == ITEMS_MAX {
            return None;
        }
        self.items_used += 1;
        Some(self.items_used)
    }

    fn free_item(&mut self, ix: ItemIx) {
        self.remove_ready(ix);
        let next_free = self.items_free;
        let item = self.item(ix);
        item.epoll = 0;
        item.next_free = next_free;
        self.items_free = ix;
    }
}

impl Net {
    /// A new instance, to be named by a descriptor at once. `None`: there are too many.
    pub fn make_epoll(&mut self) -> Option<EpollIx> {
        let used = self.epolls.used as usize;
        let free = self.epolls.epolls[..used]
            .iter()
            .position(|epoll| epoll.references == 0);
        let at = match free {
            Some(at) => at,
            None if used < EPOLLS_MAX => {
                self.epolls.used += 1;
                used
            }
            None => return None,
        };
        self.epolls.epolls[at] = Epoll {
            references: 0,
            ready_head: 0,
            ready_tail: 0,
            ready_len: 0,
            real_items: 0,
            real_quiet_at: u64::MAX,
            stand_in: 0,
        };
        Some(at as EpollIx + 1)
    }

    /// Counts one more descriptor that names the instance.
    pub fn retain_epoll(&mut self, ix: EpollIx) {
        self.epolls.epoll(ix).references += 1;
    }

    /// The socket that stands for the instance in others. `None`: there are too many sockets.
    pub fn stand_in(&mut self, ix: EpollIx) -> Option<SocketIx> {
        let known = self.epolls.epoll(ix).stand_in;
        if known != 0 {
            return Some(known);
        }
        let made = self.make_socket(false)?;
        let socket = self.socket_mut(made);
        socket.state = State::StandIn;
        socket.instance = ix;
        self.epolls.epoll(ix).stand_in = made;
        Some(made)
    }

    /// Counts one descriptor fewer that names the instance; the last one drops its items.
    pub fn release_epoll(&mut self, ix: EpollIx) {
        let epoll = self.epolls.epoll(ix);
        assert!(
            epoll.references > 0,
            "an instance is released as often as it was retained"
        );
        epoll.references -= 1;
        if epoll.references > 0 {
            return;
        }
        let stand_in = core::mem::take(&mut epoll.stand_in);
        for at in 1..=self.epolls.items_used {
            if self.epolls.item(at).epoll == ix {
                self.unlink_item(at);
                self.epolls.free_item(at);
            }
        }
        if stand_in != 0 {
            self.drop_items(stand_in);
            self.free_socket(stand_in);
        }
    }

    fn unlink_item(&mut self, item: ItemIx) {
        let (socket, next) = {
            let item = self.epolls.item(item);
            (item.socket, item.next_of_socket)
        };
        if self.socket(socket).items == item {
            self.socket_mut(socket).items = next;
            return;
        }
        let mut at = self.socket(socket).items;
        while self.epolls.item(at).next_of_socket != item {
            at = self.epolls.item(at).next_of_socket;
        }
        self.epolls.item(at).next_of_socket = next;
    }

    fn find_item(&mut self, epoll: EpollIx, socket: SocketIx, fd: i32) -> Option<ItemIx> {
        let mut at = self.socket(socket).items;
        while at != 0 {
            let item = self.epolls.item(at);
            if item.epoll == epoll && item.fd == fd {
                return Some(at);
            }
            at = item.next_of_socket;
        }
        None
    }

    /// `EPOLL_CTL_ADD`.
    ///
    /// # Errors
    /// [`EpollError::Exists`], [`EpollError::Full`], [`EpollError::Exclusive`].
    pub fn epoll_add(
        &mut self,
        epoll: EpollIx,
        socket: SocketIx,
        fd: i32,
        events: u32,
        data: u64,
        world: &mut impl World,
    ) -> Result<(), EpollError> {
        if self.find_item(epoll, socket, fd).is_some() {
            return Err(EpollError::Exists);
        }
        if events & EXCLUSIVE != 0 && events & !WITH_EXCLUSIVE != 0 {
            return Err(EpollError::Exclusive);
        }
        let ix = self.epolls.take_item().ok_or(EpollError::Full)?;
        let next_of_socket = self.socket(socket).items;
        *self.epolls.item(ix) = Item {
            epoll,
            socket,
            fd,
            events,
            data,
            ready: false,
            disarmed: false,
            next_ready: 0,
            prev_ready: 0,
            next_of_socket,
            next_free: 0,
        };
        self.socket_mut(socket).items = ix;
        self.check_item(ix, world);
        Ok(())
    }

    /// `EPOLL_CTL_MOD`.
    ///
    /// # Errors
    /// [`EpollError::Missing`], [`EpollError::Exclusive`].
    pub fn epoll_modify(
        &mut self,
        epoll: EpollIx,
        socket: SocketIx,
        fd: i32,
        events: u32,
        data: u64,
        world: &mut impl World,
    ) -> Result<(), EpollError> {
        let ix = self
            .find_item(epoll, socket, fd)
            .ok_or(EpollError::Missing)?;
        let item = self.epolls.item(ix);
        if (item.events | events) & EXCLUSIVE != 0 {
            return Err(EpollError::Exclusive);
        }
        item.events = events;
        item.data = data;
        item.disarmed = false;
        self.check_item(ix, world);
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    ///
    /// # Errors
    /// [`EpollError::Missing`].
    pub fn epoll_delete(
        &mut self,
        epoll: EpollIx,
        socket: SocketIx,
        fd: i32,
    ) -> Result<(), EpollError> {
        let ix = self
            .find_item(epoll, socket, fd)
            .ok_or(EpollError::Missing)?;
        self.unlink_item(ix);
        self.epolls.free_item(ix);
        Ok(())
    }

    /// Puts an item on the ready list if its socket is ready for what it asks.
    fn check_item(&mut self, ix: ItemIx, world: &mut impl World) {
        let item = *self.epolls.item(ix);
        if !item.ready && self.readiness(item.socket) & (item.events | ALWAYS) != 0 {
            self.epolls.push_ready(ix);
            world.wake(WaitOn::Epoll(item.epoll), 1);
            self.notify_watchers(item.epoll, world);
        }
    }

    /// An event on a socket: its items become ready; of the exclusive ones no more than it takes to
    /// wake somebody.
    pub(crate) fn notify_items(&mut self, socket: SocketIx, mask: u32, world: &mut impl World) {
        let mut served = false;
        let mut at = self.socket(socket).items;
        while at != 0 {
            let item = *self.epolls.item(at);
            let exclusive = item.events & EXCLUSIVE != 0;
            let asked = !item.disarmed && (item.events | ALWAYS) & mask != 0;
            if asked && !(exclusive && served) {
                if !item.ready {
                    self.epolls.push_ready(at);
                    let woken = world.wake(WaitOn::Epoll(item.epoll), 1);
                    served |= exclusive && woken > 0;
                }
                self.notify_watchers(item.epoll, world);
            }
            at = item.next_of_socket;
        }
    }

    /// An instance has something to collect: tells those that watch it. It ends, since the kernel
    /// allows no loops.
    fn notify_watchers(&mut self, epoll: EpollIx, world: &mut impl World) {
        let stand_in = self.epolls.epoll(epoll).stand_in;
        if stand_in != 0 {
            self.notify_items(stand_in, ready::IN, world);
        }
    }

    /// A socket is gone: so are its items.
    pub(crate) fn drop_items(&mut self, socket: SocketIx) {
        let mut at = self.socket(socket).items;
        while at != 0 {
            let next = self.epolls.item(at).next_of_socket;
            self.epolls.free_item(at);
            at = next;
        }
        self.socket_mut(socket).items = 0;
    }

    /// Hands up to `max` ready items to `put` as (events, data); says how many.
    pub fn epoll_collect(
        &mut self,
        epoll: EpollIx,
        max: usize,
        mut put: impl FnMut(u32, u64),
    ) -> usize {
        let mut looked = self.epolls.epoll(epoll).ready_len;
        let mut count = 0;
        while looked > 0 && count < max {
            looked -= 1;
            let ix = self.epolls.epoll(epoll).ready_head;
            let item = *self.epolls.item(ix);
            self.epolls.remove_ready(ix);
            let events = self.readiness(item.socket) & (item.events | ALWAYS);
            if events == 0 || item.disarmed {
                continue;
            }
            put(events, item.data);
            count += 1;
            if item.events & ONESHOT != 0 {
                self.epolls.item(ix).disarmed = true;
            } else if item.events & EDGE == 0 {
                self.epolls.push_ready(ix);
            }
        }
        count
    }

    /// True when something can be collected.
    #[must_use]
    pub fn epoll_ready(&self, epoll: EpollIx) -> bool {
        let mut at = self.epolls.epolls[epoll as usize - 1].ready_head;
        while at != 0 {
            let item = &self.epolls.items[at as usize - 1];
            let asked = item.events | ALWAYS;
            if !item.disarmed && self.readiness(item.socket) & asked != 0 {
                return true;
            }
            at = item.next_ready;
        }
        false
    }

    /// Counts real descriptors in the kernel's instance.
    pub fn epoll_real_items(&mut self, epoll: EpollIx, change: i32) {
        let epoll = self.epolls.epoll(epoll);
        epoll.real_items = epoll.real_items.saturating_add_signed(change);
        epoll.real_quiet_at = u64::MAX;
    }

    /// True when the kernel's instance has to be asked: it has items, and something real has
    /// changed since it last had nothing to say.
    #[must_use]
    pub fn epoll_must_ask(&self, epoll: EpollIx, real_changes: u64) -> bool {
        let epoll = &self.epolls.epolls[epoll as usize - 1];
        epoll.real_items > 0 && epoll.real_quiet_at != real_changes
    }

    /// The kernel's instance had nothing to say at this count of changes.
    pub fn epoll_quiet(&mut self, epoll: EpollIx, real_changes: u64) {
        self.epolls.epoll(epoll).real_quiet_at = real_changes;
    }
}

impl Net {
    /// Something real has changed: wakes whoever waits for an instance with real descriptors in it,
    /// and every `poll` and `select`.
    pub fn wake_real(&mut self, world: &mut impl World) {
        for ix in 1..=self.epolls.used {
            if self.epolls.epoll(ix).real_items > 0 {
                world.wake(WaitOn::Epoll(ix), 1);
            }
        }
        world.wake(WaitOn::AnySocket, usize::MAX);
    }
}
