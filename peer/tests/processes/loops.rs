//! Verbs in a loop: the tracker's rates slow them down and refuse none of them.

use std::time::{Duration, Instant};

use crate::support::{Done, Tracker};

/// More than the tracker takes at once.
const MANY: usize = 260;

#[test]
fn a_loop_of_uploads_is_slowed_down_and_never_refused() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["create-group", "g1"]);
    for number in 0..MANY {
        std::fs::write(ann.path(&format!("f{number}")), number.to_string()).expect("written");
    }
    // Several at once, because one after the other may be slower than the rate.
    let started = Instant::now();
    let lines: Vec<String> = (0..MANY).map(|number| format!("upload f{number} g1")).collect();
    let shells: Vec<_> =
        lines.chunks(MANY / 4).map(|lines| (lines.join("\n"), ann.spawn(&["shell"]))).collect();
    std::thread::scope(|scope| {
        let ends: Vec<_> = shells
            .into_iter()
            .map(|(lines, shell)| scope.spawn(move || Done::since(shell, &lines, started)))
            .collect();
        for end in ends {
            let done = end.join().expect("no panic");
            assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
        }
    });
    assert_eq!(ann.json("list-files g1")["files"].as_array().map(Vec::len), Some(MANY));
}

#[test]
fn a_loop_of_calls_that_are_passed_on_is_slowed_down_and_never_refused() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let started = Instant::now();
    let lines = "list-groups --json\n".repeat(150);
    std::thread::scope(|scope| {
        let shells: Vec<_> = (0..4)
            .map(|_| {
                let (shell, lines) = (ann.spawn(&["shell"]), &lines);
                scope.spawn(move || Done::since(shell, lines, started))
            })
            .collect();
        for shell in shells {
            let done = shell.join().expect("no panic");
            assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
        }
    });
}

#[test]
fn a_download_does_not_wait_for_the_paced_announces() {
    /// With the announces alone, each download but the first few waits for half a second.
    const FILES: u32 = 60;
    const PACED: Duration = Duration::from_millis(500);
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let names: Vec<String> = (0..FILES).map(|number| format!("f{number}")).collect();
    for name in &names {
        std::fs::write(ann.path(name), name).expect("written");
    }
    let uploads: Vec<String> = names.iter().map(|name| format!("upload {name} g1")).collect();
    assert_eq!(ann.shell(&uploads.iter().map(String::as_str).collect::<Vec<_>>()).code, 0);
    let started = Instant::now();
    for name in &names {
        bob.ok(&["download", "g1", name, "out/"]);
    }
    let each = started.elapsed() / FILES;
    assert!(each < PACED * 4 / 5, "{each:?} each");
}
