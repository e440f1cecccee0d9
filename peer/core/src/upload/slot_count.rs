//! Decides the number of upload slots: few, and more only while that raises the total rate.

use std::time::Duration;

use crate::Moment;

/// How long a number of slots is tried before it is judged.
const EPOCH: Duration = Duration::from_secs(1);
/// One more slot must raise the rate by this factor.
const WORTHWHILE: f64 = 1.1;
/// The number of epochs before the next trial after one that did not help. It doubles each time, up to
/// [`LONGEST_HOLD`].
const FIRST_HOLD: u32 = 4;
/// See [`FIRST_HOLD`].
const LONGEST_HOLD: u32 = 64;

/// Hill climbing on the total rate of all uploads.
pub(super) struct SlotCount {
    count: usize,
    few: usize,
    most: usize,
    /// While one more slot is on trial: the rate with one slot less.
    trial: Option<f64>,
    hold: u32,
    next_hold: u32,
    epoch: Moment,
    bytes: u64,
    /// A peer waited during the whole epoch.
    demand: bool,
}

impl SlotCount {
    pub(super) fn new(few: usize, most: usize) -> Self {
        let (few, hold) = (few.clamp(1, most.max(1)), FIRST_HOLD);
        let (epoch, demand) = (Moment::ZERO, false);
        Self { count: few, few, most, trial: None, hold: 1, next_hold: hold, epoch, bytes: 0, demand }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Notes that this number of bytes was handed to the transport.
    pub(super) fn note_bytes(&mut self, bytes: u32) {
        self.bytes += u64::from(bytes);
    }

    /// Notes whether a peer waits for a slot now.
    pub(super) fn note_demand(&mut self, now: Moment, waiting: bool) {
        self.demand &= waiting;
        let elapsed = now.saturating_sub(self.epoch);
        if elapsed < EPOCH {
            return;
        }
        if self.demand && elapsed < 2 * EPOCH {
            self.judge(self.bytes as f64 / elapsed.as_secs_f64());
        } else if !waiting {
            self.trial = None;
            self.count = self.count.min(self.few.max(self.count - 1));
        }
        (self.epoch, self.bytes, self.demand) = (now, 0, waiting);
    }

    fn judge(&mut self, rate: f64) {
        match self.trial.take() {
            Some(before) if rate <= before * WORTHWHILE => {
                self.count -= 1;
                self.hold = self.next_hold;
                self.next_hold = (2 * self.next_hold).min(LONGEST_HOLD);
                return;
            }
            Some(_) => self.next_hold = FIRST_HOLD,
            None if self.hold > 0 => {
                self.hold -= 1;
                return;
            }
            None => {}
        }
        if self.count < self.most {
            self.trial = Some(rate);
            self.count += 1;
        }
    }
}
