//! Every check between a request and its bytes. Each row is good except in one respect, which only one check
//! covers. Without that check the row is served, and the test fails. [`proto::ticket`] has a test of the same
//! kind for the checks of the ticket itself.

#![allow(clippy::unwrap_used)]

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use http_body::Frame;
use proto::{
    domain::{Bitfield, Manifest},
    pb::GetChunkRequest,
    ticket::Signer,
};
use testkit::content::{file_id, manifest};
use tokio::time::timeout;

use super::*;
use crate::{
    domain::upload,
    hashing::FileStamp,
    limiter::Limiter,
    ports::Problem,
    serve::{
        get_chunk::{Uploads, get_chunk},
        shares::Offer,
        slots::UploadSlots,
        watch::watch,
    },
    storage::PieceReader,
};

const DATA: &[u8] = b"a file of one piece";

fn own() -> PeerId {
    PeerId::from([1; 32])
}

/// A file in memory that can be replaced by another one.
struct Content {
    changed: AtomicBool,
}

impl PieceReader for Content {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&DATA[offset as usize..][..into.len()]);
        Ok(())
    }

    fn is_unchanged(&self, _: std::ops::Range<u64>) -> bool {
        !self.changed.load(Ordering::SeqCst)
    }

    fn is_cached(&self, _: u64, _: usize) -> bool {
        true
    }

    fn stamp(&self) -> Option<FileStamp> {
        None
    }
}

/// A peer that shares the files 1 and 2 in the group g1, which is in its fifth epoch. File 3 is withdrawn. File 5
/// is in the group g3, whose epoch is not known.
struct Scene {
    shares: Arc<Shares>,
    uploads: Arc<Uploads>,
    content: Arc<Content>,
    manifest: Arc<Manifest>,
    signer: Signer,
}

impl Scene {
    fn new() -> Self {
        let shares = Arc::new(Shares::default());
        let manifest = Arc::new(manifest("file", DATA));
        let content = Arc::new(Content { changed: AtomicBool::new(false) });
        for number in [1, 2, 3, 5] {
            shares.add(Offer {
                group: if number == 5 { g3() } else { "g1".parse().unwrap() },
                file: file_id(number),
                manifest: manifest.clone(),
                path: "f".into(),
                have: Bitfield::full(manifest.layout()),
                reader: content.clone(),
                wants_sources: false,
                folder: None,
                only: Vec::new(),
                problem: None,
            });
        }
        let signer = Signer::from_seed(&[7; 32]).unwrap();
        let admission = Arc::new(Admission::new(shares.clone()));
        admission.set_keys(vec![signer.verifying_key().clone()]);
        admission.raise_epochs(&[("g1".parse().unwrap(), 5)]);
        let slots = UploadSlots::new(upload::Options::default(), 0);
        let uploads = Uploads::new(admission, slots, Arc::new(Limiter::new(0)), Arc::default());
        let scene = Self { shares, uploads: Arc::new(uploads), content, manifest, signer };
        scene.withdraw(3);
        scene
    }

    fn admission(&self) -> &Arc<Admission> {
        &self.uploads.admission
    }

    fn share(&self, number: u8) -> Arc<Share> {
        self.shares.get(file_id(number)).unwrap()
    }

    fn withdraw(&self, number: u8) {
        self.share(number).withdraw(Problem { reason: Reason::FileChanged, message: "it changed".into() });
    }

    /// The claims of a ticket that became valid a while ago and stays valid for some minutes.
    fn claims(&self) -> Claims {
        let now = Trust::default().now();
        Claims {
            user: "bob".parse().unwrap(),
            group: "g1".parse().unwrap(),
            file: file_id(1),
            root: self.manifest.header().blake3,
            peer: own(),
            epoch: 5,
            issued: now - 1_000,
            not_before: now - 1_000,
            expires: now + 100,
            id: [0; 16],
        }
    }

    /// Requests the file with a ticket of these claims.
    fn ask(&self, peer: Option<PeerId>, claims: &Claims, number: u8) -> Result<Admitted, Reason> {
        let admitted = self.admission().admit(peer, &self.signer.sign(claims), file_id(number).as_bytes());
        admitted.map_err(|status| Reason::of(&status).unwrap())
    }

