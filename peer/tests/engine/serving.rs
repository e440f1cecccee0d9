//! Upload slots, queues and reads from disk.

use std::{sync::Arc, time::Duration};

use peer::engine::EngineConfig;
use proto::{
    pb::{GetChunkRequest, GetChunkResponse, peer_service_client::PeerServiceClient},
    reason::{Reason, retry_after},
};
use testkit::{
    content::{PIECE, file_id, noise},
    node::Node,
    wait::{PATIENCE, eventually},
    world::World,
};
use tokio::time::timeout;
use tonic::{Streaming, transport::Channel};

/// A caller with a connection of its own.
struct Caller {
    client: PeerServiceClient<Channel>,
    ticket: String,
}

impl Caller {
    async fn new(world: &Arc<World>, seeder: &Node, user: &str) -> Self {
        let credentials = world.credentials();
        let ticket = world.signer.sign(&world.claims(user, credentials.peer, file_id(1)));
        let channel = credentials.dial(seeder.peer(), &seeder.address).await.unwrap();
        Self { client: PeerServiceClient::new(channel), ticket }
    }

    async fn ask(&self, pieces: Vec<u64>) -> Result<Streaming<GetChunkResponse>, tonic::Status> {
        let request = GetChunkRequest {
            ticket: self.ticket.clone(),
            file_id: file_id(1).as_bytes().to_vec().into(),
            pieces,
            max_pieces: 0,
            in_order: false,
            urgent: false,
        };
        Ok(self.client.clone().get_chunk(request).await?.into_inner())
    }
}

async fn next(stream: &mut Streaming<GetChunkResponse>) -> Result<Option<GetChunkResponse>, tonic::Status> {
    timeout(PATIENCE, stream.message()).await.expect("something comes")
}

/// A rate in bytes a second at which no piece is finished during a test.
const SLOW: u64 = 64 << 10;

async fn scene(slots: u32, queue: u32, rate: u64) -> (Arc<World>, Node) {
    let world = World::new();
    let config = EngineConfig {
        upload_slots: slots,
        upload_queue: queue,
        upload_limit: rate,
        ..EngineConfig::default()
    };
    let seeder = world.node_with("alice", config, None).await;
    seeder.share(file_id(1), "f", &noise(11, 64 * PIECE)).await;
    (world, seeder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_gets_its_place_and_moves_up() {
    let (world, seeder) = scene(1, 2, SLOW).await;
    let callers = [
        Caller::new(&world, &seeder, "user1").await,
        Caller::new(&world, &seeder, "user2").await,
        Caller::new(&world, &seeder, "user3").await,
        Caller::new(&world, &seeder, "user4").await,
    ];
    let mut first = callers[0].ask(vec![0, 1, 2]).await.unwrap();
    assert!(!next(&mut first).await.unwrap().unwrap().data.is_empty());
    let mut second = callers[1].ask(vec![3, 4]).await.unwrap();
    assert_eq!(next(&mut second).await.unwrap().unwrap().queue_place, 1);
    let mut third = callers[2].ask(vec![5]).await.unwrap();
    // Neither of the two had a turn yet, so a random choice decides who is first.
    let place = next(&mut third).await.unwrap().unwrap().queue_place;
    let (mut sooner, mut later) = match place {
        1 => (third, second),
        2 => (second, third),
        _ => panic!("place {place} of two"),
    };
    let full = callers[3].ask(vec![6]).await.unwrap_err();
    assert_eq!(Reason::of(&full), Some(Reason::Busy));
    assert!(retry_after(&full).is_some());
    assert_eq!((seeder.engine.stats().uploads_active, seeder.engine.stats().uploads_waiting), (1, 2));
    // The caller in the slot disconnects.
    drop(first);
    let came = next(&mut sooner).await.unwrap().unwrap();
    assert!(!came.data.is_empty(), "{came:?}");
    drop(sooner);
    loop {
        let message = next(&mut later).await.unwrap().unwrap();
        if !message.data.is_empty() {
            break;
        }
        assert!((1..=2).contains(&message.queue_place), "{message:?}");
    }
    drop(later);
    eventually("all slots are free", async || seeder.engine.stats().uploads_active == 0).await;
    seeder.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_request_takes_the_place_of_one_that_waits() {
    let (world, seeder) = scene(1, 8, SLOW).await;
    let (one, two) =
        (Caller::new(&world, &seeder, "user1").await, Caller::new(&world, &seeder, "user2").await);
    let mut running = one.ask(vec![0, 1, 2]).await.unwrap();
    next(&mut running).await.unwrap().unwrap();
    let mut waiting = two.ask(vec![3]).await.unwrap();
    assert_eq!(next(&mut waiting).await.unwrap().unwrap().queue_place, 1);
    let mut newer = two.ask(vec![4]).await.unwrap();
    let replaced = next(&mut waiting).await.unwrap_err();
    assert_eq!(Reason::of(&replaced), Some(Reason::Replaced));
    drop(running);
    loop {
        let message = next(&mut newer).await.unwrap().unwrap();
        if !message.data.is_empty() {
            assert_eq!(message.piece_index, 4);
            break;
        }
    }
    drop(newer);
    seeder.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_costs_little_and_holds_up_nobody() {
    let (world, seeder) = scene(2, 8, 0).await;
    let (stalled, other) =
        (Caller::new(&world, &seeder, "user1").await, Caller::new(&world, &seeder, "user2").await);
    let mut stuck = stalled.ask((0..64).collect()).await.unwrap();
    next(&mut stuck).await.unwrap().unwrap();
    let mut stream = other.ask((0..64).collect()).await.unwrap();
    let mut bytes = 0;
    while let Some(message) = next(&mut stream).await.unwrap() {
        bytes += message.data.len();
        if bytes >= 8 * PIECE {
            break;
        }
    }
    // HTTP/2's windows bound the data on its way to the caller that doesn't read.
    let sent = seeder.engine.stats().uploaded_bytes as usize - bytes;
    assert!(sent <= 64 * PIECE, "{sent}");
    drop((stuck, stream));
    seeder.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_limit_holds() {
    let (world, seeder) = scene(2, 8, 2 << 20).await;
    let caller = Caller::new(&world, &seeder, "user1").await;
    let start = std::time::Instant::now();
    let mut stream = caller.ask((0..8).collect()).await.unwrap();
    let mut bytes = 0;
    while bytes < 8 * PIECE {
        let Some(message) = next(&mut stream).await.unwrap() else {
            stream = caller.ask((0..8).collect()).await.unwrap();
            continue;
        };
        bytes += message.data.len();
    }
    // 4 MiB at 2 MiB a second take 2 s. The burst and what the transport took ahead are allowed for.
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(1_400), "{elapsed:?}");
    seeder.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_short_under_us_ends_the_stream() {
    let (world, seeder) = scene(2, 8, 1 << 20).await;
    let caller = Caller::new(&world, &seeder, "user1").await;
    let mut stream = caller.ask((0..64).collect()).await.unwrap();
    next(&mut stream).await.unwrap().unwrap();
    let path = seeder.dir.path().join("f");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(PIECE as u64).unwrap();
    let end = loop {
        match next(&mut stream).await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    let reason = Reason::of(&end);
    assert!(matches!(reason, Some(Reason::FileChanged | Reason::Corrupt)), "{end:?}");
    seeder.end().await;
}
