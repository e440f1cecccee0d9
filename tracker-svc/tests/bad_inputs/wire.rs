//! Invalid input below the messages: TLS, HTTP/2, headers, frames and bytes that are not protobuf.

use std::time::{Duration, Instant};

use prost::Message as _;
use proto::pb;
use testkit::content::noise;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;

use super::{
    access::methods,
    client::Client,
    frames::{Calls, message, tls},
    process::Tracker,
};

const KEYS: &str = "/minitorrent.v1.AuthService/GetTrackerKeys";
const CREATE_USER: &str = "/minitorrent.v1.AuthService/CreateUser";
const MIB: u64 = 1 << 20;
/// Maximum lifetime of a connection that is not HTTP/2.
const CLOSED_WITHIN: Duration = Duration::from_secs(8);

#[tokio::test]
async fn empty_requests_are_answered_with_reason() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let nobody = ann.with_token(None);
    for method in methods(&ann).await.iter().filter(|method| method.starts_with("minitorrent.")) {
        // An empty request is valid for Logout.
        let ends = method.contains("/Logout");
        for (client, messages) in
            [(&nobody, vec![vec![]]), (&nobody, vec![]), (&ann, vec![vec![]]), (&ann, vec![])]
        {
            if ends && client.token.is_some() {
                continue;
            }
            let status = client.raw(&format!("/{method}"), messages.clone()).await;
            let good = match status.code() {
                Code::Ok => messages.len() == 1 || method.ends_with("/Announce"),
                Code::InvalidArgument => true,
                Code::Unauthenticated => client.token.is_none() || method.ends_with("/Login"),
                Code::PermissionDenied => method.ends_with("/ChangePassword"),
                _ => false,
            };
            assert!(good, "{method}, {} messages: {status:?}", messages.len());
        }
    }
    assert_eq!(ann.who_am_i().await.unwrap(), "ann");
    tracker.finish().await;
}

#[tokio::test]
async fn noise_for_protobuf_leaves_the_connection_usable() {
    let tracker = Tracker::start().await;
    // One user alone would reach the limit on calls.
    let users = [Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await];
    let methods = methods(&users[0]).await;
    let methods = methods.iter().filter(|method| method.starts_with("minitorrent."));
    for (method, (name, user)) in methods.zip(["ann", "bob"].into_iter().zip(&users).cycle()) {
        for seed in 0..8 {
            // All ones: a field number and length without end.
            let bytes = if seed == 0 { vec![0xff; 64] } else { noise(seed, 1 << (seed + 2)) };
            let status = user.raw(&format!("/{method}"), vec![bytes]).await;
            let surprising = matches!(status.code(), Code::Internal | Code::Unknown | Code::Unavailable);
            assert!(!surprising, "{method}, seed {seed}: {status:?}");
        }
        assert_eq!(user.who_am_i().await.expect("on the same connection"), name);
    }
    tracker.finish().await;
}

#[tokio::test]
async fn a_length_of_four_gigabytes_takes_no_memory() {
    let tracker = Tracker::start().await;
    let mut calls = Calls::connect(&tracker).await;
    calls.send(Calls::request(KEYS), &message(0, 0, &[])).await.unwrap();
    let base = tracker.rss();
    for _ in 0..20 {
        let answer = calls.send(Calls::request(CREATE_USER), &message(0, u32::MAX, b"abc")).await.unwrap();
        assert!(matches!(answer.code, Some(Code::OutOfRange | Code::ResourceExhausted)), "{answer:?}");
    }
    let grown = tracker.rss().saturating_sub(base);
    assert!(grown <= MIB, "{grown} bytes");
    tracker.finish().await;
}

