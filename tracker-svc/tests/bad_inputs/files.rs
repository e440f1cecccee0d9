//! Manifests: their names, numbers and hashes, and the stream that they come in.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use proto::{
    domain::{PIECE_LENGTH, PieceHash, limits::MANIFEST_FRAME_PIECES, manifest::RootFold},
    pb::{self, publish_file_request::Frame},
};
use testkit::content::{self, manifest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{
    client::{Client, HIDDEN, refused},
    frames::{Calls, message},
    process::Tracker,
};

const PUBLISH: &str = "/minitorrent.v1.FileService/PublishFile";
const MIB: u64 = 1 << 20;

/// The result of a publication: the file's id, and whether it was listed before.
type Published = Result<(Vec<u8>, bool), Status>;

pub(crate) fn start(group: &str, header: pb::FileHeader) -> pb::PublishFileRequest {
    let start = pb::PublishStart { group_id: group.into(), header: Some(header), ..Default::default() };
    pb::PublishFileRequest { frame: Some(Frame::Start(start)) }
}

fn run(first: u64, hashes: &[PieceHash]) -> pb::PublishFileRequest {
    let sha1: Vec<u8> = hashes.iter().flat_map(|hash| *hash.sha1.as_bytes()).collect();
    let blake3: Vec<u8> = hashes.iter().flat_map(|hash| *hash.blake3.as_bytes()).collect();
    let run = pb::PieceHashes { first_piece: first, sha1: sha1.into(), blake3: blake3.into() };
    pb::PublishFileRequest { frame: Some(Frame::Pieces(run)) }
}

/// Made-up hashes, all different, and the header that they fold into.
fn imagined(name: &str, length: u64) -> (pb::FileHeader, Vec<PieceHash>) {
    let manifest = content::imagined(name, length);
    (manifest.header().into(), manifest.pieces().to_vec())
}

fn header(name: &str, length: u64, hashes: &[PieceHash]) -> pb::FileHeader {
    let mut fold = RootFold::default();
    for hash in hashes {
        fold.push(hash.blake3);
    }
    pb::FileHeader {
        name: name.into(),
        length,
        piece_length: PIECE_LENGTH,
        sha1: vec![3; 20].into(),
        blake3: fold.finish().as_bytes().to_vec().into(),
        folder: None,
    }
}

/// A file without bytes.
pub(crate) fn empty(name: &str) -> pb::FileHeader {
    header(name, 0, &[])
}

/// All frames of a publication.
fn frames(group: &str, header: pb::FileHeader, hashes: &[PieceHash]) -> Vec<pb::PublishFileRequest> {
    let runs = hashes.chunks(MANIFEST_FRAME_PIECES).zip(0..);
    let runs = runs.map(|(hashes, n)| run(n * MANIFEST_FRAME_PIECES as u64, hashes));
    std::iter::once(start(group, header)).chain(runs).collect()
}

async fn send(client: &Client, frames: Vec<pb::PublishFileRequest>) -> Published {
    let answer = client.send_frames(frames).await?;
    Ok((answer.file_id.to_vec(), answer.already_published))
}

/// Publishes these bytes.
pub(crate) async fn publish(
    client: &Client,
    group: &str,
    name: &str,
    content: &[u8],
) -> Result<Vec<u8>, Status> {
    let published = client.publish(group, &manifest(name, content)).await?;
    Ok(published.file_id.to_vec())
}

async fn listed(client: &Client, group: &str) -> Vec<String> {
    let request = pb::ListFilesRequest { group_id: group.into(), ..Default::default() };
    let files = client.files().list_files(request).await.unwrap().into_inner().files;
    files.into_iter().map(|file| file.header.unwrap().name).collect()
}

/// A tracker, and a user with a group.
pub(crate) async fn ann_in_g1() -> (Tracker, Client) {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    ann.create_group("g1").await.unwrap();
    (tracker, ann)
}

#[tokio::test]
async fn bad_file_names_are_not_listed() {
    let (tracker, ann) = ann_in_g1().await;
    let (long, heavy) = ("x".repeat(256), "\u{1f600}".repeat(255));
    for name in HIDDEN.iter().copied().chain([
        "",
        ".",
        "..",
        "/etc/passwd",
        "a/b",
        "../x",
        "a\\b",
        "C:x",
        "\\\\h\\s",
        "a\0",
        "a\nb",
        "a\r",
        "a\tb",
        "\u{7f}",
        "\u{85}",
        "a\u{1b}[31m",
        "\u{202e}gpj.exe",
        "a\u{200b}",
        "\u{feff}a",
        "a\u{2066}b",
        "CON",
        "nul.txt",
        "a.",
        "a ",
        " a",
        ".minitorrent",
        ".minitorrent-x.part",
        &long,
        &heavy,
    ]) {
        let (mut header, hashes) = imagined("x", 1);
        header.name = name.into();
        refused(send(&ann, frames("g1", header, &hashes)).await, Code::InvalidArgument, name);
        let get = pb::GetManifestRequest { group_id: "g1".into(), name: name.into() };
        // A file of an earlier rule for names may have such a name, so it can be asked for.
        let code = ann.files().get_manifest(get).await.map(drop).unwrap_err().code();
        assert!(matches!(code, Code::InvalidArgument | Code::NotFound), "{name:?}: {code:?}");
    }
    assert!(listed(&ann, "g1").await.is_empty());
    publish(&ann, "g1", &"x".repeat(255), b"bytes").await.expect("the longest name");
    tracker.finish().await;
}

#[tokio::test]
async fn a_name_that_is_no_text_is_refused() {
    let (tracker, ann) = ann_in_g1().await;
    let (header, _) = imagined("SLOT", 1);
    let mut bytes = start("g1", header).encode_to_vec();
    let at = bytes.windows(4).position(|window| window == b"SLOT").unwrap();
    bytes[at..at + 4].copy_from_slice(b"\xff\xfe\xc0\x80");
    refused(Err::<(), _>(ann.raw(PUBLISH, vec![bytes]).await), Code::InvalidArgument, "not UTF-8");
    tracker.finish().await;
}

#[tokio::test]
async fn names_that_look_alike_count_as_one() {
    let (tracker, ann) = ann_in_g1().await;
    let same = [
        ("A", "a"),
        ("straße", "STRASSE"),
        ("\u{ff42}", "b"),
        ("\u{fb01}n", "FIN"),
        ("\u{2764}", "\u{2764}\u{fe0f}"),
        ("می\u{200c}خواهم", "میخواهم"),
    ];
    for (first, second) in same {
        publish(&ann, "g1", first, first.as_bytes()).await.unwrap();
        refused(publish(&ann, "g1", second, second.as_bytes()).await, Code::AlreadyExists, second);
    }
    publish(&ann, "g1", "caf\u{e9}", b"composed").await.unwrap();
    let (mut header, hashes) = imagined("x", 1);
    header.name = "cafe\u{301}".into();
    refused(send(&ann, frames("g1", header, &hashes)).await, Code::InvalidArgument, "decomposed");
    tracker.finish().await;
}

#[tokio::test]
async fn impossible_numbers_are_refused_before_memory_is_taken() {
    let (tracker, ann) = ann_in_g1().await;
    let (_, one) = imagined("x", 1);
    // The first calls warm caches up.
    for _ in 0..20 {
        send(&ann, frames("g1", imagined("x", 0).0, &one)).await.unwrap_err();
    }
    let base = tracker.rss();
    for length in [u64::MAX, 1 << 63, (1 << 40) + 1, 1 << 41] {
        let header = pb::FileHeader { length, ..imagined("x", 1).0 };
        refused(send(&ann, frames("g1", header, &one)).await, Code::InvalidArgument, length);
    }
    // The maximum number of pieces is claimed, and one is sent.
    for _ in 0..20 {
        let header = pb::FileHeader { length: 1 << 40, ..imagined("x", 1).0 };
        refused(send(&ann, frames("g1", header, &one)).await, Code::InvalidArgument, "a short list");
    }
    for (length, hashes) in [(0, 1), (1, 0), (1, 2), (u64::from(PIECE_LENGTH) + 1, 1), (MIB, 3), (MIB, 1)] {
        let hashes = vec![one[0]; hashes];
        let header = header("x", length, &hashes);
        refused(
            send(&ann, frames("g1", header, &hashes)).await,
            Code::InvalidArgument,
            (length, hashes.len()),
        );
    }
    for piece_length in [0, 1, PIECE_LENGTH - 1, PIECE_LENGTH + 1, u32::MAX] {
        let header = pb::FileHeader { piece_length, ..imagined("x", 1).0 };
        refused(send(&ann, frames("g1", header, &one)).await, Code::InvalidArgument, piece_length);
    }
    for first in [1, 1 << 45, u64::MAX] {
        let frames = vec![start("g1", imagined("x", 1).0), run(first, &one)];
        refused(send(&ann, frames).await, Code::InvalidArgument, first);
    }
    let grown = tracker.rss().saturating_sub(base);
    assert!(grown <= MIB, "{grown} bytes for what was refused");
    assert!(listed(&ann, "g1").await.is_empty());
    tracker.finish().await;
}

#[tokio::test]
async fn hashes_of_a_wrong_size_or_root_are_refused() {
    let (tracker, ann) = ann_in_g1().await;
    let (header, hashes) = imagined("x", 2 * MIB);
    for (sha1, blake3) in [(19, 32), (21, 32), (0, 32), (20, 31), (20, 33), (20, 0), (40, 32), (0, 0)] {
        let hashes =
            pb::PieceHashes { first_piece: 0, sha1: vec![1; sha1].into(), blake3: vec![1; blake3].into() };
        let frames =
            vec![start("g1", header.clone()), pb::PublishFileRequest { frame: Some(Frame::Pieces(hashes)) }];
        refused(send(&ann, frames).await, Code::InvalidArgument, (sha1, blake3));
    }
    let bytes = |length: usize| Bytes::from(vec![5; length]);
    for header in [
        pb::FileHeader { sha1: bytes(19), ..header.clone() },
        pb::FileHeader { sha1: bytes(0), ..header.clone() },
        pb::FileHeader { blake3: bytes(31), ..header.clone() },
        pb::FileHeader { blake3: bytes(33), ..header.clone() },
        // The right size, but not the root that the pieces fold into.
        pb::FileHeader { blake3: bytes(32), ..header.clone() },
    ] {
        refused(send(&ann, frames("g1", header.clone(), &hashes)).await, Code::InvalidArgument, header);
    }
    let mut swapped = hashes.clone();
    swapped.swap(0, 1);
    refused(
        send(&ann, frames("g1", header.clone(), &swapped)).await,
        Code::InvalidArgument,
        "in another order",
    );
    send(&ann, frames("g1", header, &hashes)).await.expect("as it should be");
    tracker.finish().await;
}

#[tokio::test]
async fn a_folder_of_an_impossible_shape_is_refused() {
    let (tracker, ann) = ann_in_g1().await;
    let (header, hashes) = imagined("x", 2 * MIB);
    let with = |files, index_length| pb::FileHeader {
        folder: Some(pb::FolderShape { files, index_length }),
        ..header.clone()
    };
    for header in [with(1_000_001, 1), with(1, 2 * MIB + 1), with(1, u64::MAX), with(u32::MAX, 0)] {
        refused(send(&ann, frames("g1", header.clone(), &hashes)).await, Code::InvalidArgument, header);
    }
    send(&ann, frames("g1", with(3, 100), &hashes)).await.expect("a possible shape");
    // The same bytes as a plain file are other content.
    refused(send(&ann, frames("g1", header.clone(), &hashes)).await, Code::AlreadyExists, "no folder");
    let get = pb::GetManifestRequest { group_id: "g1".into(), name: "x".into() };
    let start = ann.files().get_manifest(get).await.unwrap().into_inner().message().await.unwrap();
    let Some(pb::get_manifest_response::Frame::Start(start)) = start.and_then(|frame| frame.frame) else {
        panic!("the first frame is `start`");
    };
    assert_eq!(start.header.and_then(|header| header.folder), with(3, 100).folder);
    tracker.finish().await;
}

#[tokio::test]
async fn an_empty_file_and_one_of_equal_pieces_are_files() {
    let (tracker, ann) = ann_in_g1().await;
    publish(&ann, "g1", "empty", b"").await.unwrap();
    // 1 GiB of zeros: each piece has the same SHA-1.
    let (_, mut hashes) = imagined("sparse", 1 << 30);
    for hash in &mut hashes {
        hash.sha1 = [9; 20].into();
    }
    send(&ann, frames("g1", header("sparse", 1 << 30, &hashes), &hashes)).await.unwrap();
    for (name, pieces) in [("empty", 0), ("sparse", 2_048)] {
        let get = pb::GetManifestRequest { group_id: "g1".into(), name: name.into() };
        let mut frames = ann.files().get_manifest(get).await.unwrap().into_inner();
        let mut got = 0;
        while let Some(frame) = frames.message().await.unwrap() {
            if let Some(pb::get_manifest_response::Frame::Pieces(run)) = frame.frame {
                got += run.sha1.len() / 20;
            }
        }
        assert_eq!(got, pieces, "{name}");
    }
    tracker.finish().await;
}

#[tokio::test]
async fn frames_out_of_order_are_refused() {
    let (tracker, ann) = ann_in_g1().await;
    let (header, hashes) = imagined("x", 2 * MIB);
    let begin = || start("g1", header.clone());
    let nothing = pb::PublishFileRequest { frame: None };
    let headless = pb::PublishStart { group_id: "g1".into(), header: None, ..Default::default() };
    for (what, frames) in [
        ("no frame", vec![]),
        ("an empty frame", vec![nothing.clone()]),
        ("no header", vec![pb::PublishFileRequest { frame: Some(Frame::Start(headless)) }]),
        ("hashes first", vec![run(0, &hashes), begin()]),
        ("a second start", vec![begin(), begin(), run(0, &hashes)]),
        ("a gap", vec![begin(), run(1, &hashes[1..])]),
        ("the same again", vec![begin(), run(0, &hashes[..2]), run(0, &hashes[..2]), run(2, &hashes[2..])]),
        ("backwards", vec![begin(), run(2, &hashes[2..]), run(0, &hashes[..2])]),
        ("an empty run", vec![begin(), run(0, &[]), run(0, &hashes)]),
        ("an empty frame amid", vec![begin(), nothing, run(0, &hashes)]),
        ("cut short", vec![begin(), run(0, &hashes[..3])]),
        ("more than all", vec![begin(), run(0, &hashes), run(4, &hashes[..1])]),
        ("a run too long", vec![begin(), run(0, &vec![hashes[0]; MANIFEST_FRAME_PIECES + 1])]),
    ] {
        refused(send(&ann, frames).await, Code::InvalidArgument, what);
    }
    assert!(listed(&ann, "g1").await.is_empty());
    tracker.finish().await;
}

/// Slow: the tracker allows a publication 10 s between frames.
#[tokio::test]
async fn a_publication_that_stops_or_drips_is_given_up() {
    let (tracker, ann) = ann_in_g1().await;
    let (header, hashes) = imagined("x", 2 * MIB);
    let silent = {
        let (sender, frames) = mpsc::channel(4);
        sender.send(start("g1", header.clone())).await.unwrap();
        sender.send(run(0, &hashes[..1])).await.unwrap();
        let mut files = ann.files();
        tokio::spawn(async move {
            let outcome = files.publish_file(ReceiverStream::new(frames)).await;
            drop(sender);
            outcome
        })
    };
    // One byte of a frame per second: no frame is ever complete.
    let dripping = {
        let mut calls = Calls::connect(&tracker).await;
        let bytes = run(0, &hashes).encode_to_vec();
        let mut body = message(0, 0, &[]);
        body.truncate(0);
        let begin = start("g1", header).encode_to_vec();
        body.extend(message(0, u32::try_from(begin.len()).unwrap(), &begin));
        body.extend(message(0, u32::try_from(bytes.len()).unwrap(), &[]));
        let request = Calls::request(PUBLISH)
            .header("authorization", format!("Bearer {}", ann.token.as_deref().unwrap()));
        let (answer, mut stream) = calls.open(request, &body).await.unwrap();
        tokio::spawn(async move {
            let drip = async {
                for byte in bytes {
                    // The rate of the slow client.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if stream.send_data(Bytes::copy_from_slice(&[byte]), false).is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            let _calls = calls;
            tokio::select! {
                answer = answer => super::frames::answer_of(answer.unwrap()).await.unwrap(),
                () = drip => unreachable!("it never ends"),
            }
        })
    };
    let began = Instant::now();
    refused(silent.await.unwrap().map(drop), Code::DeadlineExceeded, "silence");
    assert_eq!(dripping.await.unwrap().code, Some(Code::DeadlineExceeded), "a drip");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(70), "{took:?}");
    assert!(listed(&ann, "g1").await.is_empty());
    tracker.finish().await;
}

#[tokio::test]
async fn publishing_the_same_again_succeeds_and_other_content_fails() {
    let (tracker, ann) = ann_in_g1().await;
    let bob = Client::user(&tracker, "bob").await;
    ann.found("g2", &[&bob]).await;
    let (header, hashes) = imagined("x", 2 * MIB);
    let first = send(&ann, frames("g2", header.clone(), &hashes)).await.unwrap();
    assert!(!first.1);
    let again = send(&bob, frames("g2", header.clone(), &hashes)).await.unwrap();
    assert_eq!(again, (first.0.clone(), true));
    refused(publish(&bob, "g2", "x", b"other bytes").await, Code::AlreadyExists, "other content");
    let elsewhere = send(&ann, frames("g1", header, &hashes)).await.unwrap();
    assert_ne!(elsewhere.0, first.0, "another group's file is another file");
    tracker.finish().await;
}

#[tokio::test]
async fn only_publisher_and_owner_unpublish() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let bob = Client::user(&tracker, "bob").await;
    let cat = Client::user(&tracker, "cat").await;
    ann.found("g1", &[&bob, &cat]).await;
    publish(&bob, "g1", "bobs", b"bobs").await.unwrap();
    publish(&bob, "g1", "bobs too", b"bobs too").await.unwrap();
    let take = |client: &Client, name: &str| {
        let request = pb::UnpublishFileRequest { group_id: "g1".into(), name: name.into() };
        let mut files = client.files();
        async move { files.unpublish_file(request).await }
    };
    refused(take(&cat, "bobs").await, Code::PermissionDenied, "another member's");
    refused(take(&cat, "none").await, Code::NotFound, "not there");
    take(&bob, "bobs").await.unwrap();
    take(&ann, "bobs too").await.unwrap();
    assert!(listed(&cat, "g1").await.is_empty());
    tracker.finish().await;
}
