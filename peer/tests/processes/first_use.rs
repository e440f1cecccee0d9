//! Trust on first use of a tracker's CA.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use transport::fingerprints;

use crate::support::{PASSWORD, Peer, Tracker};

/// Runs a verb at a terminal and types that text. Returns the exit code and what the terminal shows.
fn at_terminal(peer: &Peer, args: &[&str], typed: &str) -> (i32, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("it is ours");
    let name = ptsname(&terminal, Vec::new()).expect("it has a name").into_string().expect("text");
    let side = || {
        let file = fs::OpenOptions::new().read(true).write(true).open(&name).expect("the other side");
        Stdio::from(file)
    };
    let password = peer.path("password");
    fs::write(&password, PASSWORD).expect("written");
    let mut command = peer.command(args);
    command.env("PEER_PASSWORD_FILE", &password).stdin(side()).stdout(Stdio::null()).stderr(side());
    let mut child = command.spawn().expect("the peer runs");
    // This closes the command's copies of the terminal.
    drop(command);
    let mut terminal = fs::File::from(terminal);
    terminal.write_all(typed.as_bytes()).expect("typed");
    let mut shown = Vec::new();
    // The read fails once the verb has ended, because the other side is closed.
    let _ = terminal.read_to_end(&mut shown);
    let code = child.wait().expect("it ends").code().expect("no signal");
    (code, String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_person_is_asked_to_trust_the_authority_once_and_a_script_never() {
    let mut tracker = Tracker::start();
    let ann = Peer::alone("ann", &[("PEER_TRACKER", tracker.url())]);
    let kept = ann.path("home/ca.pem");
    let print = |pem: &str| fingerprints(pem).expect("a certificate")[0].to_string();
    let ca = fs::read_to_string(tracker.ca()).expect("the CA");

    let refused = ann.with_password(&["create-user", "ann", "--json"], PASSWORD);
    assert_eq!((refused.code, refused.reason().as_str()), (7, "AUTHORITY_UNKNOWN"), "{refused:?}");
    for typed in ["no\n", "y\nn\n"] {
        let (code, shown) = at_terminal(&ann, &["create-user", "ann"], typed);
        assert_eq!(code, 7, "{shown}");
        assert!(shown.contains(&print(&ca)), "{shown}");
        assert!(!kept.exists(), "{typed}");
    }
    let (code, shown) = at_terminal(&ann, &["create-user", "ann"], "yes\n");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(print(&fs::read_to_string(&kept).expect("kept")), print(&ca));
    assert_eq!(fs::metadata(&kept).expect("there").permissions().mode() & 0o777, 0o600);
    ann.ok_with_password(&["login", "ann"]);

    // There is another CA at that address, as with a man in the middle.
    tracker.kill();
    for file in ["ca.pem", "ca.key"] {
        fs::remove_file(tracker.ca().with_file_name(file)).expect("removed");
    }
    tracker.start_again();
    assert_ne!(print(&fs::read_to_string(tracker.ca()).expect("the CA")), print(&ca));
    let (code, shown) = at_terminal(&ann, &["login", "ann"], "yes\n");
    assert_eq!(code, 7, "{shown}");
    assert!(shown.contains(&kept.display().to_string()) && !shown.contains("yes or no"), "{shown}");
    assert_eq!(print(&fs::read_to_string(&kept).expect("kept")), print(&ca), "it stays what it was");
}
