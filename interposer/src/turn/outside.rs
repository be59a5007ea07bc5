//! The scheduler and the output ring, as the virtual sockets see them.

use super::keys::{REAL, key_of};
use super::proof::Turn;
use crate::output::emit;
use brolga_dmt::Scheduler;
use brolga_tape::record::Record;
use brolga_vnet::{WaitOn, World};

/// The world of the virtual sockets.
pub struct Outside<'a> {
    pub(super) scheduler: &'a mut Scheduler,
}

impl World for Outside<'_> {
    #[inline]
    fn wake(&mut self, on: WaitOn, count: usize) -> usize {
        self.scheduler.wake(key_of(on), count)
    }

    fn emit(&mut self, record: &Record<'_>) {
        #[cfg(feature = "trace")]
        if let Record::Data { bytes, .. } = record {
            crate::trace::output(self.scheduler, bytes);
        }
        emit(self.scheduler.last_thread(), record);
    }

    fn alarm_gone(&mut self, alarm: u16) {
        self.scheduler.remove(alarm);
    }
}

impl Turn {
    /// The virtual sockets and what they need of the world.
    #[inline]
    pub fn net(&mut self) -> (&mut brolga_vnet::Net, Outside<'_>) {
        let shared = self.shared();
        (
            &mut shared.net,
            Outside {
                scheduler: &mut shared.scheduler,
            },
        )
    }

    /// A real object of the tree may have changed: threads that wait for one look again.
    pub fn real_changed(&mut self) {
        let shared = self.shared();
        shared.real_changes += 1;
        shared.scheduler.wake(REAL, usize::MAX);
        let mut outside = Outside {
            scheduler: &mut shared.scheduler,
        };
        shared.net.wake_real(&mut outside);
    }
}
