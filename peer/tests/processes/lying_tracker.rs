//! A tracker that lies. Whatever it answers, the daemon refuses invalid data, writes nothing outside the
//! right places, takes bounded memory and continues to answer.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message;
use prost_types::Timestamp;
use proto::{
    domain::{PeerId, visible},
    pb::{self, get_manifest_response::Frame as Manifest},
};
use testkit::content::manifest;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tracker_svc::ca::{Authority, OwnCertificate};
use transport::{Limits, Security};

use crate::support::{Peer, rss, wait_for};

const FILE: [u8; 16] = [5; 16];
const DAY: i64 = 86_400;
/// The memory by which a daemon may grow, in bytes, whatever the tracker answers.
const ROOM: u64 = 64 << 20;

/// The answers of the methods that lie: the messages, and whether the stream stays open after them.
type Lies = Arc<Mutex<HashMap<&'static str, (Vec<Vec<u8>>, bool)>>>;

/// The lying tracker's service. Certificates and sessions are honest. The test chooses the other answers.
#[derive(Clone)]
struct Service {
    authority: Arc<Authority>,
    lies: Lies,
    /// Set when all messages of an answer that stays open were taken.
    told: Arc<AtomicBool>,
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            let lie = service.lies.lock().expect("nobody panicked").get(method.as_str()).cloned();
            let (messages, goes_on) = match lie {
                Some(lie) => lie,
                None => (service.truth(&method, &first_message(request.into_body()).await), false),
            };
            Ok(answer(messages, goes_on.then_some(service.told)))
        })
    }
}

impl Service {
    fn truth(&self, method: &str, request: &[u8]) -> Vec<Vec<u8>> {
        let expires_at = Some(in_a_day());
        let answer = match method {
            "Login" => pb::LoginResponse { session_token: "mts_any".into(), expires_at }.encode_to_vec(),
            "WhoAmI" => pb::WhoAmIResponse { username: "ann".into(), ..Default::default() }.encode_to_vec(),
            "IssuePeerCert" => {
                let request = pb::IssuePeerCertRequest::decode(request).expect("a request");
                let issued =
                    self.authority.issue_peer(&request.csr_der, SystemTime::now()).expect("a good one");
                pb::IssuePeerCertResponse {
                    certificate_pem: issued.certificate_pem,
                    expires_at,
                    peer_id: issued.peer.to_string(),
                    tls_name: issued.peer.tls_name(),
                    authority_pem: self.authority.ca_pem().to_owned(),
                }
                .encode_to_vec()
            }
            // The announce stream, and methods that no test asks for.
            _ => return Vec::new(),
        };
        vec![answer]
    }
}

fn in_a_day() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    Timestamp { seconds: now.as_secs().cast_signed() + DAY, nanos: 0 }
}

async fn first_message(mut body: Body) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        if let Some(length) = bytes.get(1..5).map(|mut length| length.get_u32() as usize)
            && bytes.len() >= 5 + length
        {
            return bytes[5..5 + length].to_vec();
        }
    }
    Vec::new()
}

/// Returns a stream of these messages that ends with success. With `told`, the stream reports there that the
/// messages were taken, and stays open without sending more.
fn answer(messages: Vec<Vec<u8>>, told: Option<Arc<AtomicBool>>) -> http::Response<Body> {
    let framed = |message: Vec<u8>| {
        let mut bytes = BytesMut::with_capacity(message.len() + 5);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(message.len()).expect("not that long"));
        bytes.extend_from_slice(&message);
        Frame::data(bytes.freeze())
    };
    let mut trailers = http::HeaderMap::new();
    Status::new(Code::Ok, "").add_header(&mut trailers).expect("good headers");
    let messages = stream::iter(messages).map(framed);
    let end = stream::iter([Frame::<Bytes>::trailers(trailers)]);
    let frames = match told {
        Some(told) => {
            let silence = stream::once(async move {
                told.store(true, Ordering::Relaxed);
                std::future::pending().await
            });
            messages.chain(silence).boxed()
        }
        None => messages.chain(end).boxed(),
    };
    let mut response = http::Response::new(Body::new(StreamBody::new(frames.map(Ok::<_, Infallible>))));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}

