//! What the logs and files say about users, and the secrets that they never contain.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{MIB, PASSWORD, Peer, Tracker};

const NEW_PASSWORD: &str = "ten lemons roll downhill\n";
const WRONG_PASSWORD: &str = "no lemons roll at all\n";

/// All acts that the audit log records.
const ACTS: [&str; 25] = [
    "accept_request",
    "change_password",
    "create_group",
    "create_invite",
    "create_user",
    "delete_group",
    "disable_user",
    "enable_user",
    "issue_peer_cert",
    "issue_tickets",
    "join_by_invite",
    "join_group",
    "leave_group",
    "login",
    "login_failed",
    "logout",
    "logout_all",
    "publish_file",
    "reject_request",
    "remove_member",
    "reset_password",
    "revoke_invite",
    "transfer_ownership",
    "unpublish_file",
    "withdraw_request",
];

/// Does each of the acts once, and returns the secrets that were in use.
fn live(tracker: &Tracker) -> (Vec<Peer>, BTreeSet<String>) {
    let log = [("PEER_LOG", "trace")];
    let people = ["ann", "bob", "eve"].map(|name| tracker.user_with(name, &log));
    let [ann, bob, eve] = &people;
    let mut secrets: BTreeSet<_> =
        [PASSWORD, NEW_PASSWORD, WRONG_PASSWORD].map(|password| password.trim().to_owned()).into();
    secrets.extend(people.iter().map(token));
    let wrong = ann.with_password(&["login", "ann"], WRONG_PASSWORD);
    assert_eq!(wrong.code, 4, "{wrong:?}");
    assert!(!secrets.iter().any(|secret| format!("{wrong:?}").contains(secret)), "{wrong:?}");
    tracker.group("g1", &[ann, bob]);
    for answer in ["reject-request", "accept-request"] {
        eve.ok(&["join-group", "g1"]);
        ann.ok(&[answer, "g1", "eve"]);
    }
    eve.ok(&["leave-group", "g1"]);
    eve.ok(&["join-group", "g1"]);
    eve.ok(&["leave-group", "g1"]);
    let invite = ann.json("invite g1");
    let link = invite["link"].as_str().expect("a link");
    secrets.insert(link.rsplit_once('.').expect("a secret").1.to_owned());
    eve.ok(&["join", link]);
    ann.ok(&["revoke-invite", "g1", invite["invite_id"].as_str().expect("an id")]);
    eve.ok(&["leave-group", "g1"]);
    ann.shares("g1", "data", MIB, 22);
    bob.ok(&["download", "g1", "data", "out/"]);
    ann.ok(&["unpublish", "g1", "data"]);
    ann.ok(&["transfer-group", "g1", "bob"]);
    bob.ok(&["remove-member", "g1", "ann"]);
    bob.ok(&["delete-group", "g1"]);
    let changed = ann.with_password(&["change-password"], &format!("{PASSWORD}{NEW_PASSWORD}"));
    assert_eq!(changed.code, 0, "{changed:?}");
    bob.ok(&["logout"]);
    eve.ok(&["logout-all"]);
    tracker.operate("user disable eve", "");
    tracker.operate("user enable eve", "");
    tracker.operate("user reset-password eve", NEW_PASSWORD);
    secrets.insert(key(&ann.path("home/users/ann/key.pem")));
    secrets.insert(key(&tracker.data_dir().join("ca.key")));
    (people.into(), secrets)
}

fn token(peer: &Peer) -> String {
    let session = fs::read_to_string(peer.path("home/session.json")).expect("logged in");
    let session: Value = serde_json::from_str(&session).expect("a session");
    session["token"].as_str().expect("a token").to_owned()
}

/// Returns a part of a private key in PEM that is secret.
fn key(path: &Path) -> String {
    let pem = fs::read_to_string(path).expect("a key");
    // The first line of base64 starts with the kind of the key, so the second one is taken.
    pem.lines().nth(2).expect("a key of several lines").to_owned()
}

/// Returns a directory and all files below it.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.is_dir() {
            found.extend(fs::read_dir(path).expect("a directory").map(|entry| entry.expect("one").path()));
        }
    }
    found
}

fn holds(path: &Path, secret: &str) -> bool {
    let content = fs::read(path).unwrap_or_default();
    content.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[test]
fn every_action_is_audited_and_no_secret_is_written() {
    let tracker = Tracker::start_with(&[("TRACKER_LOG", "trace")]);
    let (people, secrets) = live(&tracker);

    let audit = tracker.operate("audit --since 1h --json", "");
    // The test runner's own output comes first, on the same line.
    let rows: Vec<Value> = audit
        .lines()
        .filter_map(|line| line.find('{').map(|at| &line[at..]))
        .map(|row| serde_json::from_str(row).unwrap_or_else(|error| panic!("{error}: {row}")))
        .collect();
    let acts: BTreeSet<_> = rows.iter().filter_map(|row| row["action"].as_str()).collect();
    assert_eq!(acts, ACTS.into());
    for row in &rows {
        let by_operator = row["request"] == "operator";
        assert_eq!(row["ip"].is_null(), by_operator, "{row}");
        assert!(row["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{row}");
    }
    assert!(!tracker.operate("audit --since 2999-01-01T00:00:00Z --json", "").contains("\"action\""));

    let mut places = below(&tracker.data_dir());
    places.push(tracker.log_file());
    for peer in &people {
        places.extend(below(&peer.path("home")));
    }
    for secret in &secrets {
        for place in places.iter().filter(|place| holds(place, secret)) {
            let name = place.file_name().expect("a name");
            let belongs = ["session.json", "key.pem", "ca.key"].iter().any(|file| name == *file);
            assert!(belongs, "{secret:.9}… is in {}", place.display());
        }
    }
    // Checks what every user of this machine can read about the daemons and the tracker, which still run.
    for process in fs::read_dir("/proc").expect("processes").map(|entry| entry.expect("one").path()) {
        let line = process.join("cmdline");
        assert!(!secrets.iter().any(|secret| holds(&line, secret)), "a secret is in {}", line.display());
    }
    for place in places {
        let Ok(found) = fs::symlink_metadata(&place) else { continue };
        let is_public = place.ends_with("ca.pem") || place == tracker.log_file();
        let open = found.permissions().mode() & 0o077;
        assert!(is_public || open == 0, "{} is open to others: {open:o}", place.display());
    }
}
