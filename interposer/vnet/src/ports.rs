//! Ports for sockets that do not name one.

/// As Linux has it by default.
const FIRST: u16 = 32_768;
const LAST: u16 = 60_999;
const COUNT: usize = (LAST - FIRST) as usize + 1;

/// Which of them are held, and by how many sockets: an accepted one shares its listener's.
#[repr(C)]
pub(crate) struct Ports {
    /// Distance of the port to look at next from [`FIRST`].
    next: u16,
    held: [bool; COUNT],
    /// Which of them were ever given out. Who asks for one of these by number has its number from
    /// here.
    given: [bool; COUNT],
}

impl Ports {
    /// A port that nobody holds and that `fits`. `None`: there is none left.
    pub(crate) fn take(&mut self, fits: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in 0..COUNT {
            let at = self.next;
            self.next = (at + 1) % COUNT as u16;
            let held = &mut self.held[usize::from(at)];
            if !*held && fits(FIRST + at) {
                *held = true;
                self.given[usize::from(at)] = true;
                return Some(FIRST + at);
            }
        }
        None
    }

    /// The number comes from here: nobody outside has known it beforehand.
    pub(crate) fn is_given(&self, port: u16) -> bool {
        let at = port.checked_sub(FIRST).map(usize::from);
        at.and_then(|at| self.given.get(at))
            .copied()
            .unwrap_or(false)
    }

    /// A port that was taken is free again; 0 is no port.
    pub(crate) fn give_back(&mut self, port: u16) {
        if port != 0 {
            self.held[usize::from(port - FIRST)] = false;
        }
    }
}
