//! Who fetches what from this peer, for people to look at. Nothing is decided by it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::{
    domain::{FileId, GroupId, PeerId, Username},
    ticket::Claims,
};

use crate::domain::{Moment, meter::Meter};

/// The most receivers that are remembered. Others are not shown.
const MOST: usize = 256;
/// How long a receiver that takes nothing is remembered.
const KEPT: Duration = Duration::from_secs(60);
/// The span of the rates.
const SPAN: Duration = Duration::from_secs(5);

/// A peer that fetches a file from this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) peer: PeerId,
    pub(crate) user: Username,
    pub(crate) group: GroupId,
    pub(crate) file: FileId,
    /// Bytes sent to it of this file, since it was first remembered.
    pub(crate) bytes: u64,
    /// Bytes a second, over the last seconds.
    pub(crate) rate: u64,
}

struct Entry {
    user: Username,
    group: GroupId,
    bytes: u64,
    meter: Meter,
    heard: Moment,
}

/// The receivers of the last minute.
pub(crate) struct Receivers {
    start: Instant,
    all: Mutex<HashMap<(PeerId, FileId), Entry>>,
}

impl Default for Receivers {
    fn default() -> Self {
        Self { start: Instant::now(), all: Mutex::default() }
    }
}

impl Receivers {
    /// Notes that bytes are on their way.
    pub(crate) fn note(&self, claims: &Claims, bytes: u32) {
        note(&mut self.all.lock(), self.start.elapsed(), claims, bytes);
    }

    /// The receivers of the last minute, the fastest first.
    pub(crate) fn view(&self) -> Vec<Receiver> {
        view(&mut self.all.lock(), self.start.elapsed())
    }
}

fn forget(all: &mut HashMap<(PeerId, FileId), Entry>, now: Moment) {
    all.retain(|_, entry| now < entry.heard + KEPT);
}

fn note(all: &mut HashMap<(PeerId, FileId), Entry>, now: Moment, claims: &Claims, bytes: u32) {
    let key = (claims.peer, claims.file);
    if all.len() >= MOST && !all.contains_key(&key) {
        forget(all, now);
        if all.len() >= MOST {
            return;
        }
    }
    let entry = all.entry(key).or_insert_with(|| Entry {
        user: claims.user.clone(),
        group: claims.group.clone(),
        bytes: 0,
        meter: Meter::new(SPAN),
        heard: now,
    });
    entry.bytes += u64::from(bytes);
    entry.meter.add(now, bytes);
    entry.heard = now;
}

fn view(all: &mut HashMap<(PeerId, FileId), Entry>, now: Moment) -> Vec<Receiver> {
    forget(all, now);
    let mut receivers: Vec<Receiver> = all
        .iter()
        .map(|((peer, file), entry)| Receiver {
            peer: *peer,
            user: entry.user.clone(),
            group: entry.group.clone(),
            file: *file,
            bytes: entry.bytes,
            rate: entry.meter.rate(now) as u64,
        })
        .collect();
    receivers.sort_by(|a, b| (b.rate, &a.user, a.peer, a.file).cmp(&(a.rate, &b.user, b.peer, b.file)));
    receivers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(peer: u16) -> Claims {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&peer.to_le_bytes());
        Claims {
            user: "ann".parse().expect("a name"),
            group: "g1".parse().expect("a name"),
            file: FileId::try_from(&[1; 16][..]).expect("an id"),
            root: [1; 32].into(),
            peer: id.into(),
            epoch: 0,
            issued: 0,
            not_before: 0,
            expires: 0,
            id: [0; 16],
        }
    }

    #[test]
    fn receivers_are_counted_and_forgotten() {
        let (mut all, second) = (HashMap::new(), Duration::from_secs(1));
        for number in 0..10 {
            note(&mut all, second * number, &claims(1), 1_000_000);
            note(&mut all, second * number, &claims(2), 2_000_000);
        }
        let seen = view(&mut all, second * 10);
        assert_eq!(seen.iter().map(|one| one.bytes).collect::<Vec<_>>(), [20_000_000, 10_000_000]);
        assert!((1_500_000..2_500_000).contains(&seen[0].rate), "{seen:?}");
        assert!(view(&mut all, second * 9 + KEPT).is_empty());
    }

    #[test]
    fn there_are_only_so_many() {
        let mut all = HashMap::new();
        for peer in 0..2 * MOST as u16 {
            note(&mut all, Moment::ZERO, &claims(peer), 1);
        }
        assert_eq!(all.len(), MOST);
        note(&mut all, KEPT, &claims(9_999), 1);
        assert_eq!(view(&mut all, KEPT).len(), 1, "who left makes room");
    }
}
