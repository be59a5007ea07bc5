//! Checkpoints that go from one node to another, as far as they concern the rest of the node.

use crate::checkpoint::truncation::RENEW_EVERY;
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use crate::transfer::coordinator::{Attempt, LOOK_AGAIN};
use crate::transfer::donors::{Choice, Wishes};
use crate::transfer::fetch::FetchPlan;
use std::sync::Arc;
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    /// Serves clients that want a checkpoint from here.
    pub(crate) fn serve_streams(&mut self) {
        for stream in self.replica.take_upgraded_streams() {
            self.transfer.serving.serve(stream);
        }
    }

    /// Goes on with a fetch, if one is wanted. True when a checkpoint was fetched and the node is to
    /// start anew with it.
    pub(crate) fn advance_transfer(&mut self, now: Instant) -> Result<bool, NodeError> {
        self.transfer.take_in(now);
        self.say_what_is_needed(now);
        if self.transfer.lore.fetched.is_some() {
            return Ok(true);
        }
        let chosen = self.replica.chosen_upto();
        let Some(at_least) = self.checkpoints.lacking(chosen) else {
            if self.transfer.attempt.take().is_some() {
                tracing::info!("the log goes on by itself: no checkpoint is needed any more");
            }
            self.transfer.again_at = None;
            return Ok(false);
        };
        if self.transfer.attempt.is_none() {
            self.ask_for_checkpoint(at_least, now)?;
        }
        Ok(false)
    }

    /// Has the others keep the log that follows what is fetched.
    fn say_what_is_needed(&mut self, now: Instant) {
        let newest = self.checkpoints.newest();
        if self.transfer.is_content(newest, now) {
            self.say_that_log_is_needed(0);
        }
        let Some(slot) = self.transfer.needs_log() else {
            // Its slot may be known in a moment.
            let soon = self.transfer.attempt.is_some();
            self.transfer.say_at = soon.then(|| now + LOOK_AGAIN / 10);
            return;
        };
        if self.transfer.say_at.is_some_and(|at| at > now) {
            return;
        }
        self.transfer.say_at = Some(now + RENEW_EVERY);
        self.say_that_log_is_needed(slot);
    }

    fn say_that_log_is_needed(&mut self, slot: u64) {
        PeerFrame::Fetching(slot).encode(&mut self.frame);
        for member in &self.config.members {
            if member.id != self.id {
                // One whose link is down is told later.
                let _ = self.replica.send_app(member.id, &self.frame);
            }
        }
    }

    fn ask_for_checkpoint(&mut self, at_least: u64, now: Instant) -> Result<(), NodeError> {
        if self.transfer.again_at.is_some_and(|at| at > now) {
            return Ok(());
        }
        let directory = self.checkpoints.directory();
        let begun = directory.partials()?;
        let begun = begun.iter().find(|it| it.position.slot >= at_least);
        let requests = Wishes {
            at_least,
            leader: self.leadership.leader,
            begun: begun.map(|manifest| manifest.node),
        };
        let donor = match self.transfer.donors.choose(requests, now) {
            Choice::Ask(donor) => donor,
            Choice::Wait(at) => {
                // News come before that.
                self.transfer.again_at = Some(at.unwrap_or(now + LOOK_AGAIN));
                return Ok(());
            }
        };
        self.transfer.again_at = None;
        let member = self.config.members.iter().find(|it| it.id == donor);
        let Some(member) = member else {
            return Ok(());
        };
        let plan = FetchPlan {
            cluster: self.config.cluster.0,
            node: self.id,
            donor: member.peer,
            directory: directory.clone(),
            identity: self.checkpoints.identity().clone(),
            at_least,
            except: self.transfer.lore.refused.clone(),
        };
        tracing::info!(donor, at_least, "a checkpoint is fetched");
        let waker = Arc::clone(&self.transfer.waker);
        self.transfer.attempt = Some(Attempt::begin(donor, plan, waker)?);
        Ok(())
    }
}
