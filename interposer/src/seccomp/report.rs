//! Records that tell the node about the filter.

use super::call_sites::Sites;
use crate::output::report;
use brolga_tape::record::Record;

impl Sites {
    /// The kernel has answered, with an errno or 0: the node is told.
    pub fn answered(&mut self, errno: i32) {
        self.answered = true;
        self.errno = errno;
        self.tell();
    }

    /// Tells a node that knows nothing yet.
    pub fn tell(&self) {
        if self.answered {
            let errno = self.errno;
            report(&Record::SyscallFilter { errno });
        }
        for site in &self.sites[..self.used] {
            report(&site.told());
        }
    }
}
