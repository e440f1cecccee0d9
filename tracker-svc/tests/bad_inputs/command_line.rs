//! Invalid configuration: the program reports the fault and ends at once, without a panic.

use std::{fs, net::TcpListener, time::Instant};

use super::process::run;

/// Runs the tracker with these arguments and environment. It must fail soon, and its message must contain
/// `mentions`.
fn fails(args: &[&str], environment: &[(&str, &str)], mentions: &str) {
    let began = Instant::now();
    let output = run(args, environment);
    let took = began.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(code.is_some_and(|code| code != 0 && code != 101), "{args:?}: {code:?} {said}");
    assert!(!said.contains("panicked"), "{args:?}: {said}");
    assert!(said.to_lowercase().contains(mentions), "{args:?}: says nothing of {mentions:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}");
    // A second on a quiet machine.
    assert!(took.as_secs() < 5, "{args:?}: {took:?}");
}

#[tokio::test]
async fn bad_configuration_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, data) = (path("file"), path("data"));
    fs::write(&file, "x").unwrap();
    for (name, text, mentions) in [
        ("no.toml", "listen = \n", "no.toml"),
        ("unknown.toml", "no_such_key = 1\n", "unknown.toml"),
        ("type.toml", "listen = -1\n", "listen"),
        ("negative.toml", "ticket_ttl = \"-5m\"\n", "ticket_ttl"),
        ("binary.toml", "\0\u{1}\u{2}", "binary.toml"),
    ] {
        let config = path(name);
        fs::write(&config, text).unwrap();
        fails(&["serve", "--config", &config, "--data-dir", &data], &[], mentions);
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir"];
    fails(&["serve", "--listen", &address, "--data-dir", &data], &[], &address);
    fails(&["serve", "--listen", "127.0.0.1:99999", "--data-dir", &data], &[], "listen");
    fails(&["serve", "--listen", "nonsense", "--data-dir", &data], &[], "listen");
    fails(&[&serve[..], &[&file]].concat(), &[], &file.to_lowercase());
    fails(&[&serve[..], &[&format!("{file}/deeper")]].concat(), &[], &file.to_lowercase());
    fails(&[&serve[..], &[&data, "--tls-name", "not a name"]].concat(), &[], "not a name");
    fails(&[&serve[..], &[&data, "--tls-cert", &file, "--tls-key", &file]].concat(), &[], "file");
    fails(&[&serve[..], &[&data, "--no-such-flag"]].concat(), &[], "no-such-flag");
    fails(&["serve", "--data-dir", &data], &[("TRACKER_LISTEN", "nonsense")], "listen");
    // Serving everybody without TLS requires an explicit flag.
    fails(&["serve", "--plaintext", "--listen", "0.0.0.0:0", "--data-dir", &data], &[], "insecure");
    fails(&["user", "disable", "nobody", "--data-dir", &path("none")], &[], "");
    fails(&["no-such-verb"], &[], "no-such-verb");
}

#[tokio::test]
async fn two_trackers_do_not_share_a_directory() {
    let tracker = super::process::Tracker::start().await;
    let data = tracker.data_dir();
    fails(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()], &[], "");
    tracker.finish().await;
}
