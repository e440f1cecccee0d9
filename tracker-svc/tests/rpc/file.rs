//! FileService: the effect of each RPC and every status that it returns.

use std::time::Duration;

use crate::rights::Connection;
use prost::Message as _;
use proto::{
    convert,
    domain::{FileHeader, Manifest, PIECE_LENGTH, manifest::Assembler, names::fold},
    pb::*,
    reason::Reason,
};
use testkit::{
    client::{Client, failed, refused},
    content::{frames, imagined, manifest, pieces_frame, start_frame},
    tracker::Tracker,
    wait::eventually,
};
use tonic::{Code, Status};
use tracker_svc::store::Log as _;

async fn list(user: &Client, group: &str) -> Result<Vec<File>, Status> {
    let request = ListFilesRequest { group_id: group.into(), ..Default::default() };
    Ok(user.files().list_files(request).await?.into_inner().files)
}

async fn get(user: &Client, group: &str, name: &str) -> Result<(Vec<u8>, Manifest), Status> {
    let request = GetManifestRequest { group_id: group.into(), name: name.into() };
    let mut stream = user.files().get_manifest(request).await?.into_inner();
    let Some(get_manifest_response::Frame::Start(start)) = stream.message().await?.and_then(|m| m.frame)
    else {
        panic!("the first frame must be `start`");
    };
    let header = FileHeader::try_from(start.header.expect("a header")).expect("a good header");
    let mut assembler = Assembler::new(header);
    while let Some(message) = stream.message().await? {
        let Some(get_manifest_response::Frame::Pieces(run)) = message.frame else {
            panic!("`start` may be sent only once")
        };
        let hashes = convert::piece_hashes(&run).expect("a good run");
        assembler.push(run.first_piece, &hashes).expect("the next run");
    }
    Ok((start.file_id.to_vec(), assembler.finish().expect("a whole manifest")))
}

async fn unpublish(user: &Client, group: &str, name: &str) -> Result<(), Status> {
    let request = UnpublishFileRequest { group_id: group.into(), name: name.into() };
    user.files().unpublish_file(request).await.map(drop)
}

/// The number of stored manifests, bound or not.
async fn manifests(tracker: &Tracker) -> u64 {
    tracker.store.manifests_stored().await.expect("a number")
}

struct Scene {
    tracker: Tracker,
    ann: Client,
    bob: Client,
    eve: Client,
}

/// A group `g1` that ann owns, with bob as a member. Eve is an outsider.
async fn scene() -> Scene {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.found("g1", &[]).await;
    ann.admit("g1", &bob).await;
    Scene { tracker, ann, bob, eve }
}

#[tokio::test]
async fn a_file_beyond_a_quota_is_refused_with_figures() {
    let quotas = [("max_group_bytes", "1500"), ("max_user_files", "2")];
    let tracker = Tracker::start_with(&quotas).await;
    let ann = tracker.user("ann").await;
    ann.found("g1", &[]).await;
    ann.found("g2", &[]).await;
    ann.publish("g1", &manifest("one", &[1; 1000])).await.expect("listed");
    let bytes = refused(ann.publish("g1", &manifest("two", &[2; 501])).await, Reason::QuotaExceeded);
    assert_eq!(
        bytes.message(),
        "group g1 may list 1.5 KiB; 1000 B are listed and two has 501 B; unpublish something or ask the operator"
    );
    ann.replace("g1", &manifest("one", &[3; 1500])).await.expect("it replaces the 1,000 bytes");
    ann.publish("g2", &manifest("two", b"x")).await.expect("listed");
    let files = refused(ann.publish("g2", &manifest("three", b"x")).await, Reason::QuotaExceeded);
    assert!(files.message().starts_with("user ann may list 2 files; 2 are listed"), "{files:?}");
    unpublish(&ann, "g1", "one").await.expect("unlisted");
    ann.publish("g2", &manifest("three", b"x")).await.expect("there is room again");
}

#[tokio::test]
async fn published_files_are_visible_to_members_only() {
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
    // An outsider learns nothing, whether or not the file exists.
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
    // All pieces are the same, in three rows of hashes. This avoids hashing 4.7 GB.
    let long = imagined("long", 9_000 * u64::from(PIECE_LENGTH));
    ann.publish("g1", &long).await.expect("listed");
    assert_eq!(get(&bob, "g1", "long").await.expect("a manifest").1, long);
}