#[tokio::test]
async fn the_limit_of_a_message_is_exact() {
    let tracker = Tracker::start().await;
    let nobody = Client::anonymous(&tracker).await;
    let sized = |size: usize| {
        let empty =
            pb::CreateUserRequest { username: "no name".into(), password: String::new(), invite: None };
        // A password of that length adds a tag and a length of three bytes.
        let password = "x".repeat(size - empty.encoded_len() - 4);
        let bytes = pb::CreateUserRequest { password, ..empty }.encode_to_vec();
        assert_eq!(bytes.len(), size);
        bytes
    };
    let limit = proto::domain::limits::MAX_REQUEST;
    let within = nobody.raw(CREATE_USER, vec![sized(limit)]).await;
    assert_eq!(within.code(), Code::InvalidArgument, "it was read, and its name is bad");
    for size in [limit + 1, 4 * limit] {
        let status = nobody.raw(CREATE_USER, vec![sized(size)]).await;
        assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{size}: {status:?}");
    }
    tracker.finish().await;
}

#[tokio::test]
async fn compressed_messages_are_not_inflated() {
    let tracker = Tracker::start().await;
    let mut calls = Calls::connect(&tracker).await;
    // A lot of zeros compressed by gzip is small. No decoder may ever see it.
    let bomb = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0; 1_000]].concat();
    // The first calls warm caches up.
    for _ in 0..20 {
        calls.send(Calls::request(KEYS), &message(0, 0, &[])).await.unwrap();
    }
    let base = tracker.rss();
    for encoding in [None, Some("gzip"), Some("deflate"), Some("zstd"), Some("no-such-thing")] {
        let request = match encoding {
            Some(encoding) => Calls::request(KEYS).header("grpc-encoding", encoding),
            None => Calls::request(KEYS),
        };
        let body = message(1, u32::try_from(bomb.len()).unwrap(), &bomb);
        let answer = calls.send(request, &body).await.unwrap();
        let refused =
            matches!(answer.code, Some(Code::Unimplemented | Code::Internal | Code::InvalidArgument));
        assert!(refused, "{encoding:?}: {answer:?}");
    }
    // An undefined flag.
    let answer = calls.send(Calls::request(KEYS), &message(7, 0, &[])).await.unwrap();
    assert!(matches!(answer.code, Some(Code::Internal | Code::InvalidArgument)), "{answer:?}");
    assert!(tracker.rss() <= base + 4 * MIB);
    tracker.finish().await;
}

#[tokio::test]
async fn unknown_methods_fields_and_depths() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    for path in [
        "/minitorrent.v1.AuthService/DropTables",
        "/minitorrent.v1.NoService/Login",
        "/minitorrent.v2.AuthService/Login",
        "/minitorrent.v1.AuthService/login",
        "/minitorrent.v1.AuthService/Login/",
        "/minitorrent.v1.AuthService/Login/x",
        "//minitorrent.v1.AuthService/Login",
        "/",
        "/metrics",
        "/minitorrent.v1.PeerService/GetChunk",
        "/minitorrent.v1.ControlService/Shutdown",
        "/minitorrent.v1.AuthService/..%2f..%2fetc%2fpasswd",
    ] {
        for client in [&ann, &ann.with_token(None)] {
            assert_eq!(client.raw(path, vec![vec![]]).await.code(), Code::Unimplemented, "{path}");
        }
    }
    // Field 1000, bytes: from a later version of the protocol.
    assert_eq!(ann.raw(KEYS, vec![vec![0xc2, 0x3e, 3, b'n', b'e', b'w']]).await.code(), Code::Ok);
    // Ten thousand nested groups (field 1, wire type 3), and as many nested messages.
    let nested = [vec![0x0b; 10_000], vec![0x0c; 10_000]].concat();
    let mut messages = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(messages.len() as u64, &mut outer);
        outer.append(&mut messages);
        messages = outer;
        messages.truncate(60_000);
    }
    for (what, bytes) in [("groups", nested), ("messages", messages)] {
        let status = ann.raw("/minitorrent.v1.FileService/PublishFile", vec![bytes.clone()]).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        let status = ann.raw(CREATE_USER, vec![bytes]).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
    }
    tracker.finish().await;
}

