//! FileService: what each RPC does and every status that it answers with.

use std::time::Duration;

use crate::support::{
    Tracker, User, eventually, failed, frames, manifest, pieces_frame, refused, start_frame,
};
use proto::{
    convert,
    domain::{
        FileHeader, Manifest, PIECE_LENGTH, PieceHash, PieceLayout,
        manifest::{Assembler, FileHasher},
    },
    pb::*,
    reason::Reason,
};
use tonic::{Code, Status};

async fn list(user: &User, group: &str) -> Result<Vec<File>, Status> {
    let request = ListFilesRequest { group_id: group.into(), ..Default::default() };
    Ok(user.files().list_files(request).await?.into_inner().files)
}

async fn get(user: &User, group: &str, name: &str) -> Result<(Vec<u8>, Manifest), Status> {
    let request = GetManifestRequest { group_id: group.into(), name: name.into() };
    let mut stream = user.files().get_manifest(request).await?.into_inner();
    let Some(get_manifest_response::Frame::Start(start)) = stream.message().await?.and_then(|m| m.frame)
    else {
        panic!("the first frame is to be `start`");
    };
    let header = FileHeader::try_from(start.header.expect("a header")).expect("a good header");
    let mut assembler = Assembler::new(header);
    while let Some(message) = stream.message().await? {
        let Some(get_manifest_response::Frame::Pieces(run)) = message.frame else {
            panic!("`start` comes once")
        };
        let hashes = convert::piece_hashes(&run).expect("a good run");
        assembler.push(run.first_piece, &hashes).expect("the next run");
    }
    Ok((start.file_id.to_vec(), assembler.finish().expect("a whole manifest")))
}

async fn unpublish(user: &User, group: &str, name: &str) -> Result<(), Status> {
    let request = UnpublishFileRequest { group_id: group.into(), name: name.into() };
    user.files().unpublish_file(request).await.map(drop)
}

async fn send(user: &User, frames: Vec<PublishFileRequest>) -> Result<PublishFileResponse, Status> {
    Ok(user.files().publish_file(tokio_stream::iter(frames)).await?.into_inner())
}

/// How many manifests are stored, bound or not.
async fn manifests(tracker: &Tracker) -> u64 {
    tracker.store.manifests_stored().await.expect("a number")
}

/// A manifest of so many pieces with made-up hashes that fold.
fn long_manifest(name: &str, pieces: u64) -> Manifest {
    let layout = PieceLayout::new(pieces * u64::from(PIECE_LENGTH)).expect("a length");
    let mut hasher = FileHasher::new(layout);
    for n in 0..pieces {
        let byte = n.to_le_bytes()[0];
        hasher.push(PieceHash { sha1: [byte; 20].into(), blake3: [byte; 32].into() }, b"");
    }
    hasher.finish(name.parse().expect("a file name")).expect("hashes that fold")
}

struct Scene {
    tracker: Tracker,
    ann: User,
    bob: User,
    eve: User,
}

/// A group `g1` of ann's with bob as a member, and eve outside.
async fn scene() -> Scene {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.group("g1").await;
    bob.join("g1", &ann).await;
    Scene { tracker, ann, bob, eve }
}

