//! A flood of connections that send nothing and are always renewed.

use std::{collections::VecDeque, process::Command, time::Duration};

use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use crate::support::{Foreground, MIB, Tracker, assert_same};

/// A small limit on open files for a daemon, as a shell on a small machine has it.
const OPEN_FILES: u32 = 256;
/// Twice as many connections as a peer accepts.
const AT_ONCE: usize = 400;

#[test]
fn silent_connections_keep_no_leecher_from_a_seeder_with_few_open_files() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.ok(&["daemon", "stop"]);
    let daemon = ann.command(&["daemon"]);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {OPEN_FILES} && exec \"$0\" \"$@\"")]);
    command.arg(daemon.get_program()).args(daemon.get_args());
    command
        .current_dir(ann.path(""))
        .envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (daemon, line) = Foreground::start(command);
    assert!(line.starts_with("listening "), "{line}");
    let original = ann.shares("g1", "data", 8 * MIB, 31);
    let address = ann.json("status")["listen"].as_str().expect("an address").parse().expect("an address");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let over = CancellationToken::new();
    let (filled, full) = std::sync::mpsc::channel();
    let flood = runtime.spawn(over.clone().run_until_cancelled_owned(async move {
        let mut silent = VecDeque::new();
        loop {
            // The flood has an address of its own, so that the speed of this machine does not decide which
            // connection gives way.
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(([127, 0, 0, 2], 0).into()).expect("this machine's");
            if let Ok(socket) = socket.connect(address).await {
                silent.push_back(socket);
            }
            if silent.len() > AT_ONCE {
                silent.pop_front();
                // Nobody receives after the first time.
                let _ = filled.send(());
            }
            // The pace of the flood. It takes up connections, and must not take up the processor.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }));
    full.recv().expect("the flood goes on");
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_same(&original, &bob.path("out/data"));
    // Connections of verbs are counted apart.
    ann.ok(&["status"]);
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).expect("it lives").count();
    over.cancel();
    runtime.block_on(flood).expect("it ends");
    assert!(files < OPEN_FILES as usize / 2, "{files} open files");
}
