//! A seeder that leaves once another peer has all it has, as `--drain` does.

use peer_core::{Moment, upload::Event};

use super::{
    No,
    host::{Draining, Host, State},
    tracker::file,
    world::{Happening, World},
};

/// The seeder is added first.
const SEEDER: No = 0;

impl World {
    /// Begins once the leechers have the scenario's share of the file, and ends once one of them has all of it. Call it
    /// when a leecher has gained a piece.
    pub(super) fn drain(&mut self) {
        let sent = self.hosts[SEEDER as usize].tally.sent;
        let leechers: Vec<&Host> = self.hosts.iter().filter(|host| host.leech.is_some()).collect();
        match &mut self.draining {
            None if self.scenario.drain > 0.0 => {
                let pieces: u32 = leechers.iter().map(|host| host.have.count()).sum();
                let all = f64::from(self.layout.count()) * leechers.len() as f64;
                if f64::from(pieces) >= self.scenario.drain * all {
                    let missing = self
                        .layout
                        .indices()
                        .filter(|piece| !leechers.iter().any(|host| host.have.contains(*piece)));
                    let missing = missing.map(|piece| u64::from(self.layout.piece_length(piece))).sum();
                    self.draining = Some(Draining { sent, missing, handed: None });
                    self.uploads.push_back((SEEDER, Event::Drain(file(), Moment::MAX)));
                }
            }
            Some(draining)
                if draining.handed.is_none() && leechers.iter().any(|host| host.have.is_full()) =>
            {
                draining.handed = Some(sent - draining.sent);
                self.clock.plan(self.clock.now(), Happening::Goes(SEEDER, State::Left));
            }
            _ => {}
        }
    }
}