#[tokio::test]
async fn what_is_published_is_listed_and_handed_out_to_members_alone() {
    let Scene { tracker: _tracker, ann, bob, eve } = scene().await;
    let file = manifest("movie.mp4", &vec![7; 3 * PIECE_LENGTH as usize + 5]);
    let published = ann.publish("g1", &file).await.expect("listed");
    assert_eq!((published.file_id.len(), published.already_published), (16, false));
    let files = list(&bob, "g1").await.expect("a list");
    assert_eq!(files.len(), 1);
    let header = FileHeader::try_from(files[0].header.clone().expect("a header")).expect("a good one");
    assert_eq!((&header, files[0].publisher.as_str()), (file.header(), "ann"));
    assert_eq!((files[0].seeders, files[0].leechers), (0, 0));
    let (id, got) = get(&bob, "g1", "movie.mp4").await.expect("a manifest");
    assert_eq!((id, got), (published.file_id.to_vec(), file.clone()));
    refused(get(&bob, "g1", "other.mp4").await, Reason::FileNotFound);
    // An outsider learns nothing, whether or not there is something.
    let other = manifest("mine", b"x");
    for group in ["g1", "nowhere"] {
        refused(list(&eve, group).await, Reason::NotAMember);
        refused(unpublish(&eve, group, "movie.mp4").await, Reason::NotAMember);
        refused(eve.publish(group, &other).await, Reason::NotAMember);
        for name in ["movie.mp4", "other.mp4"] {
            refused(get(&eve, group, name).await, Reason::NotAMember);
        }
    }
    refused(list(&ann, "a/b").await, Reason::InvalidName);
    refused(get(&ann, "g1", "..").await, Reason::InvalidName);
}

#[tokio::test]
async fn empty_files_and_long_manifests_pass() {
    let Scene { tracker: _tracker, ann, bob, .. } = scene().await;
    let empty = manifest("empty", b"");
    ann.publish("g1", &empty).await.expect("listed");
    assert_eq!(get(&bob, "g1", "empty").await.expect("a manifest").1, empty);
    // All pieces alike, in three rows of hashes; made without hashing 4.7 GB.
    let long = long_manifest("long", 9_000);
    ann.publish("g1", &long).await.expect("listed");
    assert_eq!(get(&bob, "g1", "long").await.expect("a manifest").1, long);
}

#[tokio::test]
async fn the_same_content_again_is_fine_and_other_content_is_not() {
    let Scene { tracker, ann, bob, .. } = scene().await;
    let file = manifest("a", &vec![1; 600_000]);
    let first = ann.publish("g1", &file).await.expect("listed");
    let again = bob.publish("g1", &file).await.expect("the same");
    assert_eq!((again.file_id, again.already_published), (first.file_id, true));
    refused(bob.publish("g1", &manifest("a", b"other")).await, Reason::AlreadyExists);
    refused(bob.publish("g1", &manifest("A", &vec![1; 600_000])).await, Reason::AlreadyExists);
    // The same root with another SHA-1 of a piece is another manifest.
    let mut lie = frames("g1", &file);
    if let Some(publish_file_request::Frame::Pieces(run)) = &mut lie[1].frame {
        run.sha1 = vec![0; run.sha1.len()].into();
    }
    refused(send(&bob, lie).await, Reason::AlreadyExists);
    bob.publish("g1", &manifest("b", &vec![1; 600_000])).await.expect("the same content, another name");
    assert_eq!(manifests(&tracker).await, 2);
}

#[tokio::test]
async fn of_many_publishing_one_name_at_once_all_get_one_file() {
    let Scene { tracker, ann, bob, .. } = scene().await;
    let file = manifest("a", &vec![1; 600_000]);
    let tries = (0..8).map(|n| if n % 2 == 0 { ann.publish("g1", &file) } else { bob.publish("g1", &file) });
    let outcomes = futures_util::future::join_all(tries.collect::<Vec<_>>()).await;
    let published: Vec<_> = outcomes.into_iter().map(|outcome| outcome.expect("listed")).collect();
    assert_eq!(published.iter().filter(|published| !published.already_published).count(), 1);
    assert!(published.iter().all(|other| other.file_id == published[0].file_id));
    eventually("staged copies are swept away", async || manifests(&tracker).await == 1).await;
}