#[tokio::test]
async fn the_same_content_may_be_published_again_and_other_content_may_not() {
    let Scene { tracker, ann, bob, .. } = scene().await;
    let file = manifest("a", &vec![1; 600_000]);
    let first = ann.publish("g1", &file).await.expect("listed");
    let again = bob.publish("g1", &file).await.expect("the same");
    assert_eq!((again.file_id, again.already_published), (first.file_id, true));
    refused(bob.publish("g1", &manifest("a", b"other")).await, Reason::AlreadyExists);
    refused(bob.publish("g1", &manifest("A", &vec![1; 600_000])).await, Reason::AlreadyExists);
    // The same root with another SHA-1 of a piece makes another manifest.
    let mut lie = frames("g1", &file);
    if let Some(publish_file_request::Frame::Pieces(run)) = &mut lie[1].frame {
        run.sha1 = vec![0; run.sha1.len()].into();
    }
    refused(bob.send_frames(lie).await, Reason::AlreadyExists);
    bob.publish("g1", &manifest("b", &vec![1; 600_000])).await.expect("the same content, another name");
    assert_eq!(manifests(&tracker).await, 2);
}

#[tokio::test]
async fn concurrent_publications_of_one_file_get_one_id() {
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
        let status = ann.send_frames(frames).await.expect_err(what);
        assert_eq!(Reason::of(&status), Some(reason), "{what}: {status:?}");
    }
    refused(ann.send_frames(swapped).await, Reason::InvalidManifest);
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
        let start = PublishStart { group_id: "g1".into(), header: Some(header), ..Default::default() };
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
        refused(ann.send_frames(with(change)).await, Reason::InvalidRequest);
    }
    for change in [
        (|header| header.name = String::new()) as fn(&mut proto::pb::FileHeader),
        |header| header.name = "..".into(),
        |header| header.name = "a/b".into(),
        |header| header.name = "nul.txt".into(),
        |header| header.name = "gpj\u{202e}.exe".into(),
        |header| header.name = "x".repeat(256),
    ] {
        refused(ann.send_frames(with(change)).await, Reason::InvalidName);
    }
    let missing = PublishStart { group_id: "g1".into(), header: None, ..Default::default() };
    let frame = publish_file_request::Frame::Start(missing);
    refused(ann.send_frames(vec![PublishFileRequest { frame: Some(frame) }]).await, Reason::InvalidRequest);
}

#[tokio::test]
async fn claims_of_huge_files_cost_nothing_and_oversize_frames_are_refused() {
    let Scene { tracker, ann, .. } = scene().await;
    let mut header: proto::pb::FileHeader = manifest("f", b"abc").header().into();
    header.length = 1 << 40;
    let start = PublishStart { group_id: "g1".into(), header: Some(header), ..Default::default() };
    let start = PublishFileRequest { frame: Some(publish_file_request::Frame::Start(start)) };
    refused(ann.send_frames(vec![start.clone()]).await, Reason::InvalidManifest);
    let huge = PieceHashes { first_piece: 0, sha1: vec![0; 400 << 10].into(), blake3: vec![].into() };
    let status = failed(ann.send_frames(vec![start, pieces_frame(huge)]).await, Code::OutOfRange);
    assert_eq!(Reason::of(&status), Some(Reason::OutOfRange));
    eventually("what was staged is swept away", async || manifests(&tracker).await == 0).await;
}

#[tokio::test]
async fn a_silent_or_disconnected_client_is_not_waited_for() {
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
async fn an_unread_manifest_blocks_nobody() {
    let Scene { tracker, ann, .. } = scene().await;
    ann.publish("g1", &manifest("f", &vec![3; 4 * PIECE_LENGTH as usize])).await.expect("listed");
    let stalled = Connection::new(&tracker).await;
    let request = GetManifestRequest { group_id: "g1".into(), name: "f".into() }.encode_to_vec();
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(stalled.call(&ann, "/minitorrent.v1.FileService/GetManifest", &request, false).await);
    }
    // The other clients are answered throughout, long before the stalled calls are reset.
    for _ in 0..5 {
        tracker.login("ann").await;
        assert_eq!(list(&ann, "g1").await.expect("a list").len(), 1);
        get(&ann, "g1", "f").await.expect("a manifest");
    }
    tracker.store.probe().await.expect("healthy");
    drop(streams);
}

#[tokio::test]
async fn publisher_and_owner_unlist_others_do_not() {
    let Scene { tracker, ann, bob, .. } = scene().await;
    let cyd = tracker.user("cyd").await;
    ann.admit("g1", &cyd).await;
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
    ann.remove("g1", "bob").await.expect("removed");
    assert_eq!(list(&cyd, "g1").await.expect("a list")[0].publisher, "bob");
}

