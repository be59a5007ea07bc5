//! Counters that prove what came up in a run.

/// How often each kind of fault, and each rare path, came up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Coverage {
    pub lost: u64,
    pub duplicated: u64,
    pub late_copies: u64,
    pub overtaken: u64,
    pub delayed: u64,
    pub slow_flushes: u64,
    pub splits: u64,
    pub one_way_cuts: u64,
    pub isolations: u64,
    pub deaf_leaders: u64,
    pub flaps: u64,
    pub crashes: u64,
    pub operations_lost: u64,
    pub operations_survived: u64,
    pub all_down: u64,
    pub vanished: u64,
    pub peer_downs: u64,
    pub peer_ups: u64,
    pub leaders: u64,
    pub fetches: u64,
    pub rejects: u64,
    pub held_back: u64,
    pub noops: u64,
    pub recovered_votes: u64,
    pub abstentions: u64,
    pub wipes: u64,
    pub votes_regained: u64,
    pub checkpoints: u64,
    pub truncations: u64,
    pub transfers: u64,
    pub donor_deaths: u64,
    pub installs: u64,
    pub installs_too_late: u64,
    pub learner_starts: u64,
    pub learner_losses: u64,
    pub learner_departures: u64,
    pub transfers_to_learners: u64,
    pub lagging_learners: u64,
}

impl Coverage {
    fn counters(&mut self) -> [(&'static str, &mut u64); 38] {
        [
            ("lost", &mut self.lost),
            ("duplicated", &mut self.duplicated),
            ("late copies", &mut self.late_copies),
            ("overtaken", &mut self.overtaken),
            ("delayed", &mut self.delayed),
            ("slow flushes", &mut self.slow_flushes),
            ("splits", &mut self.splits),
            ("one-way cuts", &mut self.one_way_cuts),
            ("isolations", &mut self.isolations),
            ("deaf leaders", &mut self.deaf_leaders),
            ("flaps", &mut self.flaps),
            ("crashes", &mut self.crashes),
            ("operations lost", &mut self.operations_lost),
            ("operations survived", &mut self.operations_survived),
            ("all down", &mut self.all_down),
            ("vanished", &mut self.vanished),
            ("peer downs", &mut self.peer_downs),
            ("peer ups", &mut self.peer_ups),
            ("leaders", &mut self.leaders),
            ("fetches", &mut self.fetches),
            ("rejects", &mut self.rejects),
            ("held back", &mut self.held_back),
            ("noops", &mut self.noops),
            ("recovered votes", &mut self.recovered_votes),
            ("abstentions", &mut self.abstentions),
            ("wipes", &mut self.wipes),
            ("votes regained", &mut self.votes_regained),
            ("checkpoints", &mut self.checkpoints),
            ("truncations", &mut self.truncations),
            ("transfers", &mut self.transfers),
            ("donor deaths", &mut self.donor_deaths),
            ("installs", &mut self.installs),
            ("installs too late", &mut self.installs_too_late),
            ("learner starts", &mut self.learner_starts),
            ("learner losses", &mut self.learner_losses),
            ("learner departures", &mut self.learner_departures),
            ("transfers to learners", &mut self.transfers_to_learners),
            ("lagging learners", &mut self.lagging_learners),
        ]
    }

    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for ((_, sum), (_, more)) in self.counters().into_iter().zip(other.counters()) {
            *sum += *more;
        }
    }

    pub fn missed(&self) -> Vec<&'static str> {
        let mut copy = *self;
        let zeros = copy
            .counters()
            .into_iter()
            .filter(|(_, count)| **count == 0);
        zeros.map(|(name, _)| name).collect()
    }
}
