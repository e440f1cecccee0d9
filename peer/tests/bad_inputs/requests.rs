//! Bad requests of callers with a valid ticket: invalid sets of pieces, missing files, and more requests than
//! there is room for.

use std::time::{Duration, Instant};

use peer::engine::EngineConfig;
use proto::{
    pb::{GetChunkRequest, GetChunkResponse},
    reason::{Reason, retry_after},
    ticket::Claims,
};
use testkit::{
    content::file_id,
    wait::PATIENCE,
    world::{Credentials, SharedFile, World},
};
use tonic::{Code, Status, Streaming};

fn request(trust: &World, own: &Credentials, file: &SharedFile, pieces: Vec<u64>) -> GetChunkRequest {
    GetChunkRequest {
        ticket: file.ticket(trust, own.peer),
        file_id: file.id.as_bytes().to_vec().into(),
        pieces,
        ..Default::default()
    }
}

#[tokio::test]
async fn impossible_sets_of_pieces_are_refused() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(3));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    let own = trust.credentials();
    let mut client = peer.client(Some(&own)).await.unwrap();
    for (pieces, code) in [
        (vec![], Code::InvalidArgument),
        (vec![3], Code::OutOfRange),
        (vec![0, 3], Code::OutOfRange),
        (vec![u64::MAX], Code::OutOfRange),
        (vec![1 << 31], Code::OutOfRange),
        (vec![1 << 32], Code::OutOfRange),
        // Multiplied by 524,288, these indices exceed 64 bits.
        (vec![1 << 45], Code::OutOfRange),
        (vec![u64::MAX / 524_288 + 1], Code::OutOfRange),
        (vec![1, 1], Code::InvalidArgument),
        (vec![0; 10_000], Code::InvalidArgument),
        ((0..65_537).collect(), Code::InvalidArgument),
    ] {
        let what = format!("{} pieces from {:?}", pieces.len(), pieces.first());
        let status = client.get_chunk(request(&trust, &own, &file, pieces)).await.unwrap_err();
        assert_eq!(status.code(), code, "{what}: {status:?}");
        assert!(Reason::of(&status).is_some(), "{what}");
    }
    // Larger than a request may be.
    let huge = vec![u64::MAX; 100_000];
    let status = client.get_chunk(request(&trust, &own, &file, huge)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    // The connection still works.
    let mut chunks = client.get_chunk(request(&trust, &own, &file, vec![2, 0])).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(chunk) = chunks.message().await.unwrap() {
        bytes += chunk.data.len();
    }
    assert_eq!(bytes, 2 * 524_288);
    peer.end().await;
}

#[tokio::test]
async fn only_shared_files_and_held_pieces_are_served() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(3));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    let own = trust.credentials();
    let mut client = peer.client(Some(&own)).await.unwrap();
    let elsewhere = SharedFile { group: "g2".parse().unwrap(), ..file.clone() };
    let unknown = SharedFile { id: file_id(6), ..file.clone() };
    for other in [&elsewhere, &unknown] {
        let status = client.get_chunk(request(&trust, &own, other, vec![0])).await.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::NotShared), "{status:?}");
    }
    peer.engine.unshare(file.id);
    let status = client.get_chunk(request(&trust, &own, &file, vec![0])).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::NotShared));

    // A peer that downloads and has no piece yet.
    let leecher = file.peer(&trust, EngineConfig::default()).await;
    let (_, _view) = file.downloaded_by(&leecher, Vec::new()).await;
    let mut client = leecher.client(Some(&own)).await.unwrap();
    let status = client.get_chunk(request(&trust, &own, &file, vec![0, 1, 2])).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    leecher.end().await;
    peer.end().await;
}

