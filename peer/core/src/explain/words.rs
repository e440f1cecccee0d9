//! The words for a verdict and its evidence.

use super::evidence::{CLOCK_OFF, Doing, Evidence, Source, Verdict};

/// The most sources that are named one by one.
const NAMED: usize = 8;

/// A number of bytes, or of bytes a second, with its unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1_024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn rate(bytes: u64) -> String {
    format!("{}/s", size(bytes))
}

fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// The users of these sources, the first three by name.
fn users<'a>(sources: impl Iterator<Item = &'a Source>) -> String {
    let names: Vec<_> = sources.map(|source| source.user.as_str()).collect();
    match names.as_slice() {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        names => names.join(", "),
    }
}

/// The verdict in one line.
pub(super) fn summary(verdict: Verdict, evidence: &Evidence) -> String {
    let of = |doing: fn(&Doing) -> bool| evidence.sources.iter().filter(move |source| doing(&source.doing));
    let sending = || evidence.sources.iter().filter(|source| source.rate > 0);
    let message = || evidence.trouble.as_ref().map(|(_, message)| message.clone()).unwrap_or_default();
    match verdict {
        Verdict::Complete => "the file is complete; nothing is fetched".to_owned(),
        Verdict::Stopped => "the user stopped it; `peer resume-download` continues it".to_owned(),
        Verdict::MembershipEnded => "you are not a member of the group any more".to_owned(),
        Verdict::FileGone => "the file was taken out of the group".to_owned(),
        Verdict::Failed => message(),
        Verdict::DiskFull => "the disk of the destination is full; free some space there".to_owned(),
        Verdict::Checking => "what is on disk is being checked; nothing has to arrive meanwhile".to_owned(),
        Verdict::Starting => "it has just begun; ask again in a few seconds".to_owned(),
        Verdict::ClockOff if evidence.clock_offset.unsigned_abs() > CLOCK_OFF => {
            format!("this clock is {} s off the tracker's; set it right (NTP)", evidence.clock_offset)
        }
        Verdict::ClockOff => {
            let source = evidence.sources.iter().find(|source| source.is_clock);
            source.and_then(|source| source.trouble.clone()).unwrap_or_default()
        }
        Verdict::WaitingForSlot => waiting(of(|doing| matches!(doing, Doing::Waiting(_))).collect()),
        Verdict::PiecesAway => format!(
            "{} missing, and nobody who is here has any of them: those who had them are away",
            count(evidence.missing as usize, "piece is", "pieces are")
        ),
        Verdict::TrackerAway => {
            let why = evidence.tracker_away.clone().unwrap_or_else(message);
            format!("the tracker is away, and no source can be used: {why}")
        }
        Verdict::Unreachable => {
            let troubles = evidence.sources.iter().filter_map(|source| source.trouble.clone());
            crate::reach::all_troubles(&troubles.collect::<Vec<_>>())
        }
        Verdict::BadPieces => {
            format!("every source sent bad pieces: {}", users(evidence.sources.iter()))
        }
        Verdict::NoSource => "no source of the file is online".to_owned(),
        Verdict::DeadLink => {
            let silent = of(Doing::is_silent);
            format!("{} sends nothing; is the link down?", users(silent))
        }
        Verdict::OwnDisk => "the disk of this machine is the limit: pieces wait to be written".to_owned(),
        Verdict::OwnProcessor => "the processor of this machine is the limit".to_owned(),
        Verdict::OwnLimit => {
            format!("your own download limit of {}; `peer limit --down` changes it", rate(evidence.limit))
        }
        Verdict::OnlySeeder => {
            let (name, others) =
                (users(sending()), sending().map(|one| one.uploads).max().unwrap_or(1).saturating_sub(1));
            let others = count(others as usize, "other download", "other downloads");
            format!("{name} is the only source, and serves {others} too")
        }
        Verdict::SourceUplink => match sending().collect::<Vec<_>>().as_slice() {
            [one] if one.limit > 0 => {
                format!("the uplink of {}: all its uploads are limited to {}", one.user, rate(one.limit))
            }
            several => format!("the uplinks of the sources: {}", users(several.iter().copied())),
        },
        Verdict::LinkFull => format!(
            "the link is full, nothing is wrong: {} arrive from {}",
            rate(evidence.rate),
            count(sending().count(), "source", "sources")
        ),
    }
}

fn waiting(queued: Vec<&Source>) -> String {
    let places = queued.iter().filter_map(|source| match source.doing {
        Doing::Waiting(place) => place,
        _ => None,
    });
    let place = places.min().map(|place| format!(", at place {place}")).unwrap_or_default();
    let sources = count(queued.len(), "source", "sources");
    format!("waiting for an upload slot{place} at {sources}: {}", users(queued.into_iter()))
}

/// What is known, one fact a line.
pub(super) fn facts(evidence: &Evidence) -> Vec<String> {
    let mut facts = vec![format!("{} arrive now", rate(evidence.rate))];
    match evidence.limit {
        0 => facts.push("no download limit is set here".to_owned()),
        limit => facts.push(format!(
            "the download limit here is {}; arriving bytes wait for it {}% of the time",
            rate(limit),
            evidence.limit_wait
        )),
    }
    facts.push(format!(
        "pieces are hashed {}% and written {}% of the time; they wait for that {}%",
        evidence.hashing, evidence.writing, evidence.check_wait
    ));
    if let Some(share) = evidence.cpu_pressure {
        facts.push(format!(
            "this daemon uses a processor {}% of the time; programs of this machine wait for one {share}%",
            evidence.own_cpu
        ));
    }
    match &evidence.tracker_away {
        None => facts.push("the tracker is there".to_owned()),
        Some(why) => facts.push(format!("the tracker is away: {why}")),
    }
    if evidence.clock_offset != 0 {
        facts.push(format!("this clock differs from the tracker's by {} s", evidence.clock_offset));
    }
    if evidence.unheld > 0 {
        let missing = count(evidence.missing as usize, "missing piece", "missing pieces");
        facts.push(format!("of {missing}, {} are at no source that is connected", evidence.unheld));
    }
    if evidence.sources.is_empty() {
        facts.push("no source is known".to_owned());
    }
    // Those that matter most come first.
    let mut sources: Vec<_> = evidence.sources.iter().collect();
    sources.sort_by_key(|source| std::cmp::Reverse(source.rate));
    facts.extend(sources.iter().take(NAMED).map(|source| fact(source)));
    if sources.len() > NAMED {
        facts.push(format!("and {} more sources", sources.len() - NAMED));
    }
    facts
}

fn fact(source: &Source) -> String {
    let user = &source.user;
    let doing = match source.doing {
        Doing::Sending => format!("{user} sends {}", rate(source.rate)),
        Doing::Waiting(Some(place)) => format!("{user} lets this peer wait, at place {place}"),
        Doing::Waiting(None) => format!("{user} lets this peer wait"),
        Doing::NothingWanted => format!("{user} has none of the missing pieces"),
        Doing::Idle => format!("{user} is connected"),
        Doing::Connecting => format!("{user} is being connected"),
        Doing::Resting => format!("{user} is not used now"),
        Doing::Banned => format!("{user} is not used any more"),
    };
    let mut out = doing;
    if source.limit > 0 {
        out += &format!("; its upload limit is {}", rate(source.limit));
    }
    if source.uploads > 0 {
        out += &format!("; it has {}", count(source.uploads as usize, "upload", "uploads"));
    }
    if let Some(trouble) = &source.trouble {
        out += &format!("; {trouble}");
    }
    out
}
