//! The program itself: its output, its exit, and the operator's commands while it serves.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use testkit::process::Server;

fn tracker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracker-svc"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(data_dir: &Path, args: &[&str]) -> Output {
    tracker(args).env("TRACKER_DATA_DIR", data_dir).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts to serve.
fn serve(data_dir: &Path, args: &[&str]) -> Server {
    let mut command = tracker(&[&["serve", "--listen", "127.0.0.1:0"], args].concat());
    // No service manager has to listen there.
    command.env("TRACKER_DATA_DIR", data_dir).env("NOTIFY_SOCKET", data_dir.join("notify"));
    Server::start(command.stderr(Stdio::null())).expect("it starts")
}

/// Sends a signal and waits for the end. Returns how long that took.
fn end(mut serving: Server, signal: &str) -> Duration {
    let gone = serving.end(signal).expect("it ends");
    assert!(gone.status.success(), "{}", gone.status);
    assert_eq!(gone.printed, "", "exactly one line is printed");
    gone.took
}

#[test]
fn the_tracker_prints_its_address_and_ends_on_sigterm_and_sigint() {
    let dir = tempfile::tempdir().expect("a directory");
    for signal in ["TERM", "INT"] {
        let serving = serve(dir.path(), &[]);
        assert!(serving.address().starts_with("https://127.0.0.1:"), "{}", serving.address());
        let health = run(dir.path(), &["health", "--tracker", serving.address()]);
        assert!(health.status.success(), "{}", text(&health.stderr));
        let url = serving.address().to_owned();
        assert!(end(serving, signal) < Duration::from_secs(10));
        assert!(!run(dir.path(), &["health", "--tracker", &url]).status.success());
    }
}

#[test]
fn a_service_manager_is_notified_of_start_and_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = std::os::unix::net::UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let heard = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("a message");
        text(&buffer[..length]).trim().to_owned()
    };
    let serving = serve(dir.path(), &[]);
    assert_eq!(heard(), "READY=1");
    end(serving, "TERM");
    assert_eq!(heard(), "STOPPING=1");
}

#[test]
fn the_tracker_stops_in_time_with_idle_and_half_open_clients() {
    let dir = tempfile::tempdir().expect("a directory");
    let serving = serve(dir.path(), &["--plaintext"]);
    let address = serving.address().strip_prefix("http://").expect("a plaintext URL").to_owned();
    let connect = || std::net::TcpStream::connect(&address).expect("it listens");
    let _silent = connect();
    let mut half = connect();
    half.write_all(b"PRI * HTTP/2.0\r\n").expect("written");
    let mut open = connect();
    open.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("written");
    assert!(end(serving, "TERM") < Duration::from_secs(10));
}

#[test]
fn a_second_tracker_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let _serving = serve(dir.path(), &[]);
    let second = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!second.status.success());
    assert_eq!(text(&second.stdout), "");
    assert!(text(&second.stderr).contains("another tracker"), "{}", text(&second.stderr));
}