/// Returns the place in the queue from a stream's first message; `None` if the stream sends data.
async fn place(chunks: &mut Streaming<GetChunkResponse>) -> Option<u32> {
    let first = tokio::time::timeout(PATIENCE, chunks.message()).await.expect("a message").unwrap().unwrap();
    (first.queue_place > 0).then_some(first.queue_place)
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back_and_a_slot_is_free_at_once() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(8));
    let config =
        EngineConfig { upload_slots: 1, upload_queue: 3, upload_limit: 64 << 10, ..Default::default() };
    let peer = file.shared_by(&trust, config).await;
    let mut streams = Vec::new();
    let ask = async |n: usize| -> Result<Streaming<GetChunkResponse>, Status> {
        let own = trust.credentials();
        let mut client = peer.client(Some(&own)).await.unwrap();
        // Each has a user of its own, because one user can't fill the queue alone.
        let claims = Claims { user: format!("user{n}").parse().unwrap(), ..file.claims(&trust, own.peer) };
        let request = GetChunkRequest {
            ticket: trust.signer.sign(&claims),
            ..request(&trust, &own, &file, (0..8).collect())
        };
        Ok(client.get_chunk(request).await?.into_inner())
    };
    let mut first = ask(0).await.unwrap();
    assert_eq!(place(&mut first).await, None, "the first is served");
    for n in 1..=3 {
        let mut stream = ask(n).await.unwrap();
        let place = place(&mut stream).await;
        assert!(place.is_some_and(|place| place as usize <= n), "{n}: {place:?}");
        streams.push(stream);
    }
    let status = ask(4).await.expect_err("the queue is full");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(retry_after(&status).is_some_and(|wait| wait > Duration::ZERO));

    drop(first);
    let began = Instant::now();
    let next = async {
        // The next one in the queue gets data.
        let mut waiting: Vec<_> = streams
            .iter_mut()
            .map(|stream| {
                Box::pin(async {
                    while let Some(message) = stream.message().await.unwrap() {
                        if !message.data.is_empty() {
                            break;
                        }
                    }
                })
            })
            .collect();
        std::future::poll_fn(|cx| {
            let ready = waiting.iter_mut().any(|stream| stream.as_mut().poll(cx).is_ready());
            if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    };
    tokio::time::timeout(PATIENCE, next).await.expect("the next is served");
    let took = began.elapsed();
    // The chunk itself takes a part of a second at this rate.
    assert!(took < Duration::from_secs(2), "{took:?}");
    peer.end().await;
}

/// Many times more than the strangers that a peer lets in.
const OUTSIDERS: usize = 210;

#[tokio::test]
async fn certified_accounts_without_a_ticket_hold_no_place_of_a_member() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    // Each is another peer with a certificate of the tracker, and keeps its connection.
    let mut held = Vec::new();
    for _ in 0..OUTSIDERS {
        let own = trust.credentials();
        let mut client = peer.client(Some(&own)).await.unwrap();
        let ask = GetChunkRequest { ticket: String::new(), ..request(&trust, &own, &file, vec![0]) };
        let status = client.get_chunk(ask).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        held.push(client);
    }
    let own = trust.credentials();
    let mut client = peer.client(Some(&own)).await.unwrap();
    client.get_chunk(request(&trust, &own, &file, vec![0])).await.unwrap();
    drop(held);
    peer.end().await;
}

#[tokio::test]
async fn a_peer_has_eight_connections() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    let own = trust.credentials();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = peer.client(Some(&own)).await.unwrap();
        client.get_chunk(request(&trust, &own, &file, vec![0])).await.unwrap();
        clients.push(client);
    }
    let ninth = async {
        let mut client = peer.client(Some(&own)).await.ok()?;
        client.get_chunk(request(&trust, &own, &file, vec![0])).await.ok()
    };
    assert!(ninth.await.is_none(), "a ninth connection");
    // Another peer's connections are not limited by this.
    let other = trust.credentials();
    let mut client = peer.client(Some(&other)).await.unwrap();
    client.get_chunk(request(&trust, &other, &file, vec![0])).await.unwrap();
    peer.end().await;
}