#[tokio::test]
async fn bad_frames_are_refused_and_leave_nothing() {
    let Scene { tracker, ann, .. } = scene().await;
    let file = manifest("f", &vec![3; 4 * PIECE_LENGTH as usize]);
    let good = frames("g1", &file);
    let run = |first: u64, from: usize, to: usize| {
        pieces_frame(convert::to_piece_hashes(first, &file.pieces()[from..to]))
    };
    let start = start_frame("g1", file.header());
    let bad: Vec<(&str, Vec<PublishFileRequest>, Reason)> = vec![
        ("no frame", vec![], Reason::InvalidRequest),
        ("no start", vec![good[1].clone()], Reason::InvalidRequest),
        ("an empty frame", vec![PublishFileRequest { frame: None }], Reason::InvalidRequest),
        ("two starts", vec![start.clone(), start.clone()], Reason::InvalidRequest),
        ("no hashes", vec![start.clone()], Reason::InvalidManifest),
        ("too few", vec![start.clone(), run(0, 0, 3)], Reason::InvalidManifest),
        ("a gap", vec![start.clone(), run(0, 0, 1), run(2, 2, 4)], Reason::InvalidManifest),
        ("twice", vec![start.clone(), run(0, 0, 2), run(0, 0, 2)], Reason::InvalidManifest),
        ("too many", vec![start.clone(), run(0, 0, 4), run(4, 0, 1)], Reason::InvalidManifest),
        ("far off", vec![start.clone(), run(u64::MAX, 0, 4)], Reason::InvalidManifest),
    ];
    let mixed = manifest("m", &[vec![1; PIECE_LENGTH as usize], vec![2; PIECE_LENGTH as usize]].concat());
    let swapped = vec![
        start_frame("g1", mixed.header()),
        pieces_frame(convert::to_piece_hashes(0, &[mixed.pieces()[1], mixed.pieces()[0]])),
    ];
    for (what, frames, reason) in bad {
        let status = send(&ann, frames).await.expect_err(what);
        assert_eq!(Reason::of(&status), Some(reason), "{what}: {status:?}");
    }
    refused(send(&ann, swapped).await, Reason::InvalidManifest);
    assert_eq!(list(&ann, "g1").await.expect("a list").len(), 0);
    eventually("what was staged is swept away", async || manifests(&tracker).await == 0).await;
    ann.publish("g1", &file).await.expect("the good one is listed");
}

#[tokio::test]
async fn bad_headers_are_refused() {
    let Scene { tracker: _tracker, ann, .. } = scene().await;
    let good: proto::pb::FileHeader = manifest("f", b"abc").header().into();
    let with = |change: fn(&mut proto::pb::FileHeader)| {
        let mut header = good.clone();
        change(&mut header);
        let start = PublishStart { group_id: "g1".into(), header: Some(header) };
        vec![PublishFileRequest { frame: Some(publish_file_request::Frame::Start(start)) }]
    };
    for change in [
        (|header| header.length = u64::MAX) as fn(&mut proto::pb::FileHeader),
        |header| header.length = 1 << 63,
        |header| header.length = (1 << 40) + 1,
        |header| header.piece_length = 0,
        |header| header.piece_length = 1 << 20,
        |header| header.sha1 = vec![0; 19].into(),
        |header| header.blake3 = vec![0; 31].into(),
    ] {
        refused(send(&ann, with(change)).await, Reason::InvalidRequest);
    }
    for change in [
        (|header| header.name = String::new()) as fn(&mut proto::pb::FileHeader),
        |header| header.name = "..".into(),
        |header| header.name = "a/b".into(),
        |header| header.name = "nul.txt".into(),
        |header| header.name = "gpj\u{202e}.exe".into(),
        |header| header.name = "x".repeat(256),
    ] {
        refused(send(&ann, with(change)).await, Reason::InvalidName);
    }
    let missing = PublishStart { group_id: "g1".into(), header: None };
    let frame = publish_file_request::Frame::Start(missing);
    refused(send(&ann, vec![PublishFileRequest { frame: Some(frame) }]).await, Reason::InvalidRequest);
}

