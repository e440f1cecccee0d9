//! Tokens: machines that log in without a person's password.

use std::fs;

use crate::support::{MIB, Peer, Tracker, assert_same, wait_for};

fn token(owner: &Peer, line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    owner.ok(&words).stdout.trim_end().to_owned()
}

#[test]
fn a_machine_fetches_and_shares_by_its_token() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    tracker.group("g2", &[&ann]);
    let original = bob.shares("g1", "in.bin", 2 * MIB, 1);
    let secret = token(&ann, "create-token ci --group g1 --allow share --expires 30d");
    let mut machine = Peer::new(&tracker, "machine", &[]);
    let file = machine.path("ci.token");
    fs::write(&file, format!("{secret}\n")).expect("written");
    machine.set("PEER_TOKEN_FILE", &file.display().to_string());
    assert_eq!(machine.json("login")["token"], "ci");
    machine.ok(&["login"]);
    assert_eq!(machine.ok(&["whoami"]).stdout.trim_end(), "ann/ci");
    machine.ok(&["daemon", "stop"]);
    assert_eq!(machine.json("whoami")["token"], "ci", "it outlives the daemon");

    machine.ok(&["download", "g1", "in.bin", "out/"]);
    assert_same(&original, &machine.path("out/in.bin"));
    machine.shares("g1", "built.bin", MIB, 2);
    bob.ok(&["download", "g1", "built.bin", "out/"]);
    let who = |file: &str| bob.ok(&["who", "g1", file]).stdout;
    wait_for("others see whose machine it is", || who("built.bin").contains("ann/ci").then_some(()));
    for (line, reason) in [
        ("list-files g2", "NOT_A_MEMBER"),
        ("accept-request g1 eve", "OUT_OF_SCOPE"),
        ("create-group g3", "OUT_OF_SCOPE"),
        ("create-token more", "OUT_OF_SCOPE"),
        ("unpublish g1 in.bin", "NOT_THE_OWNER"),
        ("logout-all", "OUT_OF_SCOPE"),
    ] {
        assert_eq!(machine.refused(5, line), reason, "{line}");
    }
    let tokens = ann.ok(&["list-tokens", "--json"]).stdout;
    assert!(tokens.contains("\"ci\"") && !tokens.contains(&secret), "{tokens}");

    // A logout leaves the token; revoking it ends the login.
    machine.ok(&["logout"]);
    machine.ok(&["login"]);
    ann.ok(&["revoke-token", "ci"]);
    wait_for("the machine is logged out", || (machine.run(&["whoami"]).code == 4).then_some(()));
    assert_eq!(machine.refused(4, "login"), "BAD_CREDENTIALS");
    assert_eq!(ann.refused(3, "revoke-token ci"), "TOKEN_NOT_FOUND");
    assert!(!machine.log().contains(&secret));
}

#[test]
fn a_login_by_token_is_told_from_one_by_password() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let secret = token(&ann, "create-token ci");
    // It takes the place of her own login here, and back.
    let done = ann.run_with(&["login", "--token-stdin"], &secret);
    assert_eq!((done.code, ann.json("whoami")["token"].as_str()), (0, Some("ci")), "{done:?}");
    ann.ok_with_password(&["login", "ann"]);
    assert_eq!(ann.json("whoami")["token"], serde_json::Value::Null);
    let bob = tracker.user("bob");
    let refused = bob.run_with(&["login", "--token-stdin", "--json"], &secret);
    assert_eq!((refused.code, refused.reason().as_str()), (6, "LOGGED_IN_AS_ANOTHER"));
    bob.ok(&["logout"]);
    for (text, code) in [("", 2), ("mtt_guess", 4), ("mts_guess\n", 4)] {
        let refused = bob.run_with(&["login", "--token-stdin", "--json"], text);
        assert_eq!(refused.code, code, "{text}: {refused:?}");
    }
    assert_eq!(bob.refused(2, "login"), "USAGE");
    assert_eq!(bob.fails(2, &["login", "bob", "--token-stdin"]).code, 2);
    for line in ["create-token ci --allow all", "create-token Ci", "create-token c --expires 367d"] {
        assert_eq!(ann.line(line).code, 2, "{line}");
    }
}