#[tokio::test]
async fn huge_metadata_is_refused_and_others_are_served() {
    let tracker = Tracker::start().await;
    let served = Client::anonymous(&tracker).await.keep_calling();
    let long = Calls::request(KEYS).header("x-long", "x".repeat(17 << 10));
    let many = (0..1_000).fold(Calls::request(KEYS), |request, n| request.header(format!("x-{n}"), "value"));
    let token = Calls::request(KEYS).header("authorization", format!("Bearer {}", "a".repeat(1 << 20)));
    for (what, request) in [("17 KiB", long), ("a thousand headers", many), ("a token of 1 MiB", token)] {
        let mut calls = Calls::connect(&tracker).await;
        let body = message(0, 0, &[]);
        let answer = timeout(CLOSED_WITHIN, calls.send(request, &body)).await.expect("an end");
        // The end of the connection is a valid result too.
        if let Ok(answer) = answer {
            let refused = answer.http == 431 || answer.code == Some(Code::ResourceExhausted);
            assert!(refused, "{what}: {answer:?}");
        }
    }
    served.all_the_time().await;
    tracker.finish().await;
}

#[tokio::test]
async fn invalid_deadlines_are_ignored_or_exceeded() {
    let tracker = Tracker::start().await;
    let mut calls = Calls::connect(&tracker).await;
    for timeout in ["0n", "0S", "-1S", "99999999H", "999999999H", "1", "S", "", "1x", "1 S", "NaNS", "1e9S"] {
        let request = Calls::request(KEYS).header("grpc-timeout", timeout);
        let answer = calls.send(request, &message(0, 0, &[])).await.unwrap();
        assert!(
            matches!(answer.code, Some(Code::Ok | Code::DeadlineExceeded | Code::InvalidArgument)),
            "{timeout:?}: {answer:?}"
        );
    }
    let soon = Calls::request(KEYS).header("grpc-timeout", "1n");
    let answer = calls.send(soon, &message(0, 0, &[])).await.unwrap();
    assert!(matches!(answer.code, Some(Code::Ok | Code::DeadlineExceeded)), "{answer:?}");
    tracker.finish().await;
}

/// Sends these bytes and reads until the server closes.
async fn closed_after<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, bytes: &[u8], what: &str) {
    let began = Instant::now();
    // Being refused while sending counts as refused.
    let _ = io.write_all(bytes).await;
    let mut sink = vec![0; 64 << 10];
    let reading = async { while io.read(&mut sink).await.is_ok_and(|read| read > 0) {} };
    timeout(CLOSED_WITHIN, reading).await.unwrap_or_else(|_| panic!("{what}: still open"));
    let took = began.elapsed();
    assert!(took < CLOSED_WITHIN, "{what}: {took:?}");
}

#[tokio::test]
async fn connections_of_other_protocols_are_closed_soon() {
    let tracker = Tracker::start().await;
    let plain = Tracker::start_with(&[("TRACKER_PLAINTEXT", "true")]).await;
    let http1 = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let upgrade = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    let noise = noise(7, 4_096);
    let tcp = |addr| async move { TcpStream::connect(addr).await.unwrap() };
    let secure = || async { tls(tracker.addr, &tracker.ca).await.unwrap() };
    tokio::join!(
        closed_after(tcp(tracker.addr).await, http1, "HTTP/1.1 without TLS"),
        closed_after(tcp(tracker.addr).await, super::frames::PREFACE, "HTTP/2 without TLS"),
        closed_after(tcp(tracker.addr).await, &noise, "noise without TLS"),
        closed_after(secure().await, http1, "HTTP/1.1 over TLS"),
        closed_after(secure().await, &noise, "noise over TLS"),
        closed_after(tcp(plain.addr).await, http1, "HTTP/1.1"),
        closed_after(tcp(plain.addr).await, upgrade, "an upgrade"),
        closed_after(tcp(plain.addr).await, &noise, "noise"),
        // The start of a TLS 1.2 handshake.
        closed_after(tcp(plain.addr).await, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
    );
    plain.finish().await;
    tracker.finish().await;
}
