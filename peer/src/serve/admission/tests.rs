//! Every check between a request and its bytes. Each row is good but in one respect, which one check alone is there for:
//! with that check taken out the row is served, and the test fails. The checks that read the ticket itself are in
//! [`proto::ticket`], which has such a test of its own.

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
use tokio::time::timeout;

use super::*;
use crate::{
    domain::upload,
    engine::Problem,
    hashing::FileStamp,
    limiter::Limiter,
    serve::{
        get_chunk::{Uploads, get_chunk},
        shares::Offer,
        slots::Slots,
        watch::watch,
    },
    storage::PieceReader,
    test_support::{file_id, manifest_of},
};

const DATA: &[u8] = b"a file of one piece";

fn own() -> PeerId {
    PeerId::from([1; 32])
}

/// A file in memory, which may become another.
struct Content {
    changed: AtomicBool,
}

impl PieceReader for Content {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&DATA[offset as usize..][..into.len()]);
        Ok(())
    }

    fn is_unchanged(&self) -> bool {
        !self.changed.load(Ordering::SeqCst)
    }

    fn is_cached(&self, _: u64, _: usize) -> bool {
        true
    }

    fn stamp(&self) -> Option<FileStamp> {
        None
    }
}

/// A peer that shares the files 1 and 2 in the group g1, which is in its fifth epoch, and file 3 just now not.
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
        let manifest = Arc::new(manifest_of(DATA));
        let content = Arc::new(Content { changed: AtomicBool::new(false) });
        for number in [1, 2, 3] {
            shares.add(Offer {
                group: "g1".parse().unwrap(),
                file: file_id(number),
                manifest: manifest.clone(),
                path: "f".into(),
                have: Bitfield::full(manifest.layout()),
                reader: content.clone(),
                wants_sources: false,
            });
        }
        let signer = Signer::from_seed(&[7; 32]).unwrap();
        let admission = Arc::new(Admission::new(shares.clone()));
        admission.set_keys(vec![signer.verifying_key().clone()]);
        admission.raise_epochs(&[("g1".parse().unwrap(), 5)]);
        let slots = Slots::new(upload::Options::default(), 0);
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

    /// Of a ticket that has counted for a while, and does for some minutes yet.
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

    /// Asks for the file with a ticket of these claims.
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

/// What ends the stream there, if it ends there.
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
        // Shared as well: without the check it would be sent.
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
        let is_off = scene.admission().set_clock_offset(offset);
        assert_eq!(is_off, expected.is_some(), "{offset}");
        // Good by the tracker's clock, whatever this one says.
        let now = scene.admission().read().now();
        let claims = Claims { not_before: now, expires: now, ..scene.claims() };
        assert_eq!(scene.ask(Some(own()), &claims, 1).err(), expected, "{offset}");
    }
}

/// What may change once a request was let in, and what its stream ends with then.
type Change = (&'static str, fn(&Scene), Reason);

const CHANGES: &[Change] = &[
    ("the ticket ran out", |scene| _ = scene.admission().set_clock_offset(500), Reason::TicketExpired),
    ("the clock went off", |scene| _ = scene.admission().set_clock_offset(-601), Reason::ClockOff),
    (
        "a member was removed",
        |scene| _ = scene.admission().raise_epochs(&[("g1".parse().unwrap(), 6)]),
        Reason::StaleEpoch,
    ),
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
        // Nothing is sent before it is asked for, so all of this comes before the first piece.
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
        // Time is looked at every five seconds; of the rest one hears.
        let slack = if *expected == Reason::TicketExpired { 6 } else { 0 };
        let next = timeout(Duration::from_secs(60), stream.next()).await;
        assert_eq!(end(next.expect(what)), Some(*expected), "{what}");
        assert!(before.elapsed() <= Duration::from_secs(slack), "{what}");
    }
    // What is gained in the same moment is not told either.
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
