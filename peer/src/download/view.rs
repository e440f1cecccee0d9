//! Builds the view that users see of a download.

use proto::{
    domain::{Bitfield, PeerId, PieceLayout, Username},
    reason::Reason,
};

use super::source_directory::SourceDirectory;
use crate::{
    domain::{
        Moment,
        download::{self, Download},
        reach::{all_troubles, unreached},
    },
    ports::{DownloadView, Problem, SourceState, SourceView},
    units,
};

/// The most stretches of the file in a view's map.
const STRETCHES: u64 = 64;

/// Shows that no data arrives now.
pub(super) fn no_rate(view: &mut DownloadView) {
    (view.rate, view.eta) = (0, None);
    view.sources.iter_mut().for_each(|source| source.rate = 0);
}

/// Shows that no data arrives any more.
pub(super) fn still(view: &mut DownloadView) {
    no_rate(view);
    for source in &mut view.sources {
        if source.state != SourceState::Banned {
            source.state = SourceState::Idle;
        }
    }
}

/// Shows the file as complete.
pub(super) fn complete(view: &mut DownloadView, layout: PieceLayout) {
    view.done_bytes = layout.length();
    view.map = map(&Bitfield::full(layout), layout);
}

/// Copies the machine's state into the view. The transfer sets state and problem.
pub(super) fn update(
    view: &mut DownloadView,
    machine: &Download,
    now: Moment,
    directory: &SourceDirectory,
    layout: PieceLayout,
    uploads: &dyn Fn(PeerId) -> (u64, u32),
) {
    view.done_bytes = machine.done_bytes();
    view.rate = machine.rate(now) as u64;
    view.eta = machine.eta(now);
    view.map = map(machine.have(), layout);
    (view.missing, view.unheld) = machine.missing();
    view.sources = machine
        .sources(now)
        .filter_map(|source| {
            let username = directory.username(source.peer)?;
            let (upload_limit, readers) = uploads(source.peer);
            Some(SourceView {
                is_clock: directory.is_clock(source.peer),
                place: match source.state {
                    download::SourcePhase::Waiting(place) => place,
                    _ => None,
                },
                wanted: source.wanted,
                upload_limit,
                readers,
                peer: source.peer,
                cause: cause(&source, &username, directory),
                username,
                bytes: source.verified_bytes,
                rate: source.rate as u64,
                bad_pieces: source.bad_pieces,
                state: match source.state {
                    download::SourcePhase::Connecting => SourceState::Connecting,
                    download::SourcePhase::Idle => SourceState::Idle,
                    download::SourcePhase::Waiting(_) => SourceState::Queued,
                    download::SourcePhase::Sending => SourceState::Sending,
                    download::SourcePhase::Resting => SourceState::Backoff,
                    download::SourcePhase::Banned => SourceState::Banned,
                },
            })
        })
        .collect();
    view.sources.sort_unstable_by_key(|source| source.peer);
    view.all_banned =
        !view.sources.is_empty() && view.sources.iter().all(|source| source.state == SourceState::Banned);
}

/// Adds what the sources sent in earlier transfers of the same download.
pub(super) fn add_earlier(sources: &mut Vec<SourceView>, earlier: &[SourceView]) {
    for before in earlier {
        match sources.iter_mut().find(|source| source.peer == before.peer) {
            Some(source) => source.bytes += before.bytes,
            None => sources.push(before.clone()),
        }
    }
    sources.sort_unstable_by_key(|source| source.peer);
}

/// The reason why a source is of no use now, if it isn't.
fn cause(source: &download::SourceSnapshot, user: &Username, directory: &SourceDirectory) -> Option<String> {
    use download::SourcePhase::{Banned, Connecting, Idle, Resting, Sending, Waiting};
    match source.state {
        Banned => Some(format!(
            "{user} sent {}; it is not used any more",
            units::count(source.bad_pieces as usize, "bad piece")
        )),
        Idle if source.bad_pieces > 0 => Some(format!(
            "{user} sent {}: the copy there is damaged or was changed; `peer verify` there tells",
            units::count(source.bad_pieces as usize, "bad piece")
        )),
        Idle if source.wanted == 0 => Some(format!("{user} has none of the missing pieces")),
        Idle => Some(format!("{user} sends nothing; is the link down?")),
        Resting | Connecting => directory.trouble(source.peer),
        Sending | Waiting(_) => None,
    }
}

/// The reason why no data arrives, as far as the sources show it.
pub(super) fn why_stalled(view: &DownloadView, directory: &SourceDirectory) -> Problem {
    let users = |state| {
        let named = view.sources.iter().filter(move |source| source.state == state);
        named.map(|source| source.username.to_string()).collect::<Vec<_>>().join(", ")
    };
    let any = |state| view.sources.iter().any(|source| source.state == state);
    let mut troubles: Vec<_> = view.sources.iter().filter_map(|source| source.cause.clone()).collect();
    troubles.extend(directory.without_address().iter().map(|user| unreached(user.as_str(), &[])));
    troubles.dedup();
    let (reason, message) = if view.sources.is_empty() && troubles.is_empty() {
        (Reason::NoSource, "no source of the file is online".to_owned())
    } else if view.all_banned {
        let message = "every source sent pieces that are not what the manifest says";
        (Reason::Corrupt, format!("{message}: {}", all_troubles(&troubles)))
    } else if any(SourceState::Queued) {
        (Reason::Busy, format!("waiting for an upload slot of {}", users(SourceState::Queued)))
    } else if any(SourceState::Sending) {
        let users = users(SourceState::Sending);
        (Reason::NoSource, format!("{users} stopped sending; is the link down?"))
    } else {
        (Reason::NoSource, all_troubles(&troubles))
    };
    Problem { reason, message }
}

/// The share of each stretch that is verified, 0-255.
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
