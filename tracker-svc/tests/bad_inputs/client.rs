//! Clients of the tracker: the generated ones, and one that sends any bytes to any method.

use std::{
    error::Error as _,
    net::{IpAddr, SocketAddr},
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _};
use proto::{pb, reason::Reason};
pub(crate) use testkit::client::PASSWORD;
use testkit::client::endpoint;
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::process::Tracker;

/// Names with a character that is invisible or looks like a space, and one that starts with a mark.
pub(crate) const HIDDEN: &[&str] = &[
    "a\u{34f}b",
    "a\u{a0}b",
    "a\u{115f}b",
    "a\u{1160}b",
    "a\u{17b4}b",
    "a\u{180b}b",
    "a\u{200c}b",
    "a\u{202f}b",
    "a\u{206a}b",
    "a\u{2800}b",
    "a\u{3000}b",
    "a\u{3164}b",
    "a\u{e000}b",
    "a\u{fe0f}b",
    "a\u{ffa0}b",
    "a\u{fffc}b",
    "a\u{ffff}b",
    "a\u{e0001}b",
    "a\u{e0041}b",
    "a\u{e0100}b",
    "a\u{10ffff}b",
    "\u{3164}",
    "\u{2800}\u{2800}",
    "\u{302}a",
];

/// How long any single call may take while the tracker is under attack, on a slow machine.
pub(crate) const SERVED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Client(testkit::client::Client);

impl Deref for Client {
    type Target = testkit::client::Client;

    fn deref(&self) -> &testkit::client::Client {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut testkit::client::Client {
        &mut self.0
    }
}

impl Client {
    /// A client without a session.
    pub(crate) async fn anonymous(tracker: &Tracker) -> Self {
        Self::from(tracker, None).await
    }

    /// A client without a session that connects from this address. All of 127.0.0.0/8 belongs to this
    /// machine.
    pub(crate) async fn from(tracker: &Tracker, ip: Option<IpAddr>) -> Self {
        Self::of(tracker.addr, &tracker.ca, ip).await
    }

    /// A client without a session; without TLS if there is no authority.
    pub(crate) async fn of(tracker: SocketAddr, ca: &str, ip: Option<IpAddr>) -> Self {
        let channel = endpoint(tracker, ca, ip).connect().await.expect("a connection");
        Self(testkit::client::Client::anonymous(channel))
    }

    /// A client with an account and a session.
    pub(crate) async fn user(tracker: &Tracker, name: &str) -> Self {
        tracker.keep_secret(PASSWORD);
        let client = Self::anonymous(tracker).await;
        client.create_user(name, PASSWORD).await.expect("an account");
        client.log_in(tracker, name).await
    }

    /// A client on the same connection with another session of this user.
    pub(crate) async fn log_in(&self, tracker: &Tracker, name: &str) -> Self {
        let client = self.logged_in(name).await;
        tracker.keep_secret(client.token.as_deref().expect("a session"));
        Self(client)
    }

    /// A client on the same connection with another token, or none.
    pub(crate) fn with_token(&self, token: Option<&str>) -> Self {
        Self(self.0.with_token(token))
    }

    pub(crate) async fn who_am_i(&self) -> Result<String, Status> {
        self.auth().who_am_i(pb::WhoAmIRequest {}).await.map(|answer| answer.into_inner().username)
    }

    /// Calls a method with arbitrary messages and returns the result: OK if a message arrived or the call
    /// ended well. The request stays open for as long as `open` says.
    pub(crate) async fn raw(&self, path: &str, messages: Vec<Vec<u8>>) -> Status {
        let mut grpc = tonic::client::Grpc::new(self.service());
        grpc.ready().await.expect("a connection");
        let path = http::uri::PathAndQuery::try_from(path).expect("a path");
        let stream = tokio_stream::iter(messages);
        let answer = match grpc.streaming(Request::new(stream), path, Bytes).await {
            Ok(answer) => answer.into_inner().message().await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(_) => Status::ok(""),
            Err(status) => status,
        }
    }

    /// Fails unless a call without session is answered.
    pub(crate) async fn is_served(&self) {
        self.is_served_within(SERVED_WITHIN).await;
    }

    pub(crate) async fn is_served_within(&self, patience: Duration) {
        let mut auth = self.auth();
        let keys = auth.get_tracker_keys(pb::GetTrackerKeysRequest {});
        tokio::time::timeout(patience, keys).await.expect("an answer in time").expect("keys");
    }

    /// Keeps calling until the result is taken.
    pub(crate) fn keep_calling(&self) -> Served {
        let (client, over) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&over);
        let calls = tokio::spawn(async move {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                client.is_served().await;
                times.push(start.elapsed());
                // A steady rate, so that this is not a second flood.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            times
        });
        Served { stop, calls }
    }
}

/// A client that is being served while others misbehave.
pub(crate) struct Served {
    stop: Arc<AtomicBool>,
    calls: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Served {
    /// Fails if a call failed or took too long. Returns the number of calls and the slowest time.
    pub(crate) async fn all_the_time(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let times = self.calls.await.expect("every call was answered");
        let slowest = times.iter().max().copied().expect("at least one call");
        (times.len(), slowest)
    }
}

/// Fails unless the call was refused with this code, and with a reason of the closed set.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(
    outcome: Result<T, Status>,
    code: Code,
    what: impl std::fmt::Debug,
) -> Status {
    let status = match outcome {
        Ok(answer) => panic!("{what:?} was let through: {answer:?}"),
        Err(status) => status,
    };
    assert_eq!(status.code(), code, "{what:?}: {status:?}");
    assert!(Reason::of(&status).is_some(), "{what:?}: no reason: {status:?}");
    status
}

/// Whether HTTP/2 itself refused the call, so that the tracker never saw it. A call that is refused before
/// its message was read counts for the limit of calls on a connection until its reset is sent. The next call
/// may arrive before that.
pub(crate) fn never_came_in(status: &Status) -> bool {
    let sources = std::iter::successors(status.source(), |&error| error.source());
    let mut h2 = sources.filter_map(|error| error.downcast_ref::<h2::Error>());
    h2.any(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// A codec that passes messages unchanged.
#[derive(Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
