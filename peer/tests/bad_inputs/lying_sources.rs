//! Sources that lie. Whatever a source sends, no wrong data is written, the source is reported, and another
//! source completes the download.

use peer::engine::{EngineConfig, SourceState};
use proto::reason::Reason;
use testkit::{
    content::PIECE,
    liar::{Liar, Lie},
    node::{until, until_complete},
    world::{SharedFile, World},
};

/// Downloads from a liar and from an honest source that is not fast, and reads the file meanwhile. `is_blamed` says whether the lie counts
/// against its source.
async fn completes_beside(lie: Lie, is_blamed: bool) {
    let (trust, file) = (World::new(), SharedFile::of_pieces(6));
    let liar = Liar::start(&trust, lie, &file).await;
    let honest_config = EngineConfig { upload_limit: 2 << 20, ..Default::default() };
    let honest = file.shared_by(&trust, honest_config).await;
    let leecher = file.peer(&trust, EngineConfig::default()).await;

    // The liar is alone at first, so that it is certainly asked.
    let (destination, mut view) = file.downloaded_by(&leecher, vec![liar.source()]).await;
    let mut reader = leecher.engine.read(file.id, 0..u64::MAX).unwrap();
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        while let Some(bytes) = reader.next().await.unwrap() {
            read.extend_from_slice(&bytes);
        }
        read
    });
    until(&mut view, |view| {
        liar.asked() > 0
            || view.sources.iter().any(|source| source.state == SourceState::Backoff)
            || view.state.is_final()
    })
    .await;
    leecher.engine.sources(file.id, vec![honest.source()], Vec::new());
    let end = until_complete(&mut view).await;

    assert!(std::fs::read(&destination).unwrap() == *file.content);
    assert!(reading.await.unwrap() == *file.content, "a reader got other bytes");
    assert_eq!(leecher.engine.stats().downloaded_bytes, file.content.len() as u64);
    let told = end.sources.iter().find(|source| source.peer == liar.peer).expect("the liar is named");
    // The pieces themselves are right. Only what follows them is wrong.
    let right = if lie == Lie::Endless { 2 * PIECE as u64 } else { 0 };
    assert!(told.bytes <= right, "nothing of it counted: {told:?}");
    assert_eq!(told.bad_pieces > 0, is_blamed, "{told:?}");
    assert!(told.bad_pieces < 2 || told.state == SourceState::Banned, "{told:?}");
    // Data that nobody wants is not received endlessly. Windows and buffers bound it.
    assert!(liar.taken() < 40 << 20, "{} bytes were taken from it", liar.taken());
    leecher.end().await;
    honest.end().await;
}

