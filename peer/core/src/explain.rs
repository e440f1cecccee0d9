//! Why a download is as fast as it is: evidence in, one verdict out.
//!
//! The owner gathers the [`Evidence`]. [`explain`] names the first cause in this order that holds:
//! 1. how the download ended, if it did, and what no source can help with: a full disk;
//! 2. while nothing arrives: a clock, a queue, what nobody has, the tracker, the sources' addresses;
//! 3. while something arrives: this peer's checks (disk or processor), its limit, the queues, the sources'
//!    uplinks, this machine's load. If it is none of these, the link is full, and nothing is wrong.

mod evidence;
#[cfg(test)]
mod tests;
mod words;

use self::evidence::CLOCK_OFF;
pub use self::evidence::{Doing, Evidence, Source, Stage, Trouble, Verdict};

/// The share of the time, in percent, from which on waiting for something counts as the cause.
const MOST_OF_THE_TIME: u8 = 50;
/// The share of the time, in percent, from which on this process counts as one of those that want a processor.
const BUSY: u8 = 30;
/// The share of its limit, in percent, that a source has to send so that the limit counts as the cause. It is
/// low because the rates of both sides are averages over different times.
const NEAR_LIMIT: u64 = 60;

/// The verdict with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The cause.
    pub verdict: Verdict,
    /// The cause in one line.
    pub summary: String,
    /// What it follows from, one fact a line.
    pub evidence: Vec<String>,
}

/// Names the cause.
pub fn explain(evidence: &Evidence) -> Explanation {
    let verdict = verdict(evidence);
    Explanation { verdict, summary: words::summary(verdict, evidence), evidence: words::facts(evidence) }
}

fn verdict(evidence: &Evidence) -> Verdict {
    let trouble = evidence.trouble.as_ref().map(|(trouble, _)| *trouble);
    match (evidence.stage, trouble) {
        (Stage::Complete, _) => Verdict::Complete,
        (Stage::Stopped, _) => Verdict::Stopped,
        (_, Some(Trouble::DiskFull)) => Verdict::DiskFull,
        (Stage::Failed, Some(Trouble::NotAMember)) => Verdict::MembershipEnded,
        (Stage::Failed, Some(Trouble::FileGone)) => Verdict::FileGone,
        (Stage::Failed, _) => Verdict::Failed,
        (Stage::Verifying, _) => Verdict::Checking,
        (Stage::Stalled, _) => stalled(evidence),
        (Stage::Queued, None) => Verdict::Starting,
        (Stage::Queued, Some(_)) => without_sources(evidence),
        (Stage::Running, _) if evidence.sources.iter().any(|source| source.rate > 0) => running(evidence),
        (Stage::Running, _) if evidence.check_wait >= MOST_OF_THE_TIME => checks(evidence),
        (Stage::Running, _) if evidence.limit_wait >= MOST_OF_THE_TIME => Verdict::OwnLimit,
        // It is not known yet whether the silence means anything, unless something else is known.
        (Stage::Running, _) => match stalled(evidence) {
            Verdict::NoSource | Verdict::DeadLink => Verdict::Starting,
            known => known,
        },
    }
}

fn lacks_ticket(evidence: &Evidence) -> bool {
    evidence.trouble.as_ref().is_some_and(|(trouble, _)| *trouble == Trouble::Tracker)
}

fn without_sources(evidence: &Evidence) -> Verdict {
    let is_own_clock = evidence.clock_offset.unsigned_abs() > CLOCK_OFF;
    match () {
        () if is_own_clock => Verdict::ClockOff,
        () if evidence.tracker_away.is_some() || lacks_ticket(evidence) => Verdict::TrackerAway,
        () => Verdict::NoSource,
    }
}

/// The cause while nothing arrives.
fn stalled(evidence: &Evidence) -> Verdict {
    let sources = &evidence.sources;
    let any = |doing: fn(&Doing) -> bool| sources.iter().any(|source| doing(&source.doing));
    match () {
        () if sources.iter().any(|source| source.is_clock) => Verdict::ClockOff,
        () if any(|doing| matches!(doing, Doing::Waiting(Some(_)))) => Verdict::WaitingForSlot,
        () if any(Doing::is_silent) => Verdict::DeadLink,
        () if any(|doing| *doing == Doing::NothingWanted) => Verdict::PiecesAway,
        () if evidence.tracker_away.is_some() || lacks_ticket(evidence) => without_sources(evidence),
        () if !sources.is_empty() && sources.iter().all(|source| source.doing == Doing::Banned) => {
            Verdict::BadPieces
        }
        () if sources.iter().any(|source| source.trouble.is_some()) => Verdict::Unreachable,
        () => without_sources(evidence),
    }
}

fn checks(evidence: &Evidence) -> Verdict {
    if evidence.writing >= evidence.hashing { Verdict::OwnDisk } else { Verdict::OwnProcessor }
}

/// The cause while something arrives.
fn running(evidence: &Evidence) -> Verdict {
    let sending: Vec<_> = evidence.sources.iter().filter(|source| source.rate > 0).collect();
    let is_waiting = |source: &&Source| matches!(source.doing, Doing::Waiting(_));
    let waiting = evidence.sources.iter().filter(|source| source.rate == 0 && is_waiting(source)).count();
    let at_limit = |source: &&&Source| {
        let share = source.limit / u64::from(source.uploads.max(1));
        source.limit > 0 && source.rate * 100 >= share * NEAR_LIMIT
    };
    let is_shared = |source: &&&Source| source.uploads > 1;
    let is_starved =
        evidence.own_cpu >= BUSY && evidence.cpu_pressure.is_some_and(|share| share >= MOST_OF_THE_TIME);
    let bound = sending.iter().filter(|source| at_limit(source) || is_shared(source)).count();
    match () {
        () if evidence.check_wait >= MOST_OF_THE_TIME => checks(evidence),
        () if evidence.limit_wait >= MOST_OF_THE_TIME => Verdict::OwnLimit,
        () if waiting > sending.len() => Verdict::WaitingForSlot,
        () if sending.len() == 1 && waiting == 0 && sending.iter().any(|source| is_shared(&source)) => {
            Verdict::OnlySeeder
        }
        () if 2 * bound >= sending.len() && bound > 0 => Verdict::SourceUplink,
        () if is_starved => Verdict::OwnProcessor,
        () => Verdict::LinkFull,
    }
}
