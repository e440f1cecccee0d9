//! What is shown of a download.

use proto::{
    domain::{Bitfield, PieceLayout},
    reason::Reason,
};

use super::book::Book;
use crate::{
    domain::{
        Moment,
        download::{self, Download},
    },
    engine::{DownloadView, Problem, SourceState, SourceView},
};

/// Stretches of the file in a view's map.
const STRETCHES: u64 = 64;

/// Shows that nothing comes any more.
pub(super) fn still(view: &mut DownloadView) {
    (view.rate, view.eta) = (0, None);
    for source in &mut view.sources {
        source.rate = 0;
        if source.state != SourceState::Banned {
            source.state = SourceState::Idle;
        }
    }
}

/// Shows all of the file as there.
pub(super) fn complete(view: &mut DownloadView, layout: PieceLayout) {
    view.done_bytes = layout.length();
    view.map = map(&Bitfield::full(layout), layout);
}

/// Puts what the machine knows into the view. State and problem are the driver's.
pub(super) fn update(
    view: &mut DownloadView,
    machine: &Download,
    now: Moment,
    book: &Book,
    layout: PieceLayout,
) {
    view.done_bytes = machine.done_bytes();
    view.rate = machine.rate(now) as u64;
    view.eta = machine.eta(now);
    view.map = map(machine.have(), layout);
    view.sources = machine
        .sources(now)
        .filter_map(|source| {
            Some(SourceView {
                peer: source.peer,
                username: book.username(source.peer)?,
                bytes: source.verified_bytes,
                rate: source.rate as u64,
                bad_pieces: source.bad_pieces,
                state: match source.state {
                    download::SourceState::Connecting => SourceState::Connecting,
                    download::SourceState::Idle => SourceState::Idle,
                    download::SourceState::Waiting(_) => SourceState::Queued,
                    download::SourceState::Sending => SourceState::Sending,
                    download::SourceState::Resting => SourceState::Backoff,
                    download::SourceState::Banned => SourceState::Banned,
                },
            })
        })
        .collect();
    view.sources.sort_unstable_by_key(|source| source.peer);
    view.all_banned =
        !view.sources.is_empty() && view.sources.iter().all(|source| source.state == SourceState::Banned);
}

/// Why nothing comes, as far as the sources tell.
pub(super) fn why_stalled(view: &DownloadView) -> Problem {
    let any = |state| view.sources.iter().any(|source| source.state == state);
    let (reason, message) = if view.sources.is_empty() {
        (Reason::NoSource, "no source of the file is online")
    } else if view.all_banned {
        (Reason::Corrupt, "every source sent pieces that are not what the manifest says")
    } else if any(SourceState::Queued) {
        (Reason::Busy, "waiting for an upload slot of a source")
    } else if any(SourceState::Idle) || any(SourceState::Sending) {
        (Reason::NoSource, "no connected source has the missing pieces")
    } else {
        (Reason::NoSource, "no source can be reached")
    };
    Problem { reason, message: message.into() }
}

/// Share of each stretch that is there, 0-255.
fn map(have: &Bitfield, layout: PieceLayout) -> Vec<u8> {
    let pieces = u64::from(layout.count());
    let stretches = STRETCHES.min(pieces);
    let mut there = vec![0u64; stretches as usize];
    for piece in have.iter(layout) {
        there[(u64::from(piece.get()) * stretches / pieces) as usize] += 1;
    }
    let start = |stretch: u64| (stretch * pieces).div_ceil(stretches);
    let share = |(stretch, there): (u64, u64)| (there * 255 / (start(stretch + 1) - start(stretch))) as u8;
    (0..).zip(there).map(share).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_map_is_full_when_the_file_is() {
        for pieces in [0, 1, 63, 64, 65, 1_000] {
            let layout = PieceLayout::new(pieces * 524_288).unwrap();
            let full = map(&Bitfield::full(layout), layout);
            assert_eq!(full, vec![255; pieces.min(64) as usize]);
            assert!(map(&Bitfield::empty(layout), layout).iter().all(|share| *share == 0));
        }
        let layout = PieceLayout::new(128 * 524_288).unwrap();
        let mut half = Bitfield::empty(layout);
        half.insert(layout.index(0).unwrap());
        assert_eq!(map(&half, layout)[..2], [127, 0]);
    }
}
