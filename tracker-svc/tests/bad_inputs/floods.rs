//! Floods: as much as one client can send, bounded in count and time. The tracker closes or refuses them, its memory
//! stays bounded, and another client is served all the while.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};
use tonic::Code;

use super::{
    client::Client,
    frames::{
        CONTINUATION, Calls, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, Wire,
        answer_of, block, call, frame, message, tls,
    },
    process::{Tracker, until},
};

const MIB: u64 = 1 << 20;
const KEYS: &str = "/minitorrent.v1.AuthService/GetTrackerKeys";
const CREATE_USER: &str = "/minitorrent.v1.AuthService/CreateUser";
/// How long a flood may go on before the test stops it.
const FLOOD: Duration = Duration::from_secs(10);
/// One flood at a time: each wants the machine for itself.
static ONE: Mutex<()> = Mutex::const_new(());

/// As far as a busy machine of two cores allows to say that somebody is served.
fn assert_served((calls, slowest): (usize, Duration), what: &str) {
    assert!(slowest < Duration::from_secs(3), "{what}: the slowest of {calls} calls took {slowest:?}");
}

#[tokio::test]
async fn many_claims_of_large_messages_take_little_memory() {
    let _one = ONE.lock().await;
    let tracker = Tracker::start().await;
    let served = Client::anonymous(&tracker).await.keep_calling();
    let base = tracker.rss();
    let claim = message(0, 64 << 10, &[]);
    let mut open = Vec::new();
    for _ in 0..16 {
        let mut calls = Calls::connect(&tracker).await;
        for _ in 0..64 {
            open.push(calls.open(Calls::request(CREATE_USER), &claim).await.unwrap());
        }
    }
    let grown = tracker.rss().saturating_sub(base);
    assert!(grown < 64 * MIB, "{grown} bytes for {} claims", open.len());
    // Nobody waits for the rest for ever.
    let ends = async {
        for (answer, _stream) in open {
            if let Ok(answer) = answer.await {
                let answer = answer_of(answer).await;
                assert!(answer.as_ref().is_ok_and(|answer| answer.code != Some(Code::Ok)), "{answer:?}");
            }
        }
    };
    timeout(Duration::from_secs(15), ends).await.expect("every call has ended");
    assert_served(served.all_the_time().await, "claims");
    tracker.finish().await;
}

/// What becomes of a connection that floods.
#[derive(PartialEq, Eq)]
enum End {
    /// The tracker closes it.
    Closed,
    /// The tracker takes no more of it than it works off.
    HeldBack,
}

/// Sends a flood over one connection while another client is served.
async fn flood(what: &str, frames: impl Iterator<Item = Vec<u8>> + Send + 'static, end: End) {
    let _one = ONE.lock().await;
    let tracker = Tracker::start().await;
    let served = Client::anonymous(&tracker).await.keep_calling();
    let base = tracker.rss();
    let mut wire = Wire::connect(&tracker).await;
    wire.flood(frames, FLOOD).await;
    let grown = tracker.rss().saturating_sub(base);
    assert!(grown < 64 * MIB, "{what}: {grown} bytes");
    assert!(end == End::HeldBack || wire.is_closed_within(FLOOD).await, "{what}: it goes on");
    drop(wire);
    assert_served(served.all_the_time().await, what);
    tracker.finish().await;
}

/// Client streams are odd.
fn streams(count: u32) -> impl Iterator<Item = u32> + Clone {
    (0..count).map(|n| 2 * n + 1)
}

#[tokio::test]
async fn rapid_resets_are_closed() {
    let headers = call(KEYS);
    // CANCEL, a hundred pairs a write.
    let pair = move |stream: u32| {
        let open = frame(HEADERS, END_HEADERS, stream, &headers);
        [open, frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
    };
    let all: Vec<u32> = streams(100_000).collect();
    let writes =
        (0..1_000).map(move |n| all[n * 100..][..100].iter().flat_map(|&stream| pair(stream)).collect());
    flood("rapid resets", writes, End::Closed).await;
}

#[tokio::test]
async fn endless_headers_are_closed() {
    let first = frame(HEADERS, 0, 1, &call(KEYS));
    let more = frame(CONTINUATION, 0, 1, &block(&[("x-more", &"y".repeat(100))]).repeat(100));
    let writes = std::iter::once(first).chain(std::iter::repeat_n(more, 10_000));
    flood("CONTINUATION frames", writes, End::Closed).await;
}

#[tokio::test]
async fn empty_data_frames_are_closed() {
    let first = frame(HEADERS, END_HEADERS, 1, &call(CREATE_USER));
    let empty = frame(DATA, 0, 1, &[]).repeat(100);
    let writes = std::iter::once(first).chain(std::iter::repeat_n(empty, 1_000));
    flood("empty DATA frames", writes, End::Closed).await;
}

#[tokio::test]
async fn pings_and_settings_without_end_are_closed() {
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(100);
    flood("PING frames", std::iter::repeat_n(pings, 10_000), End::Closed).await;
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(100);
    flood("SETTINGS frames", std::iter::repeat_n(settings, 10_000), End::Closed).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_do_not_pile_up() {
    // More calls than may run at once; every answer waits for a client that never reads.
    let headers = call(KEYS);
    let body = message(0, 0, &[]);
    let writes = streams(20_000).map(move |stream| {
        [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, END_STREAM, stream, &body)].concat()
    });
    flood("answers that nobody reads", writes, End::HeldBack).await;
}

/// Slow: connections that say nothing are given 5 s.
#[tokio::test]
async fn silent_connections_are_closed_and_others_get_in() {
    let _one = ONE.lock().await;
    proto::transport::raise_open_files();
    const EACH: usize = 500;
    let tracker = Tracker::start().await;
    let client = Client::anonymous(&tracker).await;
    let base = tracker.open_files();
    let mut silent: Vec<Box<dyn Half>> = Vec::new();
    for _ in 0..EACH {
        silent.push(Box::new(TcpStream::connect(tracker.addr).await.unwrap()));
        let mut half = TcpStream::connect(tracker.addr).await.unwrap();
        // A ClientHello of 512 bytes that stops after three.
        half.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01").await.unwrap();
        silent.push(Box::new(half));
        silent.push(Box::new(tls(tracker.addr, &tracker.ca).await.unwrap()));
    }
    // Neither calls nor new connections wait for them.
    client.is_served().await;
    Client::anonymous(&tracker).await.is_served().await;
    let served = client.keep_calling();
    let mut sink = [0; 4_096];
    let closing = async {
        for io in &mut silent {
            while io.read(&mut sink).await.is_ok_and(|read| read > 0) {}
        }
    };
    timeout(Duration::from_secs(10), closing).await.expect("all are closed");
    assert_served(served.all_the_time().await, "silent connections");
    until(Duration::from_secs(5), "their sockets are given back", async || tracker.open_files() <= base + 5)
        .await;
    tracker.finish().await;
}

trait Half: tokio::io::AsyncRead + Unpin {}
impl<T: tokio::io::AsyncRead + Unpin> Half for T {}
