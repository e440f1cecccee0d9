//! The transport over real loopback sockets: the service for good clients, and the time until bad ones are
//! closed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    convert::Infallible,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use proto::domain::PeerId;
use testkit::authority::{Authority, Identity};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, transport::Channel};
use tower::{Service as _, ServiceExt as _, service_fn};
use transport::{
    AuthorityFingerprint, ChannelTuning, ClientSecurity, ConnInfo, ConnectError, Limits, PlaceLimits,
    Principal, Remote, Reset, Security, Standing, client_config, connect, connect_lazy, fetch_authority,
    fingerprints, listen, serve, serve_unix, server_config,
};

/// Far longer than anything here should take, but finite.
const LONG: Duration = Duration::from_secs(20);

/// The configuration of a server of that name.
fn config_of(authority: &Authority, name: &str) -> Arc<rustls::ServerConfig> {
    authority.named(name).server(&authority.pem)
}

/// A client with this identity.
fn client(authority: &Authority, server_name: &str, own: &Identity) -> ClientSecurity {
    ClientSecurity::Tls { config: own.client(&authority.pem), server_name: server_name.to_owned() }
}

/// A client with the certificate of a new peer.
fn new_peer(authority: &Authority, server_name: &str) -> (PeerId, ClientSecurity) {
    let own = authority.peer();
    (own.peer, client(authority, server_name, &own))
}

/// Limits that keep the test short.
fn limits() -> Limits {
    let short = Duration::from_millis(300);
    Limits { opening: short, stall: short, grace: short, ..Limits::peer() }
}

struct Server {
    address: SocketAddr,
    config: watch::Sender<Option<Arc<rustls::ServerConfig>>>,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// `config` is `None` while there is no certificate yet.
    fn start(config: Option<Arc<rustls::ServerConfig>>, limits: Limits) -> Self {
        let (config, configs) = watch::channel(config);
        Self::start_with(Security::Tls(configs), config, limits)
    }

    fn plaintext(limits: Limits) -> Self {
        Self::start_with(Security::Plaintext, watch::Sender::new(None), limits)
    }

    fn start_with(
        security: Security,
        config: watch::Sender<Option<Arc<rustls::ServerConfig>>>,
        limits: Limits,
    ) -> Self {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, security, service_fn(answer), limits, shutdown.clone()));
        Self { address, config, shutdown, serving }
    }

    fn remote(&self) -> Remote {
        Remote::Tcp { host: self.address.ip().to_string(), port: self.address.port() }
    }

    async fn connect(&self, security: ClientSecurity) -> Result<Channel, tonic::transport::Error> {
        connect(self.remote(), security, &ChannelTuning::control()).await
    }

    async fn stop(self) -> Duration {
        let asked = Instant::now();
        self.shutdown.cancel();
        timeout(LONG, self.serving).await.expect("it ends").unwrap().unwrap();
        asked.elapsed()
    }
}

/// `/who` returns the caller's [`ConnInfo`]. `/proven` gives the caller's peer a place. `/endless` sends bytes forever. `/large` does so in frames of 8 MiB.
/// `/reset` sends bytes forever, but resets the call at once. `/never` never answers.
async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let info = *request.extensions().get::<ConnInfo>().expect("every request bears it");
    match request.uri().path() {
        "/who" => Ok(Response::new(Body::new(http_body_util::Full::new(Bytes::from(format!("{info:?}")))))),
        "/proven" => {
            let standing = request.extensions().get::<Standing>().expect("every request bears it");
            let is_proven = standing.prove(Principal::Peer(info.peer.expect("it shows a certificate")));
            let answer = if is_proven { "a place" } else { "no place" };
            Ok(Response::new(Body::new(http_body_util::Full::new(Bytes::from(answer)))))
        }
        "/endless" => Ok(Response::new(Body::new(Endless(64 << 10)))),
        "/large" => Ok(Response::new(Body::new(Endless(8 << 20)))),
        "/reset" => {
            let reset = request.extensions().get::<Reset>().expect("every request bears it").clone();
            let body = Body::new(Endless(64 << 10)).map_frame(move |frame| {
                reset.now();
                frame
            });
            Ok(Response::new(Body::new(body)))
        }
        _ => std::future::pending().await,
    }
}

