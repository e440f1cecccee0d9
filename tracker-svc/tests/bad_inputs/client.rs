//! Clients of the tracker: the generated ones, and one that sends any bytes to any method.

use std::{
    error::Error as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _};
use proto::{
    pb::{
        self, auth_service_client::AuthServiceClient, file_service_client::FileServiceClient,
        group_service_client::GroupServiceClient, swarm_service_client::SwarmServiceClient,
    },
    reason::Reason,
};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::process::Tracker;

/// The password of every account of these tests.
pub(crate) const PASSWORD: &str = "a-long-and-odd-password";
/// How long any single call may take while the tracker is under attack, on a slow machine.
pub(crate) const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// Puts the token in.
#[derive(Clone)]
pub(crate) struct Bearer(Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Bearer>;

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) token: Option<String>,
    pub(crate) channel: Channel,
}

impl Client {
    /// Without a session.
    pub(crate) async fn anonymous(tracker: &Tracker) -> Self {
        Self::from(tracker, None).await
    }

    /// Without a session, from the address given: any of 127.0.0.0/8 is this machine's.
    pub(crate) async fn from(tracker: &Tracker, ip: Option<IpAddr>) -> Self {
        Self::of(tracker.addr, &tracker.ca, ip).await
    }

    /// Without a session; without TLS when there is no authority.
    pub(crate) async fn of(tracker: SocketAddr, ca: &str, ip: Option<IpAddr>) -> Self {
        let endpoint = if ca.is_empty() {
            Endpoint::from_shared(format!("http://{tracker}")).unwrap()
        } else {
            let tls =
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
            Endpoint::from_shared(format!("https://{tracker}")).unwrap().tls_config(tls).unwrap()
        };
        let channel = endpoint.local_address(ip).connect().await.expect("a connection");
        Self { name: String::new(), token: None, channel }
    }

    /// With an account and a session.
    pub(crate) async fn user(tracker: &Tracker, name: &str) -> Self {
        tracker.keep_secret(PASSWORD);
        let client = Self::anonymous(tracker).await;
        client.create_user(name, PASSWORD).await.expect("an account");
        client.log_in(tracker, name).await
    }

    /// The same connection with another session of that user.
    pub(crate) async fn log_in(&self, tracker: &Tracker, name: &str) -> Self {
        let answer = self.login(name, PASSWORD).await.expect("a session");
        tracker.keep_secret(&answer.session_token);
        Self { name: name.into(), token: Some(answer.session_token), channel: self.channel.clone() }
    }

    /// The same connection with another token, or none.
    pub(crate) fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    pub(crate) async fn create_user(&self, name: &str, password: &str) -> Result<(), Status> {
        let request = pb::CreateUserRequest { username: name.into(), password: password.into() };
        self.auth().create_user(request).await.map(drop)
    }

    pub(crate) async fn login(&self, name: &str, password: &str) -> Result<pb::LoginResponse, Status> {
        let request = pb::LoginRequest { username: name.into(), password: password.into() };
        self.auth().login(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn who_am_i(&self) -> Result<String, Status> {
        self.auth().who_am_i(pb::WhoAmIRequest {}).await.map(|answer| answer.into_inner().username)
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Service> {
        AuthServiceClient::new(self.service())
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Service> {
        GroupServiceClient::new(self.service())
    }

    pub(crate) fn files(&self) -> FileServiceClient<Service> {
        FileServiceClient::new(self.service())
    }

    pub(crate) fn swarm(&self) -> SwarmServiceClient<Service> {
        SwarmServiceClient::new(self.service())
    }

    fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), Bearer(self.token.clone()))
    }

    /// Calls a method with these messages, whatever they are, and says how it went: OK once a message came or the call
    /// ended well. The request stays open as long as `open` says.
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

    /// Calls all the time until the answer is taken.
    pub(crate) fn keep_calling(&self) -> Served {
        let (client, over) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&over);
        let calls = tokio::spawn(async move {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                client.is_served().await;
                times.push(start.elapsed());
                // A steady pace, not a second flood.
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
    /// Fails when a call did, or took too long. Says how many there were and the slowest.
    pub(crate) async fn all_the_time(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let times = self.calls.await.expect("every call was answered");
        let slowest = times.iter().max().copied().expect("at least one call");
        (times.len(), slowest)
    }
}

/// Fails unless the call was refused with that code, and with a reason of the closed set.
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

/// Whether HTTP/2 itself refused the call, which then never came in. A call that is refused before its message was read
/// counts for the limit of calls on a connection until its reset went out, and the next may overtake that.
pub(crate) fn never_came_in(status: &Status) -> bool {
    let sources = std::iter::successors(status.source(), |&error| error.source());
    let mut h2 = sources.filter_map(|error| error.downcast_ref::<h2::Error>());
    h2.any(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Messages as they are.
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
