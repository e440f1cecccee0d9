//! How verbs end: their exit codes where several causes meet, output that can't be written, and paths that are
//! not UTF-8.

use std::{
    ffi::OsStr,
    fs,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    process::{Command, Stdio},
    time::Instant,
};

use data_encoding::BASE64;
use serde_json::Value;

use crate::support::{Done, MIB, Peer, Tracker, assert_same, make_file};

fn with(mut command: Command, args: &[&OsStr]) -> Done {
    command.args(args).output().expect("it runs").into()
}

/// Runs a verb with a path, and returns the object that it prints.
#[track_caller]
fn json(peer: &Peer, verb: &[&str], path: &OsStr, rest: &[&str]) -> Value {
    let rest: Vec<&OsStr> = rest.iter().map(OsStr::new).collect();
    let done = with(peer.command(verb), &[&[path], &rest[..], &[OsStr::new("--json")]].concat());
    assert_eq!(done.code, 0, "{verb:?}: {done:?}");
    done.json()
}

fn exact(value: &Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap_or_else(|| panic!("no text: {value}")).as_bytes()).expect("base64")
}

#[test]
fn a_path_need_not_be_utf8() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let name = OsStr::from_bytes(b"caf\xe9.bin");
    let path = ann.path("").join(name);
    make_file(&path, MIB, 1);

    let hashed = json(&ann, &["hash"], name, &[]);
    assert!(hashed["path"].as_str().is_some_and(|text| text.ends_with("caf\u{fffd}.bin")), "{hashed}");
    assert_eq!(exact(&hashed["path_base64"]), path.as_os_str().as_bytes());
    let certs = json(&ann, &["export-cert"], OsStr::from_bytes(b"c\xff"), &[]);
    assert!(exact(&certs["key_base64"]).ends_with(b"c\xff/key.pem"), "{certs}");

    // A name in a group is text, so such a file needs another one.
    let refused = with(ann.command(&["upload"]), &[name, OsStr::new("g1")]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("not UTF-8") && refused.stderr.contains("--name"), "{refused:?}");
    json(&ann, &["upload"], name, &["g1", "--name", "cafe.bin"]);
    // The library keeps the exact path.
    ann.ok(&["daemon", "stop"]);
    let share = ann.json("list-shares")["shares"][0].clone();
    assert_eq!(exact(&share["path_base64"]), path.as_os_str().as_bytes());
    assert_eq!(share["cause"], Value::Null);

    let folder = OsStr::from_bytes(b"out\xff/");
    let done = json(&bob, &["download", "g1", "cafe.bin"], folder, &[]);
    let copy = bob.path("").join(folder).join("cafe.bin");
    assert_eq!(exact(&done["destination_base64"]), copy.as_os_str().as_bytes());
    assert_same(&path, &copy);
    bob.ok(&["daemon", "stop"]);
    json(&bob, &["download", "g1", "cafe.bin"], folder, &[]);
    bob.ok(&["verify", "g1", "cafe.bin"]);

    let odd =
        bob.command(&["status"]).env("PEER_HOME", OsStr::from_bytes(b"h\xff")).output().expect("it runs");
    let odd = Done::from(odd);
    assert!(odd.code == 2 && odd.stderr.contains("PEER_HOME is not UTF-8"), "{odd:?}");
}

#[test]
fn every_refused_name_suggests_another() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["create-group", "g1"]);
    for name in ["first", "trailing."] {
        make_file(&ann.path(name), 1_000, 1);
    }
    make_file(&ann.path("other"), 1_000, 2);
    ann.ok(&["upload", "first", "g1"]);
    for (code, line) in
        [(2, "upload trailing. g1"), (2, "upload first g1 --name a/b"), (6, "upload other g1 --name first")]
    {
        let done = ann.line(line);
        assert!(done.code == code && done.stderr.contains("--name NAME"), "{line}: {done:?}");
    }
}

#[test]
fn output_that_can_not_be_written_is_a_failure() {
    let peer = Peer::alone("ann", &[]);
    make_file(&peer.path("data"), 3 * MIB, 1);
    for line in [&["hash", "data", "--json"][..], &["config", "show"], &["--help"], &["man"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
        let done = peer.command(line).stdout(full).stderr(Stdio::piped()).output().expect("it runs");
        let done = Done::from(done);
        assert_eq!(done.code, 1, "{line:?}: {done:?}");
        assert!(line[0] == "--help" || done.stderr.contains("standard output"), "{line:?}: {done:?}");

        // A reader that has seen enough is no failure.
        let mut child = peer.spawn(line);
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
        let code = child.wait().expect("it ends").code();
        assert!(matches!(code, Some(0)) && stderr.is_empty(), "{line:?}: {code:?} {stderr}");
    }
}

#[test]
fn the_trackers_refusal_counts_for_more_than_the_destination() {
    let tracker = Tracker::start();
    let (ann, bob, cat) = (tracker.user("ann"), tracker.user("bob"), tracker.user("cat"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", MIB, 1);
    for peer in [&bob, &cat] {
        fs::write(peer.path("data"), "something else").expect("written");
    }
    assert_eq!(cat.refused(5, "download g1 data data"), "NOT_A_MEMBER");
    assert_eq!(cat.refused(5, "download g1 data ."), "NOT_A_MEMBER");
    assert_eq!(bob.refused(3, "download g1 nothing data"), "FILE_NOT_FOUND");
    assert_eq!(bob.refused(6, "download g1 data data"), "DESTINATION_EXISTS");
    assert_eq!(fs::read(bob.path("data")).expect("there"), b"something else");
}

#[test]
fn a_member_who_is_removed_meanwhile_is_denied() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "1MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", 32 * MIB, 1);
    let started = Instant::now();
    let download = bob.spawn(&["download", "g1", "data", "out/", "--json"]);
    bob.waits_until_midway("g1", "data", 1);
    ann.ok(&["remove-member", "g1", "bob"]);
    let done = Done::since(download, "", started);
    assert_eq!((done.code, done.reason().as_str()), (5, "NOT_A_MEMBER"), "{done:?}");
}

#[test]
fn remedies_fit_the_user_and_can_be_pasted() {
    let tracker = Tracker::start();
    let (ann, cat) = (tracker.user("ann"), tracker.user("cat"));
    ann.ok(&["create-group", "my group"]);
    let outside = cat.fails(5, &["list-files", "my group"]);
    assert!(outside.stderr.contains("`peer join-group 'my group'`"), "{outside:?}");
    cat.ok(&["join-group", "my group"]);
    for args in [&["list-files", "my group"][..], &["download", "my group", "x"]] {
        let waits = cat.fails(5, args);
        assert!(waits.stderr.contains("waits for the answer of its owner"), "{waits:?}");
        assert!(waits.stderr.contains("`peer join-group 'my group' --wait`"), "{waits:?}");
    }
    let nobody = cat.fails(10, &["--home", "my home", "status"]);
    assert!(nobody.stderr.contains("`peer --home 'my home' daemon`"), "{nobody:?}");

    assert_eq!(ann.ok(&["limit", "--up", "500K"]).stdout, "upload 500K, download none\n");
    assert_eq!(ann.ok(&["limit", "--down", "1.5MiB"]).stdout, "upload 500K, download 1.5MiB\n");
    let dashed = ann.fails(2, &["create-group", "--", "-g"]);
    assert!(dashed.stderr.contains("must not start with '-'"), "{dashed:?}");
}
