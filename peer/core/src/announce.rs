//! Decides what a peer announces to its tracker, and when.
//!
//! Reports of what the peer has are merged by file until a message is due. It is due at once for a file that
//! is new, that is gone, or that has its first piece, because this makes the peer a source. It is due within
//! [`COALESCE`] for further pieces. Messages are sent in a small burst and then evenly, within the rate that
//! the tracker accepts. Without changes, one message is sent at each heartbeat.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

use domain::{
    Bitfield, FileId, GroupId, PieceIndex,
    limits::{MAX_ANNOUNCE, MAX_PIECES_A_REQUEST},
};

use crate::Moment;

/// The longest time that gained pieces wait to be announced with others.
pub const COALESCE: Duration = Duration::from_secs(1);
/// The least time between two messages in the long run: the tracker accepts two a second.
const PACE: Duration = Duration::from_millis(500);
/// The number of messages that may be sent at once after a pause.
const BURST: u32 = 4;
/// The most files in one message.
const MAX_FILES: usize = 1_000;
/// The most bytes of a message, less 64 KiB for framing and names.
const MAX_BYTES: usize = MAX_ANNOUNCE - (64 << 10);

/// What this peer has of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// What the peer has of the file.
    pub what: Held,
    /// The peer wants pieces, and the tracker should name sources.
    pub wants_sources: bool,
}

/// What a peer has of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Every piece.
    Complete,
    /// Exactly these pieces. Replaces earlier reports.
    Bitfield(Bitfield),
    /// These pieces in addition to those reported earlier: each once, at most 65,536.
    Gained(Vec<PieceIndex>),
    /// The file is no longer shared or wanted.
    Left,
}

/// The announces of one stream to the tracker.
///
/// ```
/// use std::time::Duration;
/// use peer_core::announce::{Announces, Held, Holding};
///
/// let start = Duration::ZERO;
/// let mut announces = Announces::new(start, Duration::from_secs(10));
/// assert_eq!(announces.due(), Duration::from_secs(10), "the first heartbeat");
///
/// let file = domain::FileId::try_from(&[1; 16][..]).unwrap();
/// let holding = Holding { group: "g1".parse().unwrap(), file, what: Held::Complete, wants_sources: false };
/// announces.report(start, holding.clone());
/// assert_eq!(announces.due(), start, "a new file is announced at once");
/// assert_eq!(announces.take(start), [holding]);
/// ```
#[derive(Debug)]
pub struct Announces {
    files: BTreeMap<FileId, Holding>,
    /// The files of which this peer has no piece yet, as the tracker knows or will know.
    empty: BTreeSet<FileId>,
    /// When the waiting reports should be sent, without regard to the pace.
    wanted: Option<Moment>,
    pace: Pace,
    heartbeat: Duration,
    next_heartbeat: Moment,
}

impl Announces {
    /// Starts without reports. `heartbeat` is the longest time between two messages.
    pub fn new(now: Moment, heartbeat: Duration) -> Self {
        Self {
            files: BTreeMap::new(),
            empty: BTreeSet::new(),
            wanted: None,
            pace: Pace::default(),
            heartbeat,
            next_heartbeat: now + heartbeat,
        }
    }

    /// Reports what this peer has of a file.
    pub fn report(&mut self, now: Moment, holding: Holding) {
        let was_empty = self.empty.remove(&holding.file);
        if matches!(&holding.what, Held::Bitfield(bits) if bits.is_empty()) {
            self.empty.insert(holding.file);
        }
        let can_wait = matches!(holding.what, Held::Gained(_)) && !was_empty;
        let wanted = if can_wait { now + COALESCE } else { now };
        self.wanted = Some(self.wanted.map_or(wanted, |before| before.min(wanted)));
        match self.files.entry(holding.file) {
            Entry::Vacant(entry) => {
                entry.insert(holding);
            }
            Entry::Occupied(mut entry) => merge(entry.get_mut(), holding),
        }
    }

    /// When the next message must be taken.
    pub fn due(&self) -> Moment {
        let next = self.wanted.map_or(self.next_heartbeat, |wanted| wanted.min(self.next_heartbeat));
        next.max(self.pace.next())
    }

    /// The next message: as many reports as fit, or none for a heartbeat. The rest stays due.
    pub fn take(&mut self, now: Moment) -> Vec<Holding> {
        self.pace.sent(now);
        self.next_heartbeat = now + self.heartbeat;
        let mut message = Vec::new();
        let mut bytes = 0;
        while message.len() < MAX_FILES
            && let Some(mut entry) = self.files.first_entry()
        {
            let cost = cost(entry.get());
            if bytes > 0 && bytes + cost > MAX_BYTES {
                break;
            }
            bytes += cost;
            match &mut entry.get_mut().what {
                // One announce may not name more pieces. The rest is sent with the next message.
                Held::Gained(pieces) if pieces.len() > MAX_PIECES_A_REQUEST => {
                    let rest = pieces.split_off(MAX_PIECES_A_REQUEST);
                    let first = std::mem::replace(pieces, rest);
                    message.push(Holding { what: Held::Gained(first), ..entry.get().clone() });
                    break;
                }
                _ => message.push(entry.remove()),
            }
        }
        if self.files.is_empty() {
            self.wanted = None;
        }
        message
    }
}

/// Adds a report to an earlier one of the same file.
fn merge(held: &mut Holding, report: Holding) {
    held.wants_sources = report.wants_sources;
    match (&mut held.what, report.what) {
        (Held::Gained(pieces), Held::Gained(more)) => pieces.extend(more),
        (Held::Bitfield(bits), Held::Gained(more)) => more.into_iter().for_each(|piece| {
            bits.insert(piece);
        }),
        (Held::Complete, Held::Gained(_)) => {}
        (what, newer) => *what = newer,
    }
}

/// The most bytes that the report takes on the wire.
fn cost(holding: &Holding) -> usize {
    let names = 64 + holding.group.as_str().len();
    names
        + match &holding.what {
            Held::Complete | Held::Left => 0,
            Held::Bitfield(bits) => bits.as_bytes().len(),
            Held::Gained(pieces) => pieces.len().min(MAX_PIECES_A_REQUEST) * 4,
        }
}

/// When the next message may be sent: a small burst, then evenly.
#[derive(Debug, Default)]
struct Pace {
    /// Grows by [`PACE`] with each message; may lie [`BURST`] messages in the future.
    spent_until: Moment,
}

impl Pace {
    fn next(&self) -> Moment {
        self.spent_until.saturating_sub(PACE * BURST)
    }

    fn sent(&mut self, now: Moment) {
        self.spent_until = self.spent_until.max(now) + PACE;
    }
}

#[cfg(test)]
mod tests;
