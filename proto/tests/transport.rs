//! The transport over real loopback sockets: what good clients get, and how long bad ones last.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use proto::{
    domain::PeerId,
    transport::{
        AuthorityFingerprint, ChannelTuning, ClientSecurity, ConnInfo, ConnectError, Limits, Remote,
        Security, client_config, connect, connect_lazy, fetch_authority, fingerprints, listen,
        peer_id_of_spki, serve, serve_unix, server_config,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
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

/// Far longer than anything here should take, far shorter than for ever.
const LONG: Duration = Duration::from_secs(20);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A chain and a key for that name.
    fn issue(&self, name: &str, key: &KeyPair) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pem = params.signed_by(key, &self.issuer).unwrap().pem();
        (pem + &self.pem, key.serialize_pem())
    }

    fn server(&self, name: &str) -> Arc<rustls::ServerConfig> {
        let (chain, key) = self.issue(name, &KeyPair::generate().unwrap());
        server_config(&chain, &key, Some(&self.pem)).unwrap()
    }

    fn trusting(&self, server_name: &str) -> ClientSecurity {
        let config = client_config(&self.pem, None).unwrap();
        ClientSecurity::Tls { config, server_name: server_name.to_owned() }
    }

    /// A client with the certificate of a new peer.
    fn peer(&self, server_name: &str) -> (PeerId, ClientSecurity) {
        let key = KeyPair::generate().unwrap();
        let peer = peer_id_of_spki(&key.subject_public_key_info());
        (peer, self.client(server_name, &peer.tls_name(), &key))
    }

    fn client(&self, server_name: &str, own_name: &str, key: &KeyPair) -> ClientSecurity {
        let (chain, key) = self.issue(own_name, key);
        let config = client_config(&self.pem, Some((&chain, &key))).unwrap();
        ClientSecurity::Tls { config, server_name: server_name.to_owned() }
    }
}

/// Limits that make a test quick.
fn limits() -> Limits {
    let short = Duration::from_millis(300);
    Limits { handshake: short, preface: short, stall: short, grace: short, ..Limits::peer() }
}

struct Server {
    address: SocketAddr,
    config: watch::Sender<Option<Arc<rustls::ServerConfig>>>,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// `config` of `None`: no certificate yet.
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

/// `/who`: the caller's [`ConnInfo`]. `/endless`: bytes for ever. `/never`: no answer.
async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let info = *request.extensions().get::<ConnInfo>().expect("every request bears it");
    match request.uri().path() {
        "/who" => Ok(Response::new(Body::new(http_body_util::Full::new(Bytes::from(format!("{info:?}")))))),
        "/endless" => Ok(Response::new(Body::new(Endless))),
        _ => std::future::pending().await,
    }
}

struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 64 << 10])))))
    }
}

async fn get(channel: &mut Channel, path: &str) -> Result<Response<Body>, tonic::transport::Error> {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    timeout(LONG, channel.ready().await?.call(request)).await.expect("an answer in time")
}

