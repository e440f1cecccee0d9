//! Manifests of the largest possible file. They are valid, no other input is larger, and a user may have only
//! two of them.

use std::time::Duration;

use proto::{
    domain::{
        Blake3, PIECE_LENGTH,
        limits::{MANIFEST_FRAME_PIECES, MAX_FILE_LENGTH, MAX_PIECES},
        manifest::RootFold,
    },
    pb::{self, get_manifest_response::Frame as Got, publish_file_request::Frame as Sent},
    reason::Reason,
};
use testkit::wait::eventually_within;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tracker_svc::store::sqlite::Sqlite;

use super::{
    client::{Client, refused},
    files::{ann_in_g1, publish, start},
};

/// More than the caches of the store's connections (10 MB) and the pending data of two streams (2 MiB)
/// together, and a seventh of the size of the two manifests.
const MOST: u64 = 32 << 20;

/// The hashes of a run of pieces, all different, as a message.
fn run(first: u32) -> pb::PieceHashes {
    let pieces = first..(first + MANIFEST_FRAME_PIECES as u32).min(MAX_PIECES);
    let (mut sha1, mut blake3) = (vec![1; pieces.len() * 20], vec![2; pieces.len() * 32]);
    for (piece, (sha1, blake3)) in pieces.zip(sha1.chunks_exact_mut(20).zip(blake3.chunks_exact_mut(32))) {
        sha1[..4].copy_from_slice(&piece.to_be_bytes());
        blake3[..32].copy_from_slice(&value(piece));
    }
    pb::PieceHashes { first_piece: first.into(), sha1: sha1.into(), blake3: blake3.into() }
}

fn value(piece: u32) -> [u8; 32] {
    let mut value = [2; 32];
    value[..4].copy_from_slice(&piece.to_be_bytes());
    value
}

fn header(name: &str, root: Blake3) -> pb::FileHeader {
    pb::FileHeader {
        name: name.into(),
        length: MAX_FILE_LENGTH,
        piece_length: PIECE_LENGTH,
        sha1: vec![3; 20].into(),
        blake3: root.as_bytes().to_vec().into(),
        folder: None,
    }
}

fn runs() -> impl Iterator<Item = pb::PieceHashes> {
    (0..MAX_PIECES).step_by(MANIFEST_FRAME_PIECES).map(run)
}

async fn send(client: &Client, header: pb::FileHeader) {
    let frames = runs().map(|run| pb::PublishFileRequest { frame: Some(Sent::Pieces(run)) });
    let frames = std::iter::once(start("g1", header)).chain(frames);
    client.files().publish_file(tokio_stream::iter(frames)).await.expect("it is listed");
}

async fn comes_back(client: &Client, header: pb::FileHeader) {
    let request = pb::GetManifestRequest { group_id: "g1".into(), name: header.name.clone() };
    let mut frames = client.files().get_manifest(request).await.unwrap().into_inner();
    let mut next = async || frames.message().await.unwrap().map(|message| message.frame.unwrap());
    let Some(Got::Start(start)) = next().await else { panic!("no start") };
    assert_eq!(start.header, Some(header));
    for run in runs() {
        let Some(Got::Pieces(got)) = next().await else { panic!("it ends at {}", run.first_piece) };
        assert!(got == run, "other hashes from {} on", run.first_piece);
    }
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn the_largest_manifests_come_and_go_in_little_memory() {
    let (tracker, ann) = ann_in_g1().await;
    let mut fold = RootFold::default();
    (0..MAX_PIECES).for_each(|piece| fold.push(Blake3::from(value(piece))));
    let root = fold.finish();
    publish(&ann, "g1", "small", b"What is taken once is not of interest.").await.unwrap();
    let base = tracker.peak_rss();
    tokio::join!(send(&ann, header("one", root)), send(&ann, header("two", root)));
    tokio::join!(comes_back(&ann, header("one", root)), comes_back(&ann, header("two", root)));
    let grown = tracker.peak_rss() - base;
    eprintln!("two manifests of 109 MB each, both ways: {grown} bytes more at the peak");
    assert!(grown <= MOST, "{grown} bytes");
    tracker.finish().await;
}

#[tokio::test]
async fn manifests_have_a_quota_that_unfinished_ones_count_for() {
    let (tracker, ann) = ann_in_g1().await;
    let store = Sqlite::open_beside(&tracker.data_dir()).await.unwrap();
    let base = tracker.rss();
    let claim = |n: u32| {
        let (sender, frames) = mpsc::channel(1);
        sender.try_send(start("g1", header(&format!("x{n}"), Blake3::from([4; 32])))).unwrap();
        let mut files = ann.files();
        let call =
            tokio::spawn(async move { files.publish_file(ReceiverStream::new(frames)).await.map(drop) });
        (sender, call)
    };
    // A result of too few hashes means that the quota had room for the whole claim.
    let fits = async || {
        let frames = [start("g1", header("y", Blake3::from([4; 32])))];
        let outcome = ann.files().publish_file(tokio_stream::iter(frames)).await;
        outcome.expect_err("it has no hashes").code() == Code::InvalidArgument
    };
    // 104 MiB of hashes each. Two of them fit into 256 MiB.
    let [(first, ended), (_second, gone)] = [claim(0), claim(1)];
    let patience = Duration::from_secs(8);
    let stored = async |n| {
        eventually_within(patience, "staged", async || store.manifests_stored().await.unwrap() == n).await;
    };
    stored(2).await;
    let (_third, call) = claim(2);
    let third = refused(call.await.unwrap(), Code::ResourceExhausted, "a third");
    assert_eq!(Reason::of(&third), Some(Reason::QuotaExceeded));
    assert!(tracker.rss() < base + (4 << 20));
    // Their quota is freed: at once for the one that was answered, and soon for the one whose client went
    // away.
    drop(first);
    refused(ended.await.unwrap(), Code::InvalidArgument, "no hashes");
    assert!(fits().await, "right after the answer");
    stored(1).await;
    let (fourth, _call) = claim(3);
    stored(2).await;
    assert!(!fits().await, "two again");
    gone.abort();
    eventually_within(patience, "the quota of the one that is gone", fits).await;
    drop(fourth);
    tracker.finish().await;
}