#[tokio::test]
async fn claims_of_huge_files_cost_nothing_and_oversize_frames_are_refused() {
    let Scene { tracker, ann, .. } = scene().await;
    let mut header: proto::pb::FileHeader = manifest("f", b"abc").header().into();
    header.length = 1 << 40;
    let start = PublishStart { group_id: "g1".into(), header: Some(header) };
    let start = PublishFileRequest { frame: Some(publish_file_request::Frame::Start(start)) };
    refused(send(&ann, vec![start.clone()]).await, Reason::InvalidManifest);
    let huge = PieceHashes { first_piece: 0, sha1: vec![0; 400 << 10].into(), blake3: vec![].into() };
    let status = failed(send(&ann, vec![start, pieces_frame(huge)]).await, Code::OutOfRange);
    assert_eq!(Reason::of(&status), Some(Reason::OutOfRange));
    eventually("what was staged is swept away", async || manifests(&tracker).await == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_silent_or_away_is_not_waited_for() {
    let Scene { tracker, ann, .. } = scene().await;
    let file = manifest("f", &vec![3; 4 * PIECE_LENGTH as usize]);
    let silent = futures_util::StreamExt::chain(
        tokio_stream::iter(vec![start_frame("g1", file.header())]),
        tokio_stream::pending(),
    );
    let mut client = ann.files();
    let call = tokio::spawn(async move { client.publish_file(silent).await.map(drop) });
    eventually("the manifest is staged", async || manifests(&tracker).await == 1).await;
    call.abort();
    eventually("what was staged is swept away", async || manifests(&tracker).await == 0).await;
    let silent = futures_util::StreamExt::chain(
        tokio_stream::iter(vec![start_frame("g1", file.header())]),
        tokio_stream::pending(),
    );
    let call = tokio::time::timeout(Duration::from_secs(15), ann.files().publish_file(silent)).await;
    refused(call.expect("an end in time").map(drop), Reason::TooSlow);
    eventually("what was staged is swept away", async || manifests(&tracker).await == 0).await;
}

#[tokio::test]
async fn publisher_and_owner_unlist_others_do_not() {
    let Scene { tracker, ann, bob, .. } = scene().await;
    let cyd = tracker.user("cyd").await;
    cyd.join("g1", &ann).await;
    let (one, two) = (manifest("one", &vec![1; 600_000]), manifest("two", b"2"));
    let first = bob.publish("g1", &one).await.expect("listed");
    bob.publish("g1", &two).await.expect("listed");
    refused(unpublish(&cyd, "g1", "one").await, Reason::NotTheOwner);
    refused(unpublish(&cyd, "g1", "none").await, Reason::FileNotFound);
    unpublish(&bob, "g1", "one").await.expect("his own");
    unpublish(&ann, "g1", "two").await.expect("the owner may");
    refused(unpublish(&bob, "g1", "one").await, Reason::FileNotFound);
    refused(get(&bob, "g1", "one").await, Reason::FileNotFound);
    assert_eq!(list(&bob, "g1").await.expect("a list").len(), 0);
    eventually("hashes are swept away", async || manifests(&tracker).await == 0).await;
    let anew = bob.publish("g1", &one).await.expect("listed anew");
    assert_ne!(anew.file_id, first.file_id);
    // Files stay listed when their publisher leaves.
    ann.remove("g1", &bob).await;
    assert_eq!(list(&cyd, "g1").await.expect("a list")[0].publisher, "bob");
}

#[tokio::test]
async fn manifests_have_a_quota() {
    let Scene { tracker: _tracker, ann, .. } = scene().await;
    let mut header: proto::pb::FileHeader = manifest("f", b"abc").header().into();
    // 109,051,904 bytes of hashes each: two fit into 256 MiB.
    header.length = 1 << 40;
    let opened = |name: &str| {
        let header = proto::pb::FileHeader { name: name.into(), ..header.clone() };
        let start = PublishStart { group_id: "g1".into(), header: Some(header) };
        let start = PublishFileRequest { frame: Some(publish_file_request::Frame::Start(start)) };
        futures_util::StreamExt::chain(tokio_stream::iter(vec![start]), tokio_stream::pending())
    };
    let mut running = tokio::task::JoinSet::new();
    for name in ["a", "b", "c"] {
        let (mut client, frames) = (ann.files(), opened(name));
        running.spawn(async move { client.publish_file(frames).await.map(drop) });
    }
    let first = running.join_next().await.expect("three run").expect("no panic");
    refused(first, Reason::QuotaExceeded);
}