    fn admitted(&self) -> Admitted {
        self.ask(Some(own()), &self.claims(), 1).ok().unwrap()
    }

    fn get(&self) -> impl Stream<Item = Frame<Bytes>> + use<> {
        let request = GetChunkRequest { pieces: vec![0], ..Default::default() };
        get_chunk(self.uploads.clone(), self.admitted(), &request).unwrap()
    }
}

/// The reason that ends the stream here, if it ends here.
fn end(frame: Option<Frame<Bytes>>) -> Option<Reason> {
    let trailers = frame.unwrap().into_trailers().ok()?;
    Some(Reason::of(&Status::from_header_map(&trailers).unwrap()).unwrap())
}

#[test]
fn a_request_is_let_in_by_every_check_or_not_at_all() {
    let scene = Scene::new();
    let now = Trust::default().now();
    let refused = |peer, number, change: &dyn Fn(&mut Claims)| {
        let mut claims = scene.claims();
        change(&mut claims);
        scene.ask(peer, &claims, number).err()
    };
    let (own, other) = (Some(own()), Some(PeerId::from([2; 32])));
    assert_eq!(refused(own, 1, &|_| {}), None, "a good one");
    for (what, seen, expected) in [
        ("no certificate", refused(None, 1, &|_| {}), Reason::NoCertificate),
        ("another's certificate", refused(other, 1, &|_| {}), Reason::TicketMismatch),
        // Also shared: without the check it would be served.
        (
            "another file's ticket",
            refused(own, 1, &|claims| claims.file = file_id(2)),
            Reason::TicketMismatch,
        ),
        ("too early", refused(own, 1, &|claims| claims.not_before = now + 70), Reason::TicketInvalid),
        ("too late", refused(own, 1, &|claims| claims.expires = now - 70), Reason::TicketExpired),
        ("an epoch that is over", refused(own, 1, &|claims| claims.epoch = 4), Reason::StaleEpoch),
        ("a file not shared", refused(own, 4, &|claims| claims.file = file_id(4)), Reason::NotShared),
        ("a group it is not shared in", refused(own, 1, &|claims| claims.group = g2()), Reason::NotShared),
        ("other content", refused(own, 1, &|claims| claims.root = [9; 32].into()), Reason::NotShared),
        ("a group of unknown epoch", refused(own, 5, &|claims| of_file_5(claims)), Reason::NotServing),
        ("a file withdrawn", refused(own, 3, &|claims| claims.file = file_id(3)), Reason::FileChanged),
    ] {
        assert_eq!(seen, Some(expected), "{what}");
    }
    let stranger = Signer::from_seed(&[8; 32]).unwrap().sign(&scene.claims());
    let seen = scene.admission().admit(own, &stranger, file_id(1).as_bytes()).err();
    assert_eq!(
        seen.and_then(|status| Reason::of(&status)),
        Some(Reason::TicketInvalid),
        "a stranger's signature"
    );
}

fn g2() -> GroupId {
    "g2".parse().unwrap()
}

fn g3() -> GroupId {
    "g3".parse().unwrap()
}

fn of_file_5(claims: &mut Claims) {
    (claims.group, claims.file) = (g3(), file_id(5));
}

#[test]
fn a_group_is_served_only_while_the_tracker_tells_its_epoch() {
    let scene = Scene::new();
    let ask = |epoch| {
        let mut claims = Claims { epoch, ..scene.claims() };
        of_file_5(&mut claims);
        scene.ask(Some(own()), &claims, 5).err()
    };
    // The user joins the group. A member was removed before, in epoch 3.
    assert_eq!((ask(3), ask(4)), (Some(Reason::NotServing), Some(Reason::NotServing)));
    scene.admission().raise_epochs(&[(g3(), 4)]);
    assert_eq!((ask(3), ask(4)), (Some(Reason::StaleEpoch), None));
    // The user left the group, and joined it again before the next announce.
    let of_5 = scene.admission().set_epochs(&[("g1".parse().unwrap(), 5)]);
    assert!(of_5, "running calls may have lost their right");
    assert_eq!((ask(4), ask(5)), (Some(Reason::NotServing), Some(Reason::NotServing)));
    assert!(scene.admission().set_epochs(&[("g1".parse().unwrap(), 5), (g3(), 0)]), "0 is an epoch too");
    assert_eq!(ask(0), None);
    assert!(!scene.admission().set_epochs(&[("g1".parse().unwrap(), 4), (g3(), 0)]), "nothing has changed");
    assert_eq!(scene.ask(Some(own()), &scene.claims(), 1).err(), None);
}

