//! Stalls: a thread of the server that computes for long without an ordered operation holds up all
//! others.

use crate::server::process::Process;
use brolga_tape::ring::Stall;

/// The stall that the server has reported, if any.
#[derive(Debug, Default)]
pub(crate) struct StallMonitor {
    /// As reported last.
    reported: Option<Stall>,
    /// The stall, if other threads wait.
    current: Option<Stall>,
}

impl StallMonitor {
    /// Takes in what the server reports now. If the process of the stalled thread was killed from
    /// outside, the others would wait for ever: they are killed too, and the server is restarted as
    /// after a crash.
    pub(crate) fn observe(&mut self, stall: Option<Stall>, process: Option<&Process>) {
        if stall == self.reported {
            return;
        }
        self.reported = stall;
        if let (Some(stall), Some(process)) = (&stall, process)
            && process.has_lost(stall.real_process)
        {
            tracing::warn!(
                "process {} of the server was killed from outside, and the others wait for it: all are \
                 killed",
                stall.process
            );
            process.kill();
            return;
        }
        let stall = stall.filter(|stall| stall.waiting > 0);
        if stall == self.current {
            return;
        }
        match &stall {
            Some(stall) => tracing::warn!("{}", described(stall)),
            None => tracing::info!("the server's other threads go on"),
        }
        self.current = stall;
    }

    /// Returns why requests wait, if a thread holds up the others.
    pub(crate) fn waiting(&self) -> Option<String> {
        self.current.as_ref().map(described)
    }
}

fn described(stall: &Stall) -> String {
    let others = match stall.waiting {
        1 => "1 other waits for its turn".to_owned(),
        many => format!("{many} others wait for their turn"),
    };
    format!(
        "thread {} of process {} has computed for more than {} s without an ordered operation, and \
         if it spins, for something that another is to do, it will do so for ever: {others}",
        stall.thread, stall.process, stall.seconds
    )
}