/// The lying tracker, and a peer that is logged in there.
struct LyingTracker {
    peer: Peer,
    lies: Lies,
    told: Arc<AtomicBool>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Drop for LyingTracker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl LyingTracker {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let own = OwnCertificate::Issued(Vec::new());
        let authority = Authority::open_or_create(dir.path(), own, SystemTime::now()).expect("an authority");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("bound"));
        let (lies, told, stop) = (Lies::default(), Arc::default(), CancellationToken::new());
        let security = Security::Tls(authority.server_config());
        let service =
            Service { authority: Arc::new(authority), lies: Arc::clone(&lies), told: Arc::clone(&told) };
        let limits = Limits { grace: std::time::Duration::ZERO, ..Limits::tracker() };
        runtime.spawn(transport::serve(listener, security, service, limits, stop.clone()));
        let ca = dir.path().join("ca.pem").display().to_string();
        let peer = Peer::alone("ann", &[("PEER_TRACKER", &url), ("PEER_CA", &ca)]);
        peer.ok_with_password(&["login", "ann"]);
        Self { peer, lies, told, stop, _dir: dir, _runtime: runtime }
    }

    fn lie<M: Message>(&self, method: &'static str, messages: &[M], goes_on: bool) {
        let messages = messages.iter().map(Message::encode_to_vec).collect();
        self.lies.lock().expect("nobody panicked").insert(method, (messages, goes_on));
    }

    fn manifest(&self, frames: &[Manifest]) {
        let message = |frame: &Manifest| pb::GetManifestResponse { frame: Some(frame.clone()) };
        self.lie("GetManifest", &frames.iter().map(message).collect::<Vec<_>>(), false);
    }

    /// Lists everything in the peer's directory except for the daemon's home, with the lengths of files.
    fn outside_home(&self) -> BTreeSet<(PathBuf, u64)> {
        let mut found = BTreeSet::new();
        let mut left = vec![self.peer.path("")];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("one")) {
                if entry.file_type().expect("known").is_dir() {
                    left.extend((entry.path() != self.peer.path("home")).then(|| entry.path()));
                } else {
                    found.insert((entry.path(), entry.metadata().expect("there").len()));
                }
            }
        }
        found
    }

    fn rss(&self) -> u64 {
        rss(self.peer.daemon_pid().expect("the daemon lives"))
    }
}

/// Returns a correct manifest of two pieces.
fn good(name: &str) -> [Manifest; 2] {
    let manifest = manifest("x", &[7; 600_000]);
    let header = pb::FileHeader { name: name.into(), ..manifest.header().into() };
    [
        Manifest::Start(pb::ManifestStart { file_id: FILE.to_vec().into(), header: Some(header) }),
        Manifest::Pieces(proto::convert::to_piece_hashes(0, manifest.pieces())),
    ]
}

/// Returns the correct manifest with another header.
fn header(change: impl FnOnce(&mut pb::FileHeader)) -> Vec<Manifest> {
    let [mut start, pieces] = good("x");
    if let Manifest::Start(pb::ManifestStart { header: Some(header), .. }) = &mut start {
        change(header);
    }
    vec![start, pieces]
}

/// Returns the correct manifest with other hashes.
fn pieces(change: impl FnOnce(&mut pb::PieceHashes)) -> Vec<Manifest> {
    let [start, mut pieces] = good("x");
    if let Manifest::Pieces(run) = &mut pieces {
        change(run);
    }
    vec![start, pieces]
}

