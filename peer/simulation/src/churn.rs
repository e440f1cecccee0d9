//! Peers that come and go during a run, and peers that send garbage.

use std::time::Duration;

use domain::Bitfield;
use peer_core::download::{Event, Failure};
use rand::RngExt as _;

use super::{
    No,
    host::State,
    world::{Answer, Call, Happening, START, World},
};

/// Time until the other end detects that a connection to a silent peer is dead.
const DEAD_AFTER: Duration = Duration::from_secs(40);

impl World {
    pub(super) fn add_liars(&mut self) {
        for _ in 0..share(self.scenario.peers, self.scenario.liars) {
            let liar = self.add(Some(Bitfield::full(self.layout)));
            self.host(liar).lies = true;
            self.clock.plan(START / 2, Happening::Comes(liar));
        }
    }

    /// Plans for some of the leechers to leave, and for as many new ones to come.
    pub(super) fn plan_churn(&mut self) {
        let within = self.scenario.least_time();
        let count = share(self.scenario.peers, self.scenario.churn);
        // All leechers are alike, so the first ones are as good a sample as any.
        for leaver in 1..=count {
            let how = if leaver % 2 == 0 { State::Left } else { State::Silent };
            let at = START + within.mul_f64(self.rng.random_range(0.1..1.0));
            self.clock.plan(at, Happening::Goes(leaver, how));
            let newcomer = self.add(None);
            self.left += 1;
            let at = START + within.mul_f64(self.rng.random());
            self.clock.plan(at, Happening::Comes(newcomer));
        }
    }

    pub(super) fn come(&mut self, no: No) {
        let now = self.clock.now();
        let host = self.host(no);
        host.state = State::There;
        if let Some(leech) = &mut host.leech {
            leech.begun = now;
        }
        self.report_all(no);
        self.feed(no, Event::Tick);
        if self.is_reader(no) {
            self.read_from(no, 0.0);
        }
    }

    pub(super) fn go(&mut self, no: No, how: State) {
        let host = self.host(no);
        host.state = how;
        let watchers = std::mem::take(&mut host.watchers);
        let links = host.leech.as_mut().map(|leech| std::mem::take(&mut leech.links)).unwrap_or_default();
        let is_unfinished = host.leech.as_ref().is_some_and(|leech| leech.finished.is_none());
        self.left -= u32::from(is_unfinished);
        let after = if how == State::Silent { DEAD_AFTER } else { Duration::ZERO };
        for (leecher, connection) in watchers {
            let at = self.clock.now() + after + self.latency(no, leecher);
            let answer = Answer::Disconnected(connection, Failure::Connection);
            self.clock.plan(at, Happening::Answered { leecher, source: no, answer });
        }
        for (source, connection) in links {
            let at = self.clock.now() + after + self.latency(no, source);
            self.clock.plan(at, Happening::Asked { source, leecher: no, call: Call::Close(connection) });
        }
        if how == State::Left {
            self.forget(no);
        }
    }
}

/// The number that is this share of `all`, rounded.
fn share(all: u32, part: f64) -> u32 {
    (f64::from(all) * part).round() as u32
}
