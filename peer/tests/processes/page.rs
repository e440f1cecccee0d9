//! The page of a daemon: who gets it, what it does, and what it refuses. `browser` looks at it with a real browser.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{MIB, Peer, Tracker, wait_for};

/// An answer of the page.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends a request as it is, and reads the answer.
pub(crate) fn send(address: &str, request: &str) -> Answer {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    socket.write_all(request.as_bytes()).expect("written");
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("a head");
        all.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&all).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let length = if request.starts_with("HEAD ") { None } else { length };
    let mut body = Vec::new();
    // Some servers keep the connection open.
    socket.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body).expect("a body");
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        body = joined(&body);
    }
    Answer { status, headers, body }
}

/// The chunks of a body, joined.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = chunks.windows(2).position(|two| two == b"\r\n") {
        let length = String::from_utf8_lossy(&chunks[..at]);
        let length = usize::from_str_radix(&length, 16).expect("a length");
        body.extend_from_slice(&chunks[at + 2..at + 2 + length]);
        chunks = &chunks[at + 2 + length + 2..];
    }
    body
}

/// A browser that is logged in.
struct Browser {
    address: String,
    cookie: String,
}

impl Browser {
    fn enter(peer: &Peer) -> Self {
        let url = peer.json("ui")["url"].as_str().expect("a link").to_owned();
        let (address, path) =
            url.strip_prefix("http://").and_then(|url| url.split_once('/')).expect("a link");
        let answer =
            send(address, &format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{answer:?}");
        let cookie = answer.header("set-cookie");
        assert!(cookie.contains("; HttpOnly; SameSite=Strict; Path=/"), "{cookie}");
        let cookie = cookie.split(';').next().expect("a cookie").to_owned();
        Self { address: address.to_owned(), cookie }
    }

    fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> Answer {
        let Self { address, cookie } = self;
        let length = body.len();
        send(
            address,
            &format!(
                "{method} {path} HTTP/1.1\r\nHost: {address}\r\nCookie: other=1; {cookie}\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n{more}\r\n{body}"
            ),
        )
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    /// Sends a form as this page would.
    fn submit(&self, form: &str) -> Answer {
        self.ask("POST", "/do", &format!("Origin: http://{}\r\n", self.address), form)
    }
}

#[test]
fn nobody_gets_the_page_without_a_link() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["create-group", "g1"]);
    for bad in ["nonsense", "127.0.0.1"] {
        assert_eq!(ann.refused(2, &format!("ui --listen {bad}")), "INVALID_REQUEST", "{bad}");
    }
    let browser = Browser::enter(&ann);
    assert_eq!(ann.refused(6, "ui --listen [::1]:0"), "ALREADY_EXISTS");
    let home = browser.get("/");
    assert_eq!(home.status, 200, "{home:?}");
    assert!(home.text().contains("href=\"/group/g1\""), "{}", home.text());
    let policy = home.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(
        (home.header("cache-control"), home.header("x-content-type-options")),
        ("no-store", "nosniff")
    );