async fn who(channel: &mut Channel) -> String {
    let body = get(channel, "/who").await.unwrap().into_body();
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Waits until the server hangs up, and says how long that took.
async fn until_closed(socket: &mut TcpStream) -> Duration {
    let since = Instant::now();
    let mut rest = Vec::new();
    // A reset is as good an end as any.
    let _ = timeout(LONG, socket.read_to_end(&mut rest)).await.expect("closed in time");
    since.elapsed()
}

#[tokio::test]
async fn silent_and_foolish_clients_are_closed_and_good_ones_served() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.server("localhost")), limits());
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

    // TLS, and then nothing, or something else than HTTP/2.
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
async fn a_plaintext_server_closes_tls_and_silence() {
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
async fn certificates_come_change_and_go_without_rebinding() {
    let (first, second) = (Authority::new(), Authority::new());
    let server = Server::start(None, limits());
    let connect = |authority: &Authority| server.connect(authority.trusting("localhost"));
    assert!(connect(&first).await.is_err(), "no certificate, no handshake");

    server.config.send_replace(Some(first.server("localhost")));
    let mut early = connect(&first).await.unwrap();
    who(&mut early).await;
    server.config.send_replace(Some(second.server("localhost")));
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
    let key = KeyPair::generate().unwrap();
    let own_name = peer_id_of_spki(&key.subject_public_key_info()).tls_name();
    let (chain, key) = authority.issue(&own_name, &key);
    let config = server_config(&chain, &key, Some(&authority.pem)).unwrap();
    let server = Server::start(Some(config), limits());

    let (peer, security) = authority.peer(&own_name);
    let mut channel = server.connect(security).await.unwrap();
    assert!(who(&mut channel).await.contains(&format!("peer: Some({peer})")));
    // Another name than the certificate's, whatever address is dialled.
    let refused = server.connect(authority.peer("localhost").1).await.unwrap_err();
    assert!(matches!(ConnectError::of(&refused), Some(ConnectError::Tls(_))));
    // A certificate of another authority ends the handshake, if only once the client reads.
    let stranger = Authority::new();
    let (other_chain, other_key) = stranger.issue(&peer.tls_name(), &KeyPair::generate().unwrap());
    let config = client_config(&authority.pem, Some((&other_chain, &other_key))).unwrap();
    let security = ClientSecurity::Tls { config, server_name: own_name.clone() };
    let mut channel = connect_lazy(server.remote(), security, &ChannelTuning::control());
    assert!(get(&mut channel, "/who").await.is_err());
    // A certificate of this authority with another peer's name, or a name that is no peer's, is nobody's.
    for name in [PeerId::from([9; 32]).tls_name(), "localhost".into()] {
        let security = authority.client(&own_name, &name, &KeyPair::generate().unwrap());
        let mut channel = server.connect(security).await.unwrap();
        assert!(who(&mut channel).await.contains("peer: None"), "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_peer_has_so_many_connections_and_no_more() {
    let authority = Authority::new();
    let limits = Limits { connections_per_peer: 2, connections: 4, ..limits() };
    let server = Server::start(Some(authority.server("localhost")), limits);
    let (_, security) = authority.peer("localhost");
    let dial = || connect_lazy(server.remote(), security.clone(), &ChannelTuning::control());
    let (mut first, mut second, mut third) = (dial(), dial(), dial());
    who(&mut first).await;
    who(&mut second).await;
    assert!(get(&mut third, "/who").await.is_err());
    let mut other = server.connect(authority.peer("localhost").1).await.unwrap();
    who(&mut other).await;
    drop(first);
    // Its place is given back once the server sees that it went.
    let again = async {
        while get(&mut third, "/who").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, again).await.expect("the place is given back");
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_reset_and_others_are_served() {
    let server = Server::plaintext(limits());
    let mut channel = server.connect(ClientSecurity::Plaintext).await.unwrap();
    let mut stuck = get(&mut channel, "/endless").await.unwrap().into_body();
    // As much as its window takes has come and lies unread; then the server waits for it, and gives up.
    let mut read = 0;
    let since = Instant::now();
    // To read nothing for so long is what is tested.
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

    // One that reads is not disturbed, however long it takes over all.
    let mut reader = get(&mut channel, "/endless").await.unwrap().into_body();
    let until = Instant::now() + limits().stall * 3;
    while Instant::now() < until {
        assert!(matches!(reader.frame().await, Some(Ok(_))));
    }
    server.stop().await;
}

#[tokio::test]
async fn stopping_waits_for_nobody_longer_than_the_grace() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.server("localhost")), limits());
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
    let server = Server::start(Some(authority.server("localhost")), limits());
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
async fn a_unix_socket_serves_whoever_may_open_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve_unix(listener, service_fn(answer), limits(), shutdown.clone()));
    let remote = Remote::Unix(path.clone());
    let mut channel = connect(remote, ClientSecurity::Plaintext, &ChannelTuning::control()).await.unwrap();
    assert!(who(&mut channel).await.contains("remote: None"));
    shutdown.cancel();
    timeout(LONG, serving).await.unwrap().unwrap().unwrap();
    let gone = Remote::Unix(directory.path().join("none"));
    let refused = connect(gone, ClientSecurity::Plaintext, &ChannelTuning::control()).await.unwrap_err();
    assert!(matches!(ConnectError::of(&refused), Some(ConnectError::Dial(_))));
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
    let key = KeyPair::generate().unwrap();
    let (chain, key) = authority.issue("localhost", &key);
    assert!(server_config(&chain, &key, Some(&authority.pem)).is_ok());
    assert!(server_config("", &key, None).is_err());
    assert!(server_config(&chain, "", None).is_err());
    assert!(server_config(&chain, &KeyPair::generate().unwrap().serialize_pem(), None).is_err());
    assert!(server_config(&chain, &key, Some("nothing")).is_err());
    assert!(client_config("", None).is_err());
    assert!(client_config(&authority.pem, Some((&chain, "nothing"))).is_err());
}
