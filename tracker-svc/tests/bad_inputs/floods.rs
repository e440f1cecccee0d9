//! Floods: as much as one client can send, bounded in number and time. The tracker closes or refuses them,
//! its memory stays bounded, and another client is served throughout.

use std::{
    collections::VecDeque,
    process::Command,
    time::{Duration, Instant},
};

use testkit::{process::binary, wait::eventually_within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::Mutex,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{
    client::{Client, PASSWORD},
    frames::{
        CONTINUATION, Calls, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, Wire,
        answer_of, block, call, frame, message, tls,
    },
    process::{BINARY, Tracker},
};

const MIB: u64 = 1 << 20;
const KEYS: &str = "/minitorrent.v1.AuthService/GetTrackerKeys";
const CREATE_USER: &str = "/minitorrent.v1.AuthService/CreateUser";
/// Maximum duration of a flood. After it the test stops the flood.
const FLOOD: Duration = Duration::from_secs(10);
/// Runs one flood at a time: each needs the whole machine.
static ONE: Mutex<()> = Mutex::const_new(());

/// Checks that a client was served, as strictly as a busy machine with two cores allows.
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
    // Nobody waits forever for the rest.
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

/// The expected end of a flooding connection.
#[derive(PartialEq, Eq)]
enum End {
    /// The tracker closes it.
    Closed,
    /// The tracker reads no more of it than it processes.
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

/// The stream ids of a client are odd.
fn streams(count: u32) -> impl Iterator<Item = u32> + Clone {
    (0..count).map(|n| 2 * n + 1)
}

#[tokio::test]
async fn rapid_resets_are_closed() {
    let headers = call(KEYS);
    // CANCEL, a hundred pairs per write.
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
    // More calls than may run at once. Every response waits for a client that never reads.
    let headers = call(KEYS);
    let body = message(0, 0, &[]);
    let writes = streams(20_000).map(move |stream| {
        [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, END_STREAM, stream, &body)].concat()
    });
    flood("answers that nobody reads", writes, End::HeldBack).await;
}

/// Slow: silent connections are closed after 5 s.
#[tokio::test]
async fn silent_connections_are_closed_and_others_get_in() {
    let _one = ONE.lock().await;
    transport::raise_open_files();
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
    eventually_within(Duration::from_secs(5), "their sockets are given back", async || {
        tracker.open_files() <= base + 5
    })
    .await;
    tracker.finish().await;
}

/// The number of files that the tracker below may have open.
const FILES: usize = 256;

fn with_few_files(args: &[&str]) -> Command {
    let limit = format!("ulimit -n {FILES} && exec \"$0\" \"$@\"");
    binary("sh", &[&["-c", &limit, BINARY], args].concat())
}

/// Silent connections are renewed constantly while there are few open files. The database must keep its own
/// files.
#[tokio::test]
async fn silent_connections_leave_the_database_its_files() {
    let _one = ONE.lock().await;
    transport::raise_open_files();
    const AT_ONCE: usize = 400;
    let tracker = Tracker::start_as(with_few_files, &[]).await;
    let member = Client::user(&tracker, "member").await;
    let (over, addr) = (CancellationToken::new(), tracker.addr);
    let flood = tokio::spawn(over.clone().run_until_cancelled_owned(async move {
        let mut silent = VecDeque::new();
        loop {
            // Each has its own address, so that the speed of this machine does not decide which connection
            // gives way.
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
            if let Ok(Ok(socket)) = timeout(Duration::from_secs(1), socket.connect(addr)).await {
                silent.push_back(socket);
            }
            if silent.len() > AT_ONCE {
                silent.pop_front();
            }
            // The rate of the flood. It should take places, not processor time.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }));
    let since = Instant::now();
    let mut most = 0;
    let mut calls = 0;
    while since.elapsed() < Duration::from_secs(6) {
        // Over an existing connection, and over a new one, without and with a session.
        assert_eq!(member.who_am_i().await.expect("served"), "member");
        let newcomer = Client::anonymous(&tracker).await;
        newcomer.create_user(&format!("newcomer-{calls}"), PASSWORD).await.expect("served");
        let again = newcomer.with_token(member.token.as_deref());
        assert_eq!(again.who_am_i().await.expect("served"), "member");
        most = most.max(tracker.open_files());
        calls += 3;
    }
    let seconds = since.elapsed().as_secs() as usize + 1;
    over.cancel();
    flood.await.unwrap();
    assert!(calls >= 9, "{calls}");
    assert!(most < FILES - 16, "{most} open files");
    let warnings =
        tracker.log().lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    assert!((1..=seconds).contains(&warnings), "{warnings} warnings in {seconds} s: {}", tracker.log());
    tracker.finish().await;
}

trait Half: tokio::io::AsyncRead + Unpin {}
impl<T: tokio::io::AsyncRead + Unpin> Half for T {}