    let Browser { address, cookie } = &browser;
    let port = address.rsplit(':').next().expect("a port");
    let link = ann.json("ui")["url"].as_str().expect("a link").to_owned();
    let link = link.strip_prefix(&format!("http://{address}")).expect("the same page");
    let own = format!("Cookie: {cookie}\r\n");
    let origin = format!("Origin: http://{address}\r\n");
    for (name, head, expected) in [
        ("no cookie", format!("GET / HTTP/1.1\r\nHost: {address}\r\n"), 401),
        (
            "a guess",
            format!("GET / HTTP/1.1\r\nHost: {address}\r\nCookie: minitorrent-{port}={}\r\n", "0".repeat(64)),
            401,
        ),
        ("the style without a cookie", format!("GET /page.css HTTP/1.1\r\nHost: {address}\r\n"), 401),
        ("a file without a cookie", format!("GET /read/g1/f HTTP/1.1\r\nHost: {address}\r\n"), 401),
        ("another host", format!("GET / HTTP/1.1\r\nHost: evil.example:{port}\r\n{own}"), 421),
        ("no port", format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{own}"), 421),
        ("no host", format!("GET / HTTP/1.0\r\n{own}"), 421),
        ("a link for another host", format!("GET {link} HTTP/1.1\r\nHost: evil.example:{port}\r\n"), 421),
        ("a guessed link", format!("GET /enter/{} HTTP/1.1\r\nHost: {address}\r\n", "0".repeat(64)), 401),
        ("no origin", format!("POST /do HTTP/1.1\r\nHost: {address}\r\n{own}"), 403),
        (
            "another origin",
            format!("POST /do HTTP/1.1\r\nHost: {address}\r\nOrigin: http://evil.example\r\n{own}"),
            403,
        ),
        ("a hidden origin", format!("POST /do HTTP/1.1\r\nHost: {address}\r\nOrigin: null\r\n{own}"), 403),
        (
            "another page of this host",
            format!("POST /do HTTP/1.1\r\nHost: {address}\r\nOrigin: http://127.0.0.1:1\r\n{own}"),
            403,
        ),
        ("an own origin without a cookie", format!("POST /do HTTP/1.1\r\nHost: {address}\r\n{origin}"), 401),
        ("posting a link", format!("POST {link} HTTP/1.1\r\nHost: {address}\r\n{origin}"), 401),
        ("nowhere", format!("GET /nowhere HTTP/1.1\r\nHost: {address}\r\n{own}"), 404),
        ("another method", format!("DELETE / HTTP/1.1\r\nHost: {address}\r\n{origin}{own}"), 405),
    ] {
        let answer = send(address, &format!("{head}Connection: close\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.status, expected, "{name}: {answer:?}");
        assert!(
            !answer.text().contains("g1") && !answer.headers.contains_key("set-cookie"),
            "{name}: {answer:?}"
        );
    }
    // None of this used the link up. It works once.
    let enter = format!("GET {link} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    assert_eq!(send(address, &enter).status, 303);
    assert_eq!(send(address, &enter).status, 401);
    ann.ok(&["daemon", "stop"]);
    assert!(TcpStream::connect(address).is_err(), "the page ends with the daemon");
}

#[test]
fn the_owner_decides_about_requests_and_files_move() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    let (ann_sees, bob_sees) = (Browser::enter(&ann), Browser::enter(&bob));
    assert_eq!(
        ann_sees.submit("do=create-group&group=g1&back=%2Fgroup%2Fg1").header("location"),
        "/group/g1"
    );
    assert_eq!(bob_sees.submit("do=join-group&group=g1").status, 303);
    let page = ann_sees.get("/group/g1").text();
    assert!(page.contains("value=\"accept\""), "{page}");
    // Another member can't accept, whatever form they send: the rules are those of the verbs.
    let refused = bob_sees.submit("do=accept&group=g1&user=bob");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(bob_sees.get("/group/g1").status, 403);
    assert_eq!(ann_sees.submit("do=accept&group=g1&user=bob").status, 303);

    let path = ann.path("data.mp4");
    crate::support::make_file(&path, 3 * MIB + 7, 1);
    let form = format!("do=share&group=g1&path={}", path.display());
    assert_eq!(ann_sees.submit(&form).status, 303);
    assert!(bob_sees.get("/group/g1").text().contains("data.mp4"));
    let to = bob.path("out/data.mp4");
    let form = format!("do=download&group=g1&name=data.mp4&to={}", to.display());
    assert_eq!(bob_sees.submit(&form).status, 303);
    bob.waits_until_complete("g1", "data.mp4");
    crate::support::assert_same(&path, &to);
    let shown = wait_for("the page shows it", || {
        let page = bob_sees.get("/").text();
        page.contains("data-state=\"complete\"").then_some(page)
    });
    assert!(shown.contains("href=\"/play/g1/data.mp4\"") && shown.contains("<svg class=\"map\""), "{shown}");
    assert_eq!(bob_sees.submit("do=limits&up=500K&down=").status, 303);
    assert!(bob_sees.get("/").text().contains("500K"));
    for (form, status) in [
        ("do=limits&up=fast", 400),
        ("do=nonsense", 400),
        ("", 400),
        ("do=download&group=g1&name=data.mp4&to=relative", 400),
        ("do=stop-share&group=g1&name=other", 404),
        ("do=remove&group=g1&user=ann", 403),
    ] {
        assert_eq!(bob_sees.submit(form).status, status, "{form}");
    }
    assert_eq!(ann_sees.submit("do=remove&group=g1&user=bob").status, 303);
    assert!(!ann_sees.get("/group/g1").text().contains("value=\"remove\""));
}

#[test]
fn parts_of_a_file_are_read() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["create-group", "g1"]);
    let content = std::fs::read(ann.shares("g1", "film é.mp4", 2 * MIB + 5, 1)).expect("a file");
    std::fs::write(ann.path("page.html"), "<script>alert(1)</script>").expect("written");
    ann.ok(&["upload", "page.html", "g1"]);
    let (browser, path) = (Browser::enter(&ann), "/read/g1/film%20%C3%A9.mp4");
    let all = browser.get(path);
    assert!(all.status == 200 && all.body == content);
    assert_eq!((all.header("accept-ranges"), all.header("content-type")), ("bytes", "video/mp4"));
    let (tag, size) = (all.header("etag").to_owned(), content.len());
    for (more, status, from, to) in [
        ("Range: bytes=0-0\r\n".to_owned(), 206, 0, 1),
        ("Range: bytes=524280-524300\r\n".to_owned(), 206, 524_280, 524_301),
        ("Range: bytes=-5\r\n".to_owned(), 206, size - 5, size),
        (format!("Range: bytes={}-\r\n", size - 1), 206, size - 1, size),
        (format!("Range: bytes=1-2\r\nIf-Range: {tag}\r\n"), 206, 1, 3),
        ("Range: bytes=1-2\r\nIf-Range: \"0\"\r\n".to_owned(), 200, 0, size),
        ("Range: bytes=9-1\r\n".to_owned(), 200, 0, size),
    ] {
        let answer = browser.ask("GET", path, &more, "");
        assert!(
            answer.status == status && answer.body == content[from..to],
            "{more}: {} {:?}",
            answer.status,
            answer.headers
        );
        let range = if status == 206 { format!("bytes {from}-{}/{size}", to - 1) } else { String::new() };
        assert_eq!(answer.header("content-range"), range, "{more}");
    }
    let outside = browser.ask("GET", path, &format!("Range: bytes={size}-\r\n"), "");
    assert_eq!((outside.status, outside.header("content-range")), (416, format!("bytes */{size}").as_str()));
    let head = browser.ask("HEAD", path, "", "");
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, size.to_string().as_str(), 0)
    );
    // What could hold a script is saved, and can't act as a part of the page.
    let html = browser.get("/read/g1/page.html");
    assert_eq!(
        (html.header("content-type"), html.header("content-disposition")),
        ("application/octet-stream", "attachment")
    );
    assert!(html.header("content-security-policy").starts_with("sandbox;"), "{html:?}");
    assert!(browser.get("/play/g1/film%20%C3%A9.mp4").text().contains("<video controls"));
    assert_eq!(browser.get("/read/g1/nothing").status, 404);
    assert_eq!(browser.get("/read/g1/page.html/x").status, 404);
}