/// Frames of that size.
struct Endless(usize);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![7; self.0])))))
    }
}

async fn get(channel: &mut Channel, path: &str) -> Result<Response<Body>, tonic::transport::Error> {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    timeout(LONG, channel.ready().await?.call(request)).await.expect("an answer in time")
}

async fn who(channel: &mut Channel) -> String {
    text(channel, "/who").await
}

async fn text(channel: &mut Channel, path: &str) -> String {
    let body = get(channel, path).await.unwrap().into_body();
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Waits until the server closes the connection, and returns how long that took.
async fn until_closed(socket: &mut TcpStream) -> Duration {
    let since = Instant::now();
    let mut rest = Vec::new();
    // A reset counts as a close as well.
    let _ = timeout(LONG, socket.read_to_end(&mut rest)).await.expect("closed in time");
    since.elapsed()
}

#[tokio::test]
async fn silent_and_invalid_clients_are_closed_and_others_are_served() {
    let authority = Authority::new();
    let server = Server::start(Some(config_of(&authority, "localhost")), limits());
    let mut good = server.connect(authority.trusting("localhost")).await.unwrap();

    let dial = || TcpStream::connect(server.address);
    let mut idle = dial().await.unwrap();
    let mut half_hello = dial().await.unwrap();
    half_hello.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]).await.unwrap();
    let mut plain = dial().await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut http1 = dial().await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut noise = dial().await.unwrap();
    noise.write_all(&[0xa5; 4_096]).await.unwrap();
    for socket in [&mut idle, &mut half_hello, &mut plain, &mut http1, &mut noise] {
        assert!(until_closed(socket).await < LONG);
        assert!(who(&mut good).await.contains("peer: None"));
    }

    // After TLS: silence, an incomplete preface, or something other than HTTP/2.
    for after in [&b""[..], b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let connector = TlsConnector::from(client_config(&authority.pem, None).unwrap());
        let name = "localhost".try_into().unwrap();
        let mut stream = connector.connect(name, dial().await.unwrap()).await.unwrap();
        stream.write_all(after).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("closed in time");
        assert!(rest.is_empty());
    }
    who(&mut good).await;
    server.stop().await;
}

#[tokio::test]
async fn a_plaintext_server_closes_tls_and_silent_connections() {
    let server = Server::plaintext(limits());
    let mut channel = server.connect(ClientSecurity::Plaintext).await.unwrap();
    assert!(who(&mut channel).await.contains("127.0.0.1"));
    let tls = server.connect(Authority::new().trusting("localhost")).await.unwrap_err();
    assert!(matches!(ConnectError::of(&tls), Some(ConnectError::Tls(_))), "{tls:?}");
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    assert!(until_closed(&mut idle).await < LONG);
    server.stop().await;
}

