//! Manifests of the largest file that there may be: nothing is wrong with them, and nothing weighs more.

use proto::{
    domain::{
        Blake3, PIECE_LENGTH,
        limits::{MANIFEST_FRAME_PIECES, MAX_FILE_LENGTH, MAX_PIECES},
        manifest::RootFold,
    },
    pb::{self, get_manifest_response::Frame as Got, publish_file_request::Frame as Sent},
};

use super::{
    client::Client,
    files::{ann_in_g1, publish, start},
};

/// More than the caches of the store's five connections (10 MB) and what two streams have under way (2 MiB) come to,
/// and a seventh of what the two manifests weigh.
const MOST: u64 = 32 << 20;

/// Hashes of so many pieces, each another, as they go over the wire.
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
    let blake3 = fold.finish().as_bytes().to_vec();
    let header = |name: &str| pb::FileHeader {
        name: name.into(),
        length: MAX_FILE_LENGTH,
        piece_length: PIECE_LENGTH,
        sha1: vec![3; 20].into(),
        blake3: blake3.clone().into(),
    };
    publish(&ann, "g1", "small", b"What is taken once is not of interest.").await.unwrap();
    let base = tracker.peak_rss();
    tokio::join!(send(&ann, header("one")), send(&ann, header("two")));
    tokio::join!(comes_back(&ann, header("one")), comes_back(&ann, header("two")));
    let grown = tracker.peak_rss() - base;
    eprintln!("two manifests of 109 MB each, both ways: {grown} bytes more at the peak");
    assert!(grown <= MOST, "{grown} bytes");
    tracker.finish().await;
}
