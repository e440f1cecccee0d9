//! Leechers that read the file while it arrives: from its start, and later from a place far ahead.

use domain::PIECE_LENGTH;
use peer_core::{download::Event, reading};

use super::{
    No,
    host::Reading,
    world::{Happening, START, World},
};

/// A reader seeks after this part of the least time.
const SEEK_AFTER: f64 = 0.25;
/// The place that it seeks to, as a part of the file.
const SEEK_TO: f64 = 0.8;

impl World {
    /// Lets the first leechers read.
    pub(super) fn plan_readers(&mut self) {
        let at = START + self.scenario.least_time().mul_f64(SEEK_AFTER);
        for reader in 1..=self.scenario.readers.min(self.scenario.peers) {
            self.clock.plan(at, Happening::Seeks(reader));
        }
    }

    /// Whether the peer reads.
    pub(super) fn is_reader(&self, no: No) -> bool {
        (1..=self.scenario.readers).contains(&no)
    }

    /// Lets a reader read from this part of the file on.
    pub(super) fn read_from(&mut self, no: No, part: f64) {
        let now = self.clock.now();
        let next = (f64::from(self.layout.count()) * part) as u64;
        let Some(leech) = self.host(no).leech.as_mut().filter(|leech| leech.finished.is_none()) else {
            return;
        };
        let waits = leech.reading.take().map(|reading| {
            // The last place was given up before its first piece came.
            let given_up = reading.since.map(|since| now - since);
            reading.waits.into_iter().chain(given_up).collect()
        });
        let waits = waits.unwrap_or_default();
        leech.reading = Some(Reading { next, since: Some(now), waits });
        self.read_on(no);
    }

    pub(super) fn seek(&mut self, no: No) {
        if self.hosts[no as usize].is_there() {
            self.read_from(no, SEEK_TO);
        }
    }

    /// Takes what is there, and tells the state machine what the reader waits for.
    pub(super) fn read_on(&mut self, no: No) {
        let (now, layout) = (self.clock.now(), self.layout);
        let host = self.host(no);
        let Some(reading) = host.leech.as_mut().and_then(|leech| leech.reading.as_mut()) else { return };
        while layout.index(reading.next).is_some_and(|piece| host.have.contains(piece)) {
            reading.waits.extend(reading.since.take().map(|since| now - since));
            reading.next += 1;
        }
        let left = reading.next * u64::from(PIECE_LENGTH)..layout.length();
        self.feed(no, Event::Urgent(reading::urgent(layout, std::iter::once(left))));
    }
}