#[test]
fn a_clock_that_is_off_by_more_than_ten_minutes_serves_nobody() {
    let scene = Scene::new();
    for (offset, expected) in [
        (600, None),
        (-600, None),
        (601, Some(Reason::ClockOff)),
        (-601, Some(Reason::ClockOff)),
        (i64::MIN, Some(Reason::ClockOff)),
        (i64::MAX, Some(Reason::ClockOff)),
        (0, None),
    ] {
        let (_, is_off) = scene.admission().set_clock_offset(offset);
        assert_eq!(is_off, expected.is_some(), "{offset}");
        // Valid by the tracker's clock, whatever this clock says.
        let now = scene.admission().trust.read().now();
        let claims = Claims { not_before: now, expires: now, ..scene.claims() };
        assert_eq!(scene.ask(Some(own()), &claims, 1).err(), expected, "{offset}");
    }
}

#[test]
fn the_trackers_time_goes_on_whatever_this_clock_is_set_to() {
    let mut clock = Clock::default();
    let at = Duration::from_secs;
    assert_eq!(clock.now(5_000, at(70)), 5_000, "nothing better is known");
    clock.report(30, 5_000, at(70));
    for local in [5_001, 1_001, 9_001] {
        assert_eq!(clock.now(local, at(71)), 5_031, "{local}");
    }
    clock.report(-2, 5_010, at(80));
    assert_eq!(clock.now(0, at(80)), 5_008, "the tracker's clock was set");
}

#[test]
fn after_a_restart_the_trackers_time_is_at_least_what_it_was() {
    let at = Duration::from_secs;
    let resumed = |offset, told, local| {
        let mut clock = Clock::default();
        clock.resume(KeptClock { offset, told }, local, at(70));
        [clock.now(local, at(70)), clock.now(0, at(73))]
    };
    assert_eq!(resumed(30, 5_030, 5_010), [5_040, 5_043], "this clock is still 30 seconds behind");
    assert_eq!(resumed(-30, 4_970, 5_010), [4_980, 4_983], "or ahead");
    assert_eq!(resumed(30, 5_030, 1_000), [5_030, 5_033], "it was set back");

    // The same with tickets. This clock is 300 seconds behind the tracker's.
    let scene = Scene::new();
    let (kept, _) = scene.admission().set_clock_offset(300);
    let claims = Claims { expires: Trust::default().now() + 200, ..scene.claims() };
    let expired = Some(Reason::TicketExpired);
    assert_eq!(scene.ask(Some(own()), &claims, 1).err(), expired, "100 seconds ago");
    scene.admission().resume_clock(Some(kept));
    assert_eq!(scene.ask(Some(own()), &claims, 1).err(), expired, "also after a restart");
    scene.admission().resume_clock(Some(KeptClock { offset: 601, ..kept }));
    assert_eq!(scene.ask(Some(own()), &claims, 1).err(), Some(Reason::ClockOff));
    scene.admission().resume_clock(None);
    assert_eq!(scene.ask(Some(own()), &claims, 1).err(), None, "nothing is known of the tracker's clock");
}

#[test]
fn running_calls_are_checked_again_after_a_change_and_only_then() {
    let scene = Scene::new();
    let admission = scene.admission();
    let (g1, mut watch) = (|epoch| ("g1".parse().unwrap(), epoch), admission.watch());
    let mut is_told = || {
        let told = watch.has_changed().unwrap();
        watch.mark_unchanged();
        told
    };
    assert!(!admission.set_epochs(&[g1(5)]) && !is_told(), "the same");
    assert!(admission.set_epochs(&[g1(6), (g3(), 1)]) && is_told(), "risen");
    assert!(admission.set_epochs(&[g1(6)]) && is_told(), "forgotten");
    admission.replace_epochs(vec![g1(5)]);
    assert!(is_told());
    assert_eq!(scene.ask(Some(own()), &scene.claims(), 1).err(), None, "replaced, not raised");
    for (offset, expected) in [(600, false), (601, true), (602, false), (0, false)] {
        admission.set_clock_offset(offset);
        assert_eq!(is_told(), expected, "{offset}");
    }
}