#[test]
fn invalid_settings_are_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = |args: &[&str]| {
        let since = Instant::now();
        let output = run(dir.path(), args);
        assert!(!output.status.success() && !output.stderr.is_empty(), "{args:?}");
        assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
        assert!(since.elapsed() < Duration::from_secs(5), "{args:?}");
    };
    refused(&["serve", "--listen", "nowhere"]);
    assert_eq!(run(dir.path(), &["serve", "--listen", "nowhere"]).status.code(), Some(2), "as bad usage");
    refused(&["serve", "--plaintext", "--listen", "0.0.0.0:0"]);
    refused(&["serve", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"]);
    refused(&["serve", "--config", "/nonexistent"]);
    std::fs::write(dir.path().join("bad.toml"), "lisen = '127.0.0.1:0'").expect("written");
    let bad = dir.path().join("bad.toml");
    refused(&["serve", "--config", bad.to_str().expect("UTF-8")]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    refused(&["serve", "--listen", &taken.local_addr().expect("bound").to_string()]);
    refused(&["serve", "--data-dir", bad.to_str().expect("UTF-8")]);
    refused(&["user", "disable", "ann", "--data-dir", "/nonexistent"]);
}

#[test]
fn settings_are_shown_with_where_they_came_from() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.toml"), "log = 'debug'").expect("written");
    let output = tracker(&["config", "show"])
        .env("TRACKER_DATA_DIR", dir.path())
        .env("TRACKER_LISTEN", "127.0.0.1:1234")
        .output()
        .expect("it runs");
    let shown = text(&output.stdout);
    let line =
        |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{shown}"));
    assert!(line("listen ").contains("127.0.0.1:1234") && line("listen ").ends_with("environment"));
    assert!(line("log ").contains("debug") && line("log ").ends_with("file"));
    assert!(line("log_format ").ends_with("default"));
    assert!(line("data_dir ").ends_with("environment") && line("config ").ends_with("default"));
    assert!(line("config ").contains(&dir.path().join("config.toml").display().to_string()));
    // A configuration file in another place may set the data directory.
    let elsewhere = dir.path().join("elsewhere.toml");
    std::fs::write(&elsewhere, "data_dir = 'data'").expect("written");
    let output = tracker(&["config", "show", "--config"]).arg(&elsewhere).output().expect("it runs");
    let data = format!("data_dir = {:?}  # file", dir.path().join("data").display().to_string());
    assert!(text(&output.stdout).starts_with(&data), "{}", text(&output.stdout));
}

#[test]
fn metrics_and_a_page_are_served_at_the_configured_address() {
    let dir = tempfile::tempdir().expect("a directory");
    // A port that was free just before.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let serving = serve(dir.path(), &["--metrics", &free.to_string()]);
    assert!(run(dir.path(), &["health", "--tracker", serving.address()]).status.success());
    let mut socket = std::net::TcpStream::connect(free).expect("it listens");
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    let mut page = String::new();
    socket.read_to_string(&mut page).expect("an answer");
    assert!(page.contains(r#"calls_total{method="/grpc.health.v1.Health/Check",code="OK"} 1"#), "{page}");
    assert!(page.contains("store_writable 1"), "{page}");
    let mut socket = std::net::TcpStream::connect(free).expect("it listens");
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    let mut page = String::new();
    socket.read_to_string(&mut page).expect("an answer");
    let (head, body) = page.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("Content-Security-Policy: default-src 'none'; script-src 'self'"), "{head}");
    assert!(body.contains("SQLite can be written") && body.contains("Health/Check"), "{body}");
}

#[test]
fn backup_audit_and_accounts_work_beside_a_serving_tracker() {
    let (dir, elsewhere) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let serving = serve(dir.path(), &[]);
    let copy = elsewhere.path().join("copy.db");
    let copy = copy.to_str().expect("UTF-8");
    let backup = run(dir.path(), &["backup", copy]);
    assert!(backup.status.success(), "{}", text(&backup.stderr));
    assert!(!run(dir.path(), &["restore", copy]).status.success(), "not under a serving tracker");
    assert!(!run(dir.path(), &["user", "disable", "nobody"]).status.success());
    let audit = run(dir.path(), &["audit", "--since", "1h", "--json"]);
    assert!(audit.status.success() && audit.stdout.is_empty(), "nothing happened yet");
    drop(serving);
    let place = elsewhere.path().join("data");
    let restored = run(&place, &["restore", copy]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    // The authority is the same, so that everybody that trusts it still does.
    let ca = |dir: &Path| std::fs::read_to_string(dir.join("ca.pem")).expect("the CA's certificate");
    let serving = serve(&place, &[]);
    assert_eq!(ca(&place), ca(dir.path()));
    assert!(run(&place, &["health", "--tracker", serving.address()]).status.success());
}
