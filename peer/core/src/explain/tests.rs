use super::*;

const MIB: u64 = 1 << 20;

fn source(user: &str, doing: Doing, rate: u64) -> Source {
    Source { user: user.into(), doing, rate, limit: 0, uploads: 1, trouble: None, is_clock: false }
}

fn sending(user: &str, rate: u64) -> Source {
    source(user, Doing::Sending, rate)
}

fn running(sources: Vec<Source>) -> Evidence {
    let rate = sources.iter().map(|source| source.rate).sum();
    Evidence { stage: Stage::Running, rate, missing: 10, sources, ..Evidence::default() }
}

fn stalled(sources: Vec<Source>) -> Evidence {
    Evidence { stage: Stage::Stalled, ..running(sources) }
}

fn failed(trouble: Trouble) -> Evidence {
    Evidence { stage: Stage::Failed, trouble: Some((trouble, "why".into())), ..Evidence::default() }
}

fn troubled(text: &str, is_clock: bool) -> Source {
    Source { trouble: Some(text.into()), is_clock, ..source("ann", Doing::Resting, 0) }
}

#[test]
fn each_cause_is_named() {
    let ann = || sending("ann", MIB);
    let away = || Some("the tracker at https://t:1 can't be reached".to_owned());
    let no_ticket = Some((Trouble::Tracker, "no ticket".to_owned()));
    let full = Some((Trouble::DiskFull, "no space left".to_owned()));
    let cases = [
        (Verdict::Complete, Evidence { stage: Stage::Complete, ..Evidence::default() }),
        (Verdict::Stopped, Evidence { stage: Stage::Stopped, ..Evidence::default() }),
        (Verdict::MembershipEnded, failed(Trouble::NotAMember)),
        (Verdict::FileGone, failed(Trouble::FileGone)),
        (Verdict::Failed, failed(Trouble::Other)),
        (Verdict::DiskFull, failed(Trouble::DiskFull)),
        (Verdict::DiskFull, Evidence { trouble: full, ..stalled(vec![ann()]) }),
        (Verdict::Checking, Evidence { stage: Stage::Verifying, ..running(vec![]) }),
        (Verdict::Starting, running(vec![])),
        (Verdict::Starting, running(vec![source("ann", Doing::Connecting, 0)])),
        (Verdict::ClockOff, Evidence { clock_offset: -601, ..stalled(vec![]) }),
        (Verdict::ClockOff, stalled(vec![troubled("ann: its clock is off", true)])),
        (Verdict::WaitingForSlot, stalled(vec![source("ann", Doing::Waiting(Some(4)), 0)])),
        (
            Verdict::WaitingForSlot,
            running(vec![
                ann(),
                source("bob", Doing::Waiting(Some(4)), 0),
                source("cat", Doing::Waiting(None), 0),
            ]),
        ),
        (
            Verdict::PiecesAway,
            Evidence { unheld: 10, ..stalled(vec![source("ann", Doing::NothingWanted, 0)]) },
        ),
        (Verdict::TrackerAway, Evidence { tracker_away: away(), ..stalled(vec![]) }),
        (Verdict::TrackerAway, Evidence { stage: Stage::Queued, trouble: no_ticket, ..Evidence::default() }),
        (Verdict::Unreachable, stalled(vec![troubled("ann at a:1: connection refused", false)])),
        (Verdict::BadPieces, stalled(vec![source("ann", Doing::Banned, 0)])),
        (
            Verdict::TrackerAway,
            Evidence { tracker_away: away(), ..stalled(vec![troubled("refused", false)]) },
        ),
        (Verdict::NoSource, stalled(vec![])),
        (Verdict::DeadLink, stalled(vec![source("ann", Doing::Waiting(None), 0)])),
        (Verdict::DeadLink, stalled(vec![sending("ann", 0)])),
        (Verdict::OwnDisk, Evidence { check_wait: 80, writing: 90, hashing: 10, ..running(vec![ann()]) }),
        (
            Verdict::OwnProcessor,
            Evidence { check_wait: 80, writing: 10, hashing: 90, ..running(vec![ann()]) },
        ),
        (Verdict::OwnProcessor, Evidence { cpu_pressure: Some(70), own_cpu: 80, ..running(vec![ann()]) }),
        (Verdict::OwnLimit, Evidence { limit: MIB, limit_wait: 90, ..running(vec![ann()]) }),
        (Verdict::OnlySeeder, running(vec![Source { uploads: 3, ..ann() }])),
        (Verdict::SourceUplink, running(vec![Source { limit: MIB, ..ann() }])),
        (
            Verdict::SourceUplink,
            running(vec![Source { uploads: 3, ..ann() }, Source { uploads: 2, ..ann() }]),
        ),
        (Verdict::LinkFull, running(vec![Source { limit: 10 * MIB, ..ann() }])),
        (Verdict::LinkFull, running(vec![ann(), sending("bob", 2 * MIB)])),
        (Verdict::LinkFull, Evidence { cpu_pressure: Some(70), own_cpu: 3, ..running(vec![ann()]) }),
    ];
    for (expected, evidence) in &cases {
        let found = explain(evidence);
        assert_eq!(found.verdict, *expected, "{evidence:?}");
        assert!(!found.summary.is_empty() && !found.summary.contains('\n'), "{found:?}");
        assert!(!found.evidence.is_empty(), "{found:?}");
    }
}

#[test]
fn the_words_name_places_rates_and_users() {
    let waits =
        stalled(vec![source("ann", Doing::Waiting(Some(7)), 0), source("bob", Doing::Waiting(Some(3)), 0)]);
    assert_eq!(explain(&waits).summary, "waiting for an upload slot, at place 3 at 2 sources: ann, bob");
    let limited = Evidence { limit: 3 * MIB / 2, limit_wait: 95, ..running(vec![sending("ann", MIB)]) };
    let found = explain(&limited);
    assert_eq!(found.summary, "your own download limit of 1.5 MiB/s; `peer limit --down` changes it");
    assert!(found.evidence.contains(&"ann sends 1.0 MiB/s; it has 1 upload".to_owned()), "{found:?}");
    let full = explain(&running(vec![sending("ann", MIB), sending("bob", MIB)]));
    assert_eq!(full.summary, "the link is full, nothing is wrong: 2.0 MiB/s arrive from 2 sources");
}

#[test]
fn what_is_known_for_certain_comes_before_what_is_guessed() {
    // The tracker is away, and the source still sends: that is not why it is slow.
    let evidence = Evidence {
        tracker_away: Some("away".into()),
        ..running(vec![Source { limit: MIB, ..sending("ann", MIB) }])
    };
    assert_eq!(explain(&evidence).verdict, Verdict::SourceUplink);
    // A limit here that is hit counts for more than the source's.
    let both = Evidence { limit: MIB, limit_wait: 60, ..evidence };
    assert_eq!(explain(&both).verdict, Verdict::OwnLimit);
    // Many sources: only the first are named.
    let many = stalled((0..40).map(|n| source(&format!("u{n}"), Doing::Waiting(Some(n)), 0)).collect());
    let found = explain(&many);
    assert!(found.summary.ends_with("u0, u1, u2 and 37 more") && found.evidence.len() < 20, "{found:?}");
}