/// One test for each lie.
macro_rules! lies {
    ($($(#[$attribute:meta])* async fn $name:ident() -> $lie:expr, blamed: $blamed:literal;)+) => {
        $($(#[$attribute])* async fn $name() {
            completes_beside($lie, $blamed).await;
        })+
    };
}

lies! {
    #[tokio::test]
    async fn wrong_bytes() -> Lie::Noise, blamed: true;
    #[tokio::test]
    async fn one_wrong_byte() -> Lie::OneByte, blamed: true;
    #[tokio::test]
    async fn the_bytes_of_another_piece() -> Lie::AnotherPiece, blamed: true;
    #[tokio::test]
    async fn a_stream_that_ends_within_a_piece() -> Lie::Short, blamed: true;
    #[tokio::test]
    async fn half_of_each_piece() -> Lie::Halves, blamed: true;
    #[tokio::test]
    async fn the_first_half_twice() -> Lie::Repeated, blamed: true;
    #[tokio::test]
    async fn a_piece_without_end() -> Lie::Endless, blamed: true;
    #[tokio::test]
    async fn a_quarter_without_end() -> Lie::EndlessQuarters, blamed: true;
    #[tokio::test]
    async fn empty_messages_without_end() -> Lie::Empty, blamed: true;
    #[tokio::test]
    async fn a_piece_that_was_not_asked_for() -> Lie::NotAsked, blamed: true;
    #[tokio::test]
    async fn the_index_after_the_last() -> Lie::Index(6), blamed: true;
    #[tokio::test]
    async fn the_largest_index() -> Lie::Index(u64::MAX), blamed: true;
    #[tokio::test]
    async fn an_offset_of_one() -> Lie::Offset(1), blamed: true;
    #[tokio::test]
    async fn an_offset_before_the_start() -> Lie::Offset(0_u64.wrapping_sub(7)), blamed: true;
    #[tokio::test]
    async fn the_largest_offset() -> Lie::Offset(u64::MAX), blamed: true;
    #[tokio::test]
    async fn chunks_that_are_too_large() -> Lie::Large, blamed: true;
    #[tokio::test]
    async fn an_error_midway() -> Lie::ErrorMidway, blamed: false;
    #[tokio::test]
    async fn a_byte_now_and_then() -> Lie::Drip, blamed: false;
    #[tokio::test]
    async fn silence() -> Lie::Silent, blamed: false;
    #[tokio::test]
    async fn a_queue_that_never_moves() -> Lie::Queued, blamed: false;
    #[tokio::test]
    async fn errors_of_every_kind() -> Lie::Refuses, blamed: false;
    #[tokio::test]
    async fn availability_that_is_no_bitfield() -> Lie::BadBitfield, blamed: false;
    #[tokio::test]
    async fn a_stream_without_a_status() -> Lie::NoStatus, blamed: false;
    #[tokio::test]
    async fn bytes_that_are_no_messages() -> Lie::Garbage, blamed: true;
}

/// When all sources lie, the download reports it, and nothing appears under the file's name.
#[tokio::test]
async fn a_download_from_liars_alone_writes_nothing_and_reports_it() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(4));
    let leecher = file.peer(&trust, EngineConfig::default()).await;
    let liars =
        [Liar::start(&trust, Lie::Noise, &file).await, Liar::start(&trust, Lie::OneByte, &file).await];
    let sources = liars.iter().map(Liar::source).collect();
    let (destination, mut view) = file.downloaded_by(&leecher, sources).await;
    let seen = until(&mut view, |view| view.all_banned && view.problem.is_some()).await;
    assert_eq!(seen.problem.unwrap().reason, Reason::Corrupt);
    assert_eq!(seen.done_bytes, 0);
    assert!(!destination.exists());
    leecher.end().await;
}

#[tokio::test]
async fn a_liar_is_remembered_over_a_restart() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(4));
    let state = tempfile::tempdir().unwrap();
    let liar = Liar::start(&trust, Lie::Noise, &file).await;
    let mut asked = Vec::new();
    for _ in 0..2 {
        let config = EngineConfig { state_dir: Some(state.path().to_owned()), ..EngineConfig::default() };
        let leecher = file.peer(&trust, config).await;
        let (_, mut view) = file.downloaded_by(&leecher, vec![liar.source()]).await;
        until(&mut view, |view| view.all_banned).await;
        leecher.end().await;
        asked.push(liar.asked());
    }
    assert!(asked[0] > 0);
    assert_eq!(asked[0], asked[1], "it was not asked again");
}

/// Uses two prefixes with the same SHA-1 (M. Stevens and others, "The first collision for full SHA-1", 2017),
/// and the same rest after each. So every piece and the whole file agree in SHA-1.
#[tokio::test]
async fn a_piece_of_equal_sha1_and_other_bytes_is_refused() {
    let with = |head: &[u8]| [head, &[7; PIECE]].concat();
    let real = SharedFile::new(with(include_bytes!("shattered-1.bin")));
    let forged = SharedFile::new(with(include_bytes!("shattered-2.bin")));
    assert_ne!(real.content, forged.content);
    assert_eq!(real.manifest.header().sha1, forged.manifest.header().sha1);
    assert_eq!(real.manifest.pieces()[0].sha1, forged.manifest.pieces()[0].sha1);
    assert_ne!(real.manifest.pieces()[0].blake3, forged.manifest.pieces()[0].blake3);

    let trust = World::new();
    let swapped = SharedFile { content: forged.content, ..real.clone() };
    let liar = Liar::start(&trust, Lie::OtherContent, &swapped).await;
    let leecher = real.peer(&trust, EngineConfig::default()).await;
    let (destination, mut view) = real.downloaded_by(&leecher, vec![liar.source()]).await;
    until(&mut view, |view| view.sources.iter().any(|source| source.bad_pieces > 0)).await;
    // The second piece is the same in both files, so it may count.
    assert!(view.borrow().done_bytes < real.content.len() as u64);
    assert!(!destination.exists());
    let honest = real.shared_by(&trust, EngineConfig::default()).await;
    leecher.engine.sources(real.id, vec![honest.source()], Vec::new());
    until_complete(&mut view).await;
    assert_eq!(std::fs::read(&destination).unwrap(), *real.content);
    leecher.end().await;
    honest.end().await;
}