#[test]
fn this_machine_has_a_clock() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(local_time().abs_diff(now) < 3_600);
    assert!(since_boot() > Duration::ZERO);
}

#[test]
fn each_reason_to_refuse_is_explained() {
    let other = refusal(Reason::NoCertificate);
    for reason in [
        Reason::NotShared,
        Reason::FileChanged,
        Reason::PathNotFound,
        Reason::StaleEpoch,
        Reason::TicketExpired,
        Reason::TicketInvalid,
        Reason::ClockOff,
        Reason::NotServing,
        Reason::Corrupt,
        Reason::TooSlow,
    ] {
        assert_ne!(refusal(reason).message(), other.message(), "{reason:?}");
    }
}

/// A change after a request was admitted, and the reason that ends its stream.
type Change = (&'static str, fn(&Scene), Reason);

const CHANGES: &[Change] = &[
    ("the ticket ran out", |scene| _ = scene.admission().set_clock_offset(500), Reason::TicketExpired),
    ("the clock went off", |scene| _ = scene.admission().set_clock_offset(-601), Reason::ClockOff),
    (
        "a member was removed",
        |scene| _ = scene.admission().raise_epochs(&[("g1".parse().unwrap(), 6)]),
        Reason::StaleEpoch,
    ),
    ("this user left the group", |scene| _ = scene.admission().set_epochs(&[]), Reason::NotServing),
    ("it was withdrawn", |scene| scene.withdraw(1), Reason::FileChanged),
    ("it is shared no more", |scene| _ = scene.shares.remove(file_id(1)), Reason::NotShared),
];

#[tokio::test]
async fn what_changes_after_a_request_was_let_in_is_seen_before_the_first_piece() {
    let scene = Scene::new();
    assert_eq!(end(pin!(scene.get()).next().await), None, "data comes when nothing changes");
    let more: &[Change] = &[
        (
            "another file is there",
            |scene| scene.content.changed.store(true, Ordering::SeqCst),
            Reason::FileChanged,
        ),
        ("the piece can't be read any more", |scene| scene.share(1).lost(piece(scene)), Reason::NotShared),
    ];
    for (what, change, expected) in CHANGES.iter().chain(more) {
        let scene = Scene::new();
        // Nothing is sent before it is asked for, so each change comes before the first piece.
        let mut stream = pin!(scene.get());
        change(&scene);
        assert_eq!(end(stream.next().await), Some(*expected), "{what}");
    }
}

fn piece(scene: &Scene) -> proto::domain::PieceIndex {
    scene.manifest.layout().index(0).unwrap()
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_is_told_nothing_after_a_change() {
    for (what, change, expected) in CHANGES {
        let scene = Scene::new();
        let mut stream = pin!(watch(scene.admission().clone(), scene.admitted()));
        assert_eq!(end(stream.next().await), None, "{what}: what is held comes first");
        assert!(stream.next().now_or_never().is_none(), "{what}: nothing has changed yet");
        let before = tokio::time::Instant::now();
        change(&scene);
        // The time is checked every five seconds. The other changes are noticed at once.
        let slack = if *expected == Reason::TicketExpired { 6 } else { 0 };
        let next = timeout(Duration::from_secs(60), stream.next()).await;
        assert_eq!(end(next.expect(what)), Some(*expected), "{what}");
        assert!(before.elapsed() <= Duration::from_secs(slack), "{what}");
    }
    // A change of the pieces at the same moment is not sent either.
    for (what, change, expected) in CHANGES {
        let scene = Scene::new();
        let mut stream = pin!(watch(scene.admission().clone(), scene.admitted()));
        stream.next().await;
        scene.share(1).lost(piece(&scene));
        change(&scene);
        let next = timeout(Duration::from_secs(60), stream.next()).await;
        assert_eq!(end(next.expect(what)), Some(*expected), "{what}");
    }
}