#[tokio::test]
async fn certificates_change_without_rebinding() {
    let (first, second) = (Authority::new(), Authority::new());
    let server = Server::start(None, limits());
    let connect = |authority: &Authority| server.connect(authority.trusting("localhost"));
    assert!(connect(&first).await.is_err(), "no certificate, no handshake");

    server.config.send_replace(Some(config_of(&first, "localhost")));
    let mut early = connect(&first).await.unwrap();
    who(&mut early).await;
    server.config.send_replace(Some(config_of(&second, "localhost")));
    let mut late = connect(&second).await.unwrap();
    who(&mut late).await;
    who(&mut early).await;
    let refused = connect(&first).await.unwrap_err();
    assert!(matches!(ConnectError::of(&refused), Some(ConnectError::Tls(_))), "{refused:?}");

    server.config.send_replace(None);
    assert!(connect(&second).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn a_peer_is_known_by_its_certificate_and_reached_by_its_name() {
    let authority = Authority::new();
    let own = authority.peer();
    let own_name = own.peer.tls_name();
    let server = Server::start(Some(own.server(&authority.pem)), limits());

    let (peer, security) = new_peer(&authority, &own_name);
    let mut channel = server.connect(security).await.unwrap();
    assert!(who(&mut channel).await.contains(&format!("peer: Some({peer})")));
    // A name that is not the certificate's is refused, whatever address is dialled.
    let refused = server.connect(new_peer(&authority, "localhost").1).await.unwrap_err();
    assert!(matches!(ConnectError::of(&refused), Some(ConnectError::Tls(_))));
    // A certificate of another authority ends the handshake. The client only sees this when it reads.
    let stranger = Authority::new();
    let security = client(&authority, &own_name, &stranger.named(&peer.tls_name()));
    let mut channel = connect_lazy(server.remote(), security, &ChannelTuning::control());
    assert!(get(&mut channel, "/who").await.is_err());
    // A certificate of this authority identifies nobody if its name is another peer's, or is not a peer's
    // name.
    for name in [PeerId::from([9; 32]).tls_name(), "localhost".into()] {
        let security = client(&authority, &own_name, &authority.named(&name));
        let mut channel = server.connect(security).await.unwrap();
        assert!(who(&mut channel).await.contains("peer: None"), "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_connections_of_a_peer_are_limited() {
    let authority = Authority::new();
    let places = PlaceLimits { proven: 4, proven_each: 2, strangers: 4, strangers_each: 4 };
    let limits = Limits { places, ..limits() };
    let server = Server::start(Some(config_of(&authority, "localhost")), limits);
    let (_, security) = new_peer(&authority, "localhost");
    let dial = || connect_lazy(server.remote(), security.clone(), &ChannelTuning::control());
    let (mut first, mut second, mut third) = (dial(), dial(), dial());
    assert_eq!(text(&mut first, "/proven").await, "a place");
    assert_eq!(text(&mut second, "/proven").await, "a place");
    assert_eq!(text(&mut third, "/proven").await, "no place");
    let mut other = server.connect(new_peer(&authority, "localhost").1).await.unwrap();
    assert_eq!(text(&mut other, "/proven").await, "a place");
    drop(first);
    // The place becomes free when the server sees that the connection is gone.
    let again = async {
        while text(&mut third, "/proven").await == "no place" {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, again).await.expect("the place is given back");
    server.stop().await;
}

#[tokio::test]
async fn a_name_is_reached_although_one_of_its_addresses_accepts_and_says_nothing() {
    let authority = Authority::new();
    let (_, security) = new_peer(&authority, "localhost");
    // Which of the two loopback addresses comes first is up to this machine.
    let named: Vec<_> = tokio::net::lookup_host(("localhost", 1)).await.expect("a name").collect();
    if !(named.iter().any(|address| address.is_ipv4()) && named.iter().any(|address| address.is_ipv6())) {
        return eprintln!("SKIPPED: the name localhost does not have two addresses here");
    }
    for (served, silent) in [("127.0.0.1", "[::1]"), ("[::1]", "127.0.0.1")] {
        let Ok(listener) = listen(format!("{served}:0").parse().unwrap()) else {
            return eprintln!("SKIPPED: this machine has no {served}");
        };
        let port = listener.local_addr().unwrap().port();
        let Ok(_silent) = std::net::TcpListener::bind(format!("{silent}:{port}")) else {
            return eprintln!("SKIPPED: this machine has no {silent}");
        };
        let config = watch::Sender::new(Some(config_of(&authority, "localhost")));
        let (tls, stop) = (Security::Tls(config.subscribe()), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, tls, service_fn(answer), limits(), stop.clone()));
        let remote = Remote::Tcp { host: "localhost".to_owned(), port };
        let begin = Instant::now();
        connect(remote, security.clone(), &ChannelTuning::one_of_several()).await.expect("connected");
        assert!(begin.elapsed() < ChannelTuning::one_of_several().connect_timeout);
        stop.cancel();
        timeout(LONG, serving).await.expect("it ends").unwrap().unwrap();
    }
}

#[tokio::test]
async fn silent_connections_block_nobody() {
    let authority = Authority::new();
    // No timeout ends a connection within the test.
    let limits = Limits { opening: LONG * 9, ..limits() };
    let server = Server::start(Some(config_of(&authority, "localhost")), limits.clone());
    let mut early = server.connect(new_peer(&authority, "localhost").1).await.unwrap();
    who(&mut early).await;
    let mut caller = server.connect(authority.trusting("localhost")).await.unwrap();
    who(&mut caller).await;
    let all = limits.places.proven + limits.places.strangers;
    let mut silent = Vec::new();
    for _ in 0..3 {
        // As if a whole crowd renewed its connections.
        for _ in 0..all {
            silent.push(TcpStream::connect(server.address).await.unwrap());
        }
        let mut late = server.connect(new_peer(&authority, "localhost").1).await.unwrap();
        who(&mut late).await;
        let mut anybody = server.connect(authority.trusting("localhost")).await.unwrap();
        who(&mut anybody).await;
    }
    // The connections that had sent a request were not closed for the silent ones.
    who(&mut early).await;
    who(&mut caller).await;
    let each = limits.places.strangers_each;
    let newest = silent.split_off(silent.len() - each);
    for socket in &mut silent {
        assert!(until_closed(socket).await < LONG);
    }
    // `late` and `anybody` may have taken the places of the oldest two of `newest`.
    let mut byte = [0];
    for socket in &newest[2..] {
        let read = socket.try_read(&mut byte).map_err(|error| error.kind());
        assert_eq!(read, Err(std::io::ErrorKind::WouldBlock), "it is still open");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_reset_and_others_are_served() {
    let server = Server::plaintext(limits());
    let mut channel = server.connect(ClientSecurity::Plaintext).await.unwrap();
    let mut stuck = get(&mut channel, "/endless").await.unwrap().into_body();
    // The client's window is full and unread. The server waits for the client, and then gives up.
    let mut read = 0;
    let since = Instant::now();
    // The test is about a client that reads nothing for this long.
    tokio::time::sleep(limits().stall * 4).await;
    let end = loop {
        assert!(read <= 4 << 20, "{read} bytes");
        match timeout(LONG, stuck.frame()).await.expect("an end in time") {
            Some(Ok(frame)) => read += frame.into_data().unwrap().len(),
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(_))), "reset, not ended");
    assert!(since.elapsed() < LONG);

    // A client that reads is not disturbed, however long the call takes in total.
    let mut reader = get(&mut channel, "/endless").await.unwrap().into_body();
    let until = Instant::now() + limits().stall * 3;
    while Instant::now() < until {
        assert!(matches!(reader.frame().await, Some(Ok(_))));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_slow_reader_is_served_while_it_makes_progress() {
    let stall = Duration::from_secs(1);
    let server = Server::plaintext(Limits { stall, part: 16 << 10, ..limits() });
    let tuning = ChannelTuning { stream_window: 64 << 10, ..ChannelTuning::control() };
    let mut channel = connect(server.remote(), ClientSecurity::Plaintext, &tuning).await.unwrap();
    let mut reader = get(&mut channel, "/large").await.unwrap().into_body();
    let until = Instant::now() + stall * 3;
    let mut read = 0;
    while Instant::now() < until {
        let frame = reader.frame().await.expect("more").expect("not reset");
        read += frame.into_data().expect("data").len();
        // The rate at which the client reads.
        tokio::time::sleep(stall / 10).await;
    }
    assert!(read < 4 << 20, "the frame was in the server's hands all the time: {read}");
    server.stop().await;
}

#[tokio::test]
async fn unsent_data_of_a_reset_call_is_discarded() {
    let server = Server::plaintext(limits());
    let tuning = ChannelTuning { stream_window: 64 << 10, ..ChannelTuning::control() };
    let mut channel = connect(server.remote(), ClientSecurity::Plaintext, &tuning).await.unwrap();
    let mut body = get(&mut channel, "/reset").await.unwrap().into_body();
    let mut read = 0;
    let end = loop {
        match timeout(LONG, body.frame()).await.expect("an end in time") {
            Some(Ok(frame)) => read += frame.into_data().unwrap().len(),
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(_))), "reset, not ended");
    assert!(read <= 128 << 10, "{read}");
    server.stop().await;
}

#[tokio::test]
async fn stopping_takes_no_longer_than_the_grace_period() {
    let authority = Authority::new();
    let server = Server::start(Some(config_of(&authority, "localhost")), limits());
    let address = server.address;
    let idle = TcpStream::connect(address).await.unwrap();
    let mut good = server.connect(authority.trusting("localhost")).await.unwrap();
    who(&mut good).await;
    let mut hanging = server.connect(authority.trusting("localhost")).await.unwrap();
    let hanging = tokio::spawn(async move { get(&mut hanging, "/never").await.is_err() });
    let mut endless = server.connect(authority.trusting("localhost")).await.unwrap();
    let endless = get(&mut endless, "/endless").await.unwrap().into_body();
    let took = server.stop().await;
    assert!(took < limits().grace + Duration::from_secs(2), "{took:?}");
    assert!(hanging.await.unwrap(), "cut");
    assert!(TcpStream::connect(address).await.is_err(), "the port is free");
    drop((idle, endless));
}

#[tokio::test]
async fn stopping_with_nothing_to_wait_for_is_immediate() {
    let limits = Limits { grace: LONG, ..limits() };
    let server = Server::plaintext(limits);
    let mut channel = server.connect(ClientSecurity::Plaintext).await.unwrap();
    who(&mut channel).await;
    assert!(server.stop().await < Duration::from_secs(5));
}

#[tokio::test]
async fn an_authority_is_shown_before_it_is_trusted() {
    let authority = Authority::new();
    let server = Server::start(Some(config_of(&authority, "localhost")), limits());
    let port = server.address.port();
    let fetched = fetch_authority("localhost", port, LONG).await.unwrap();
    assert_eq!(fingerprints(&authority.pem).unwrap(), [fetched.fingerprint]);
    assert_eq!(fetched.fingerprint.to_string().parse::<AuthorityFingerprint>().unwrap(), fetched.fingerprint);
    assert_eq!(client_config(&fetched.pem, None).map(drop), Ok(()));
    assert_eq!(fingerprints(&fetched.pem).unwrap(), [fetched.fingerprint]);
    assert!(fetch_authority("127.0.0.1", port, LONG).await.is_err(), "not a name of the certificate");
    server.config.send_replace(None);
    assert!(fetch_authority("localhost", port, LONG).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_serves_its_own_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let shutdown = CancellationToken::new();
    let (_listen, listeners) = tokio::sync::watch::channel(std::sync::Arc::new(listener));
    let serving = tokio::spawn(serve_unix(listeners, service_fn(answer), limits(), shutdown.clone()));
    let remote = Remote::Unix(path.clone());
    let mut channel = connect(remote, ClientSecurity::Plaintext, &ChannelTuning::control()).await.unwrap();
    assert!(who(&mut channel).await.contains("remote: None"));
    shutdown.cancel();
    timeout(LONG, serving).await.unwrap().unwrap().unwrap();
    let gone = Remote::Unix(directory.path().join("none"));
    let refused = connect(gone, ClientSecurity::Plaintext, &ChannelTuning::control()).await.unwrap_err();
    assert!(matches!(ConnectError::of(&refused), Some(ConnectError::Dial(_))));
}

/// The connections wait in the backlog before the server starts, so the server accepts all of them before any
/// of their tasks runs.
#[tokio::test]
async fn connections_of_the_own_user_never_displace_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let limits = Limits { opening: LONG, ..Limits::control() };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut verbs = Vec::new();
    for _ in 0..4 * limits.places.strangers_each {
        let mut verb = UnixStream::connect(&path).unwrap();
        verb.write_all(preface).unwrap();
        verb.set_nonblocking(true).unwrap();
        verbs.push(tokio::net::UnixStream::from_std(verb).unwrap());
    }
    let shutdown = CancellationToken::new();
    let (_listen, listeners) = tokio::sync::watch::channel(std::sync::Arc::new(listener));
    let serving = tokio::spawn(serve_unix(listeners, service_fn(answer), limits, shutdown.clone()));
    for mut verb in verbs {
        let mut settings = [0; 9];
        let read = tokio::io::AsyncReadExt::read_exact(&mut verb, &mut settings);
        timeout(LONG, read).await.unwrap().expect("the server answers on every connection");
    }
    shutdown.cancel();
    timeout(LONG, serving).await.unwrap().unwrap().unwrap();
}

/// Runs `work` on a thread of another user. Returns `None` if this process is not root and cannot do so.
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can act as another user");
        return None;
    }
    let nobody = rustix::process::Uid::from_raw(65_534);
    let act = || {
        // Only this thread: to the kernel, each thread has its own user.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        work()
    };
    Some(std::thread::scope(|scope| scope.spawn(act).join().unwrap()))
}

/// A directory in which every user can make and reach sockets.
fn open_directory(mode: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    directory
}

#[tokio::test]
async fn nothing_is_sent_to_another_users_socket() {
    let directory = open_directory(0o777);
    let path = directory.path().join("control");
    let Some(listener) = as_nobody(|| UnixListener::bind(&path).unwrap()) else { return };
    let remote = Remote::Unix(path.clone());
    let refused = connect(remote, ClientSecurity::Plaintext, &ChannelTuning::control()).await.unwrap_err();
    let why = ConnectError::of(&refused);
    assert!(matches!(why, Some(ConnectError::AnotherUser { uid: 65_534, ours: 0, .. })), "{refused:?}");
    let mut heard = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty(), "{heard:?}");
}

#[tokio::test]
async fn calls_of_another_user_over_a_unix_socket_are_refused() {
    let directory = open_directory(0o711);
    let path = directory.path().join("control");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let shutdown = CancellationToken::new();
    let (_listen, listeners) = tokio::sync::watch::channel(std::sync::Arc::new(listener));
    let serving = tokio::spawn(serve_unix(listeners, service_fn(answer), limits(), shutdown.clone()));
    let at = path.clone();
    let call = || {
        as_nobody(|| {
            let mut socket = UnixStream::connect(at).unwrap();
            // The server may have closed it already.
            let _ = socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            answer
        })
    };
    let Some(answer) = tokio::task::spawn_blocking(call).await.unwrap() else { return };
    assert!(answer.is_empty(), "{answer:?}");
    let remote = Remote::Unix(path);
    let mut own = connect(remote, ClientSecurity::Plaintext, &ChannelTuning::control()).await.unwrap();
    who(&mut own).await;
    shutdown.cancel();
    timeout(LONG, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn large_headers_are_refused_and_the_connection_stays() {
    let server = Server::plaintext(limits());
    let mut channel = server.connect(ClientSecurity::Plaintext).await.unwrap();
    let request = Request::builder().uri("/who").header("x-large", "a".repeat(17 << 10));
    let request = request.body(Body::empty()).unwrap();
    let refused = channel.ready().await.unwrap().call(request).await;
    assert!(refused.map_or(true, |response| response.status() == 431));
    who(&mut channel).await;
    server.stop().await;
}

#[test]
fn pem_that_does_not_fit_is_refused() {
    let authority = Authority::new();
    let Identity { chain, key, .. } = authority.named("localhost");
    assert!(server_config(&chain, &key, Some(&authority.pem)).is_ok());
    assert!(server_config("", &key, None).is_err());
    assert!(server_config(&chain, "", None).is_err());
    assert!(server_config(&chain, &authority.named("another").key, None).is_err());
    assert!(server_config(&chain, &key, Some("nothing")).is_err());
    assert!(client_config("", None).is_err());
    assert!(client_config(&authority.pem, Some((&chain, "nothing"))).is_err());
}