#[test]
fn news_of_a_page_come_by_themselves() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let Browser { address, cookie } = Browser::enter(&ann);
    let mut socket = TcpStream::connect(&address).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let head = format!("GET /events HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("written");
    let mut seen = Vec::new();
    let mut until = |what: &str| {
        let mut part = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(what) {
            let count = socket.read(&mut part).expect("news");
            assert!(count > 0, "the stream ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&part[..count]);
        }
    };
    until("event: status");
    until("No shares.");
    ann.ok(&["create-group", "g1"]);
    ann.shares("g1", "<b>news", MIB, 1);
    until("&lt;b&gt;news");
}

/// Runs a program and returns what it prints.
fn output(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn other_hosts_get_the_page_over_tls_alone() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    // By its form this is no address of loopback, and only this machine reaches it.
    let opened = ann.json("ui --listen [::ffff:127.0.0.1]:0");
    let text = |key: &str| opened[key].as_str().expect("text").to_owned();
    let (url, sha256) = (text("url"), text("certificate_sha256"));
    let (before, link) = url.split_once("/enter/").expect("a link");
    let port = before.strip_prefix("https://").and_then(|host| host.rsplit(':').next()).expect("a port");
    let ask = |scheme: &str, path: &str, more: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--include", "--insecure", "--max-time", "30"]).args(more);
        output(curl.arg(format!("{scheme}://127.0.0.1:{port}{path}")))
    };
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(ask("http", "/", &[]), "", "nothing without TLS");
    assert_eq!(status(&ask("https", "/", &[])), "401", "nothing without the link");
    assert_eq!(status(&ask("https", &format!("/enter/{link}"), &["--header", "Host: evil.example"])), "421");
    let entered = ask("https", &format!("/enter/{link}"), &[]);
    let (_, cookie) = entered.split_once("set-cookie: ").unwrap_or_else(|| panic!("{entered}"));
    let cookie = cookie.lines().next().expect("a line");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Path=/; Secure"), "{cookie}");
    let cookie = format!("Cookie: {}", cookie.split(';').next().expect("a cookie"));
    assert_eq!(status(&ask("https", "/", &["--header", &cookie])), "200");
    for (origin, expected) in [("http", "403"), ("https", "303")] {
        let origin = format!("Origin: {origin}://127.0.0.1:{port}");
        let form = ["--header", &cookie, "--header", &origin, "--data", "do=clear-downloads"];
        assert_eq!(status(&ask("https", "/do", &form)), expected, "{origin}");
    }
    let shown = output(Command::new("sh").args([
        "-c",
        &format!(
            "openssl s_client -connect 127.0.0.1:{port} 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
        ),
    ]));
    assert!(shown.trim().ends_with(&sha256) && sha256.len() == 95, "{shown} {sha256}");
}

#[test]
#[allow(clippy::print_stderr, reason = "who reads the output must see what was not tested")]
fn another_user_of_the_machine_gets_nothing() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["create-group", "secret-group"]);
    ann.shares("secret-group", "film.mp4", MIB, 1);
    let Browser { address, .. } = Browser::enter(&ann);
    for path in ["/", "/group/secret-group", "/read/secret-group/film.mp4", "/events", "/page.js", "/checks"]
    {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--include", "--max-time", "30"]).uid(NOBODY).gid(NOBODY);
        let answer = output(curl.arg(format!("http://{address}{path}")));
        assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("secret-group"), "{path}: {answer}");
    }
    // Nor can they ask the daemon for a link, or read what leads a browser to it.
    let home = ann.path("home");
    let listed = Command::new("ls").arg(&home).uid(NOBODY).gid(NOBODY).output().expect("it runs");
    assert!(!listed.status.success() && listed.stdout.is_empty(), "{listed:?}");
}