#[tokio::test]
async fn publisher_and_owner_replace_a_file_and_others_do_not() {
    let Scene { tracker, ann, bob, eve } = scene().await;
    let cyd = tracker.user("cyd").await;
    ann.admit("g1", &cyd).await;
    let version = |byte: u8| manifest("f", &vec![byte; 600_000 + usize::from(byte)]);
    let first = bob.replace("g1", &version(1)).await.expect("there was nothing to replace");
    assert!(!first.replaced && !first.already_published);
    refused(cyd.replace("g1", &version(2)).await, Reason::NotTheOwner);
    refused(eve.replace("g1", &version(2)).await, Reason::NotAMember);
    refused(bob.publish("g1", &version(2)).await, Reason::AlreadyExists);
    refused(bob.replace("g1", &manifest("F", b"other")).await, Reason::AlreadyExists);
    // The same content is the same file, whoever sends it.
    for user in [&bob, &cyd] {
        let again = user.replace("g1", &version(1)).await.expect("the same");
        assert_eq!((again.file_id.clone(), again.already_published), (first.file_id.clone(), true));
    }
    let second = bob.replace("g1", &version(2)).await.expect("his own");
    assert!(second.replaced && second.file_id != first.file_id);
    let third = ann.replace("g1", &version(3)).await.expect("the owner may");
    assert!(third.replaced);
    assert_eq!(get(&cyd, "g1", "f").await.expect("listed"), (third.file_id.to_vec(), version(3)));
    let listed = list(&cyd, "g1").await.expect("a list");
    assert_eq!((listed.len(), listed[0].publisher.as_str()), (1, "ann"));
    // The owner published this version, so bob may not replace it any more.
    refused(bob.replace("g1", &version(4)).await, Reason::NotTheOwner);
    eventually("the old hashes are swept away", async || manifests(&tracker).await == 1).await;
    let actions = tracker.store.audit(std::time::UNIX_EPOCH, 0, 1_000).await.expect("the audit log");
    let replaced = actions.iter().filter(|row| row.action == "replace_file" && row.object == "g1/f");
    assert_eq!(replaced.count(), 2);
}

#[tokio::test]
async fn of_replacements_at_once_one_stays() {
    let Scene { tracker, ann, bob, .. } = scene().await;
    let version = |byte: u8| manifest("f", &vec![byte; 600_000]);
    bob.publish("g1", &version(100)).await.expect("listed");
    let versions: Vec<Manifest> = (0..8).map(version).collect();
    let tries = versions.iter().map(|version| ann.replace("g1", version));
    let ids: Vec<Vec<u8>> = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .map(|replaced| replaced.expect("the owner may").file_id.to_vec())
        .collect();
    let (id, there) = get(&bob, "g1", "f").await.expect("one is listed");
    let winner = ids.iter().position(|one| *one == id).expect("one of them");
    assert_eq!(there, versions[winner]);
    assert_eq!(list(&bob, "g1").await.expect("a list").len(), 1);
    eventually("the other hashes are swept away", async || manifests(&tracker).await == 1).await;
}

/// Renames a group and its file, as if an earlier version had accepted the names.
fn rename(tracker: &Tracker, group: [&str; 2], file: [&str; 2]) {
    let database = rusqlite::Connection::open(tracker.data_dir().join("tracker.db")).expect("the database");
    for (table, [before, now]) in [("groups", group), ("files", file)] {
        let sql = format!("UPDATE {table} SET name = ?2, folded = ?3 WHERE name = ?1");
        let renamed = database.execute(&sql, [before, now, &fold(now)]);
        assert_eq!(renamed.expect("renamed"), 1);
    }
}

#[tokio::test]
async fn a_group_and_a_file_of_an_earlier_rule_for_names_can_be_acted_on() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    ann.create_group("g1").await.expect("a group");
    ann.publish("g1", &manifest("f", b"bytes")).await.expect("published");
    let (group, name) = ("p\u{430}ypal", "a\u{3000}b");
    rename(&tracker, ["g1", group], ["f", name]);
    ann.admit(group, &bob).await;
    let (_, fetched) = get(&bob, group, name).await.expect("a manifest");
    assert_eq!(fetched.header().name.as_str(), name);
    // The same file again is confirmed. Another file may not have such a name.
    assert!(ann.publish(group, &fetched).await.expect("there already").already_published);
    let mut start = start_frame(group, fetched.header());
    if let Some(publish_file_request::Frame::Start(start)) = &mut start.frame {
        start.header.as_mut().expect("a header").name = "c\u{3000}d".into();
    }
    refused(ann.send_frames(vec![start]).await, Reason::InvalidName);
    ann.remove(group, "bob").await.expect("removed");
    refused(get(&bob, group, name).await, Reason::NotAMember);
    unpublish(&ann, group, name).await.expect("unpublished");
    assert!(list(&ann, group).await.expect("a list").is_empty());
    ann.delete_group(group).await.expect("deleted");
    tracker.stop().await;
}
