//! Programs that run when something has happened.

use std::fs;

use crate::support::{Peer, Tracker, wait_for};

/// Waits until the file has this many lines. Returns them sorted.
fn lines(peer: &Peer, file: &str, count: usize) -> Vec<String> {
    wait_for(file, || {
        let text = fs::read_to_string(peer.path(file)).ok()?;
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn programs_run_after_downloads_and_for_news() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann]);
    let home = bob.path("home");
    let told = |file: &str| {
        format!(r#"echo \"$0 $MINITORRENT_EVENT $MINITORRENT_GROUP $MINITORRENT_NAME\" >> ../{file}"#)
    };
    let hook = |event: &str| format!("{event} = [\"/bin/sh\", \"-c\", \"{}\", \"hook\"]\n", told("news"));
    let config: String = ["completed", "failed", "published", "joined"].map(hook).concat();
    fs::write(home.join("config.toml"), format!("[hooks]\n{config}")).expect("written");
    bob.ok(&["daemon", "stop"]);
    let shown = bob.ok(&["config", "show"]).stdout;
    assert!(shown.contains("hooks.failed"), "{shown}");
    bob.ok(&["whoami"]);
    wait_for("bob hears of joining", || (bob.json("status")["tracker_connected"] == true).then_some(()));
    bob.ok(&["join-group", "g1"]);
    ann.ok(&["accept-request", "g1", "bob"]);
    assert_eq!(lines(&bob, "news", 1), ["hook joined g1 "]);

    ann.shares("g1", "$(x).bin", 1, 1);
    let own = told("own").replace('\\', "");
    bob.ok(&["download", "g1", "$(x).bin", "out/", "--exec", "/bin/sh", "-c", &own, "--mine"]);
    assert_eq!(lines(&bob, "own", 1), ["--mine completed g1 $(x).bin"]);
    let expected = ["hook completed g1 $(x).bin", "hook joined g1 ", "hook published g1 $(x).bin"];
    assert_eq!(lines(&bob, "news", 3), expected);

    let long = "x".repeat(4097);
    for bad in [&[""][..], &[long.as_str()], &["/bin/true"; 65]] {
        for verb in [
            &["download", "g1", "$(x).bin", "out/", "--json", "--exec"][..],
            &["subscribe", "g1", "in/", "--json", "--exec"],
        ] {
            assert_eq!(bob.run(&[verb, bad].concat()).reason(), "INVALID_REQUEST", "{verb:?}");
        }
    }

    // One that can't be run harms nothing, and stands in the log.
    ann.shares("g1", "b.bin", 1, 2);
    bob.ok(&["download", "g1", "b.bin", "out/", "--exec", "/no/such/program"]);
    wait_for("the log says so", || bob.log().contains("a hook can't be started").then_some(()));
    bob.ok(&["subscribe", "g1", "subscribed", "--exec", "/bin/sh", "-c", &own, "sub"]);
    ann.shares("g1", "c.bin", 1, 3);
    assert_eq!(lines(&bob, "own", 2), ["--mine completed g1 $(x).bin", "sub completed g1 c.bin"]);
}