#[test]
fn impossible_manifests_are_refused_and_nothing_is_written() {
    let liar = LyingTracker::start();
    std::fs::create_dir(liar.peer.path("out")).expect("made");
    let before = liar.outside_home();
    let base = liar.rss();
    let [start, run] = good("x");
    let id = |id: &[u8]| {
        let Manifest::Start(start) = start.clone() else { unreachable!() };
        vec![Manifest::Start(pb::ManifestStart { file_id: id.to_vec().into(), ..start }), run.clone()]
    };
    let huge = "x".repeat(200_000);
    let cases: Vec<(&str, Vec<Manifest>)> = vec![
        ("nothing", vec![]),
        ("no header", vec![run.clone()]),
        ("no pieces", vec![start.clone()]),
        ("two headers", vec![start.clone(), start.clone(), run.clone()]),
        ("a piece run twice", vec![start.clone(), run.clone(), run.clone()]),
        ("a path for a name", header(|header| header.name = "../../x".into())),
        ("an absolute path for a name", header(|header| header.name = "/tmp/x".into())),
        ("another name", header(|header| header.name = "y".into())),
        ("a huge name", header(|header| header.name = huge.clone())),
        ("2^40 pieces", header(|header| header.length = 1 << 59)),
        ("the longest length", header(|header| header.length = u64::MAX)),
        ("a length of one piece", header(|header| header.length = 1)),
        ("a length of one piece more", header(|header| header.length = 3 << 19)),
        ("another length of pieces", header(|header| header.piece_length = 1)),
        ("a bad root", header(|header| header.blake3 = vec![9; 32].into())),
        ("a short root", header(|header| header.blake3 = vec![9; 31].into())),
        ("a short hash of the whole", header(|header| header.sha1 = vec![9; 19].into())),
        ("hashes from the end on", pieces(|run| run.first_piece = 1 << 40)),
        ("hashes past the end", pieces(|run| run.first_piece = u64::MAX)),
        ("hashes cut short", pieces(|run| run.sha1 = vec![1; 39].into())),
        ("more of one hash than of the other", pieces(|run| run.blake3 = vec![1; 32].into())),
        ("hashes that don't fold into the root", pieces(|run| run.blake3 = vec![1; 64].into())),
        ("more hashes than a frame holds", {
            pieces(|run| (run.sha1, run.blake3) = (vec![1; 20 * 5_000].into(), vec![1; 32 * 5_000].into()))
        }),
        ("no id", id(&[])),
        ("a long id", id(&[1; 17])),
        ("an id of zeros", id(&[0; 16])),
    ];
    for (what, frames) in cases {
        liar.manifest(&frames);
        let done = liar.peer.run(&["download", "g1", "x", "out/", "--timeout", "20", "--json"]);
        assert_eq!((done.code, done.reason().as_str()), (11, "CORRUPT"), "{what}: {done:?}");
        assert!(done.stderr.len() < 4_096, "{what}: {} bytes of an error", done.stderr.len());
        assert_eq!(liar.outside_home(), before, "{what}");
    }
    // An endless answer, sent as fast as it is read.
    let endless: Vec<_> = [start].into_iter().chain(std::iter::repeat_n(run, 10_000)).collect();
    liar.manifest(&endless);
    assert_eq!(liar.peer.run(&["download", "g1", "x", "out/", "--timeout", "20"]).code, 11);
    assert_eq!(liar.outside_home(), before);
    let grown = liar.rss().saturating_sub(base);
    assert!(grown < ROOM, "{grown} bytes");
    assert_eq!(liar.peer.json("show-downloads")["downloads"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_million_sources_and_impossible_times_do_no_harm() {
    let liar = LyingTracker::start();
    let base = liar.rss();
    liar.manifest(&good("x"));
    let file = || Some(pb::FileRef { group_id: "g1".into(), file_id: FILE.to_vec().into() });
    let ticket = |file, ticket: &str, seconds| pb::Ticket {
        file,
        ticket: ticket.into(),
        expires_at: Some(Timestamp { seconds, nanos: 0 }),
    };
    let other = |n: u32| {
        let id = [&n.to_be_bytes()[..], &[1; 12]].concat();
        Some(pb::FileRef { group_id: "g1".into(), file_id: id.into() })
    };
    // One ticket that is valid for ever, and thousands that nobody asked for.
    let mut tickets = vec![ticket(file(), "any", i64::MAX)];
    tickets.extend((0..10_000).map(|n| ticket(other(n), "any", i64::MIN)));
    liar.lie("IssueTickets", &[pb::IssueTicketsResponse { tickets, refusals: Vec::new() }], false);

    // A million peers at unreachable addresses, a thousand in each message. Some addresses are malformed.
    let source = |n: u32| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let id = PeerId::from(key);
        pb::Source {
            peer: Some(pb::PeerAddress {
                peer_id: id.to_string(),
                tls_name: id.tls_name(),
                addresses: vec![
                    ["127.0.0.1:1", "", "\u{1b}[2J", "http://x/../..:80"][n as usize % 4].into();
                    9
                ],
                username: "mallory".into(),
                token: String::new(),
            }),
            ..Default::default()
        }
    };
    let news = |n: u32| pb::AnnounceResponse {
        now: Some(Timestamp { seconds: if n.is_multiple_of(2) { i64::MIN } else { i64::MAX }, nanos: -1 }),
        epochs: vec![pb::GroupEpoch { group_id: "g".repeat(1_000), min_epoch: u64::MAX }],
        changes: vec![pb::SwarmChange {
            file: file(),
            sources: (n * 1_000..(n + 1) * 1_000).map(source).collect(),
            gone_peer_ids: vec!["x".repeat(1_000)],
            ..Default::default()
        }],
        ..Default::default()
    };
    let welcome = pb::AnnounceWelcome {
        heartbeat_seconds: u32::MAX,
        observed_ip: "not an address".into(),
        keys: vec![pb::TicketKey { key_id: "k".repeat(10_000), public_key: vec![1; 31].into() }],
        ..Default::default()
    };
    let welcome = pb::AnnounceResponse { welcome: Some(welcome), ..Default::default() };
    let messages: Vec<_> = std::iter::once(welcome).chain((0..1_000).map(news)).collect();
    liar.lie("Announce", &messages, true);

    liar.peer.starts("g1", "x");
    let shown = wait_for("the download hears of sources", || {
        let download = liar.peer.download("g1", "x")?;
        download["sources"].as_array().is_some_and(|sources| !sources.is_empty()).then_some(download)
    });
    assert_eq!(shown["done_bytes"], 0);
    wait_for("all was taken in, and the daemon answers meanwhile", || {
        let sources = liar.peer.download("g1", "x")?["sources"].as_array()?.len();
        assert!(sources <= 1_000, "{sources} sources are kept");
        liar.told.load(Ordering::Relaxed).then_some(())
    });
    let grown = liar.rss().saturating_sub(base);
    assert!(grown < ROOM, "{grown} bytes");
    assert!(!liar.peer.log().contains("panicked"), "{}", liar.peer.log());
    liar.peer.ok(&["stop-download", "g1", "x", "--discard"]);
    let left: Vec<_> = liar.outside_home().into_iter().collect();
    assert_eq!(left, [], "nothing is left of it");
}

#[test]
fn the_newest_keys_are_kept_until_logout_and_the_epochs_longer() {
    let liar = LyingTracker::start();
    let key =
        |number: u8| pb::TicketKey { key_id: format!("key{number}"), public_key: vec![number; 32].into() };
    let welcome = pb::AnnounceWelcome { keys: vec![key(1)], ..Default::default() };
    let welcome = pb::AnnounceResponse { welcome: Some(welcome), ..Default::default() };
    let epochs = vec![pb::GroupEpoch { group_id: "g1".into(), min_epoch: 7 }];
    let later = pb::AnnounceResponse { keys: vec![key(2)], epochs, ..Default::default() };
    liar.lie("Announce", &[welcome, later], true);
    let kept = || {
        let files = std::fs::read_dir(liar.peer.path("home/engine")).ok()?.flatten();
        let mut files =
            files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
        std::fs::read_to_string(files.next()?).ok()
    };
    let told = wait_for("the later key is kept", || kept().filter(|kept| kept.contains("key2")));
    assert!(!told.contains("key1") && told.contains("\"g1\":7"), "{told}");
    liar.peer.run(&["logout"]);
    let left = wait_for("the key is gone", || kept().filter(|kept| !kept.contains("key2")));
    assert!(left.contains("\"g1\":7"), "{left}");
}

#[test]
fn lists_are_shown_escaped_and_come_to_an_end() {
    let liar = LyingTracker::start();
    let file = |name: &str| pb::File {
        file_id: FILE.to_vec().into(),
        header: Some(pb::FileHeader { name: name.into(), length: u64::MAX, ..Default::default() }),
        seeders: u32::MAX,
        publisher: "\u{1b}]0;x\u{7}".into(),
        ..Default::default()
    };
    let files = vec![file("\u{1b}[2J../../x\r\n"), file(&"\u{202e}\u{3164}\u{34f}\u{e0041}".repeat(25_000))];
    liar.lie("ListFiles", &[pb::ListFilesResponse { files, next_page_token: String::new() }], false);
    for flags in [&["list-files", "g1"][..], &["list-files", "g1", "--json"]] {
        let shown = liar.peer.ok(flags).stdout;
        let hidden = |line| visible::hidden(line).next().is_some();
        assert!(!shown.lines().any(hidden), "{shown:.300?}");
        assert!(shown.contains("202e"), "{shown:.300?}");
    }
    // The next page is always this one again.
    let page = pb::ListFilesResponse { files: vec![file("x")], next_page_token: "more".into() };
    liar.lie("ListFiles", &[page], false);
    let done = liar.peer.run(&["list-files", "g1", "--json"]);
    assert_eq!(done.code, 11, "{done:?}");
    liar.peer.ok(&["status"]);
}
